"""The table on the live screen: titles that stay, rows that scroll, and a cursor that keeps to what it is on.

The rows change their order each second. A cursor that stood on a place, and not on a campaign, would have another one
under it by the time that a key is pressed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

__all__ = ["Grid"]

_CURSOR = Style(reverse=True)
_STALE = Style(dim=True)


class Grid(ScrollView, can_focus=True):
    """Shows lines that are laid out already. `key` is what the cursor is on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown,space", "page(1)", show=False),
        Binding("home,g", "first", show=False),
        Binding("end,G", "last", show=False),
    ]
    DEFAULT_CSS = "Grid { overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }"

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (textual's own name)
        super().__init__(id=id)
        self._titles = Text()
        self._keys: Sequence[str] = ()
        self._lines: Sequence[Text] = ()
        self._row = 0
        self._moved = False  # until then the cursor is on the first row, whatever that is
        self._stale = False

    @property
    def key(self) -> str | None:
        """What the cursor is on, if there is anything."""
        return self._keys[self._row] if self._keys else None

    def show(self, titles: Text, keys: Sequence[str], lines: Sequence[Text], *, stale: bool = False) -> None:
        """Show other rows, with the cursor on what it was on."""
        key, seen = self.key, self._is_seen()
        self._titles, self._keys, self._lines, self._stale = titles, keys, lines, stale
        if not self._moved:
            self._row = 0
        elif key in keys:
            self._row = keys.index(key)
        self._row = max(0, min(self._row, len(keys) - 1))
        self.virtual_size = Size(self.size.width, len(lines) + 1)
        if seen:
            self._see()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        width = self.size.width
        row = y - 1 + round(self.scroll_offset.y)
        if y == 0:
            text, style = self._titles, None
        elif row < len(self._lines):
            text = self._lines[row]
            style = _CURSOR if row == self._row and self.has_focus else _STALE if self._stale else None
        else:
            return Strip.blank(width, self.rich_style)
        strip = Strip(text.render(self.app.console)).adjust_cell_length(width)
        if style is not None:
            strip = strip.apply_style(style)
        return strip.apply_style(self.rich_style)

    def action_move(self, rows: int) -> None:
        """Move the cursor by so many rows."""
        self._go(self._row + rows)

    def action_page(self, pages: int) -> None:
        """Move the cursor by so many screens."""
        self._go(self._row + pages * max(1, self.size.height - 2))

    def action_first(self) -> None:
        """Go to the first row, and stay there whatever comes to be the first."""
        self._go(0)
        self._moved = False

    def action_last(self) -> None:
        """Go to the last row."""
        self._go(len(self._keys) - 1)

    def _go(self, row: int) -> None:
        self._row = max(0, min(row, len(self._keys) - 1))
        self._moved = True
        self._see()
        self.refresh()

    def _room(self) -> int:
        return max(1, self.size.height - 1)

    def _is_seen(self) -> bool:
        top = round(self.scroll_offset.y)
        return top <= self._row < top + self._room()

    def _see(self) -> None:
        """Scroll as little as it takes to have the cursor on the screen."""
        top, room = round(self.scroll_offset.y), self._room()
        wanted = min(max(top, self._row - room + 1), self._row)
        if wanted != top:
            self.scroll_to(y=wanted, animate=False, immediate=True)
