"""Tables in the width that there is. Numbers are never cut; texts give way, the longest first, and columns that are
nice to have are left out before the others become unreadable, and then the last ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from mtactl.cli.printable import elide, printable
from mtactl.cli.screen import Screen

__all__ = ["Cell", "Column", "Table"]

_GAP = 2
_ALWAYS = 2  # columns that are never left out

Cell = str | tuple[str, str]  # a text, or a text and its style


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column. With `least` it may be cut down to so many columns; `optional` ones are left out, the last first."""

    title: str
    right: bool = False
    least: int = 0
    optional: bool = False
    middle: bool = True  # an id, whose end tells as much as its beginning
    style: str = ""


class Table:
    """Lays out rows; the widths are those that the first rows given need, so that more may follow as they come."""

    def __init__(self, screen: Screen, columns: Sequence[Column]) -> None:
        self._screen = screen
        self._columns = columns
        self._shown: list[tuple[int, int]] | None = None  # index of a column, and its width

    def show(self, rows: Iterable[Sequence[Cell]]) -> None:
        """Write rows, below the titles the first time."""
        self._screen.show(*self.draw(rows))

    def draw(self, rows: Iterable[Sequence[Cell]]) -> list[RenderableType]:
        """Give the lines of rows, below the titles the first time."""
        clean = [[_clean(cell) for cell in row] for row in rows]
        lines: list[RenderableType] = []
        if self._shown is None:
            self._shown = self._lay_out(clean)
            lines.append(self._line([(column.title, "bold") for column in self._columns]))
        lines += [self._line(row) for row in clean]
        return lines

    def _lay_out(self, rows: Sequence[Sequence[tuple[str, str]]]) -> list[tuple[int, int]]:
        natural = [
            max([cell_len(column.title), *(cell_len(row[index][0]) for row in rows)])
            for index, column in enumerate(self._columns)
        ]
        shown = list(range(len(self._columns)))
        while (over := self._over(shown, natural, least=True)) > 0:
            # A number that is cut is a wrong one: where nothing is optional any more, the last columns go.
            given_up = [index for index in shown if self._columns[index].optional] or shown[_ALWAYS:]
            if not given_up:
                break
            shown.remove(given_up[-1])
        widths = dict(zip(shown, (natural[index] for index in shown), strict=True))
        over = self._over(shown, natural)
        while over > 0:
            room = {index: widths[index] - self._columns[index].least for index in shown if self._columns[index].least}
            widest = max((index for index in room if room[index] > 0), key=lambda index: widths[index], default=None)
            if widest is None:
                break
            widths[widest] -= 1
            over -= 1
        return [(index, widths[index]) for index in shown]

    def _over(self, shown: Sequence[int], natural: Sequence[int], *, least: bool = False) -> int:
        """Give by how many columns the table is too wide, with its texts in full or at their least."""
        widths = [
            min(natural[index], self._columns[index].least) if least and self._columns[index].least else natural[index]
            for index in shown
        ]
        return sum(widths) + _GAP * (len(widths) - 1) - self._screen.width

    def _line(self, row: Sequence[tuple[str, str]]) -> Text:
        assert self._shown is not None
        line = Text()
        for place, (index, width) in enumerate(self._shown):
            column = self._columns[index]
            text, style = row[index]
            text = elide(text, width, mark=self._screen.glyphs.cut, middle=column.middle) if column.least else text
            space = " " * (width - cell_len(text))
            last = place == len(self._shown) - 1
            line.append(space if column.right else "")
            line.append(text, style or column.style)
            line.append("" if column.right or last else space)
            line.append("" if last else " " * _GAP)
        line.rstrip()
        return line


def _clean(cell: Cell) -> tuple[str, str]:
    text, style = (cell, "") if isinstance(cell, str) else cell
    return printable(text), style
