"""Consoles, and what all tables and panels have in common. rich is met in the modules that end in `_screen` and here.

Every word that comes from the daemon passes through `plain`, so that nothing in it reaches the terminal as a command.
"""

from __future__ import annotations

from typing import TextIO

from rich.box import ROUNDED
from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mtactl.cli.text import clean

__all__ = ["bar", "columns", "framed", "grid", "open_console", "plain", "state_text", "wide"]

WIDEST = 100  # columns; a panel wider than that is hard to read

STATES = {
    "active": "green",
    "held": "yellow",
    "halting": "bold red",
    "halted": "red",
    "ready": "green",
    "deferred": "yellow",
    "scheduled": "cyan",
    "in_flight": "bold",
    "delivered": "green",
    "bounced": "red",
    "expired": "red",
    "dropped": "yellow",
    "unknown": "magenta",
    "idle": "dim",
    "open": "green",
    "throttled": "cyan",
    "backoff": "yellow",
    "ok": "green",
    "degraded": "yellow",
    "failed": "bold red",
}
WORDS = {"in_flight": "in flight", "backoff": "back-off"}


def open_console(stream: TextIO) -> Console:
    """Give a console on the stream: no colours and no cursor movements where it is not a terminal."""
    return Console(file=stream, force_terminal=stream.isatty(), highlight=False, markup=False, emoji=False)


def wide(console: Console) -> int:
    """Give the width of a panel on the console."""
    return min(console.width, WIDEST)


def plain(words: str, style: str = "") -> Text:
    """Give words by anyone as text in one line, with control characters spelt out; it is cut where it does not fit."""
    return Text(clean(words), style=style, no_wrap=True, overflow="ellipsis")


def state_text(state: str) -> Text:
    """Give a state in its colour."""
    return plain(WORDS.get(state, state), STATES.get(state, ""))


def columns(*titles: str, right: tuple[str, ...] = (), stretch: str = "") -> Table:
    """Make a table with a column for each title. Those in `right` hold numbers; `stretch` takes the room that is left."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    for title in titles:
        is_stretched = title == stretch
        table.add_column(
            Text(title, no_wrap=True),
            justify="right" if title in right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=None,
            min_width=None if is_stretched else len(title),
            max_width=None,
        )
    return table


def grid(*rights: bool) -> Table:
    """Make a table without titles, with a column for each truth value: whether it holds numbers."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for right in rights:
        table.add_column(justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
    return table


def framed(console: Console, title: Text, content: RenderableType) -> RenderableType:
    """Put the content into a panel on a terminal, and give it as it is elsewhere."""
    if not console.is_terminal:
        return content
    return Panel(content, title=title, title_align="left", box=ROUNDED, width=wide(console), padding=(0, 1))


def bar(console: Console, part: int, whole: int, width: int, style: str) -> Text:
    """Give a bar for a share. What is not nothing has a length, and what is not all is not full."""
    full, half, empty = ("━", "╸", "─") if console.encoding.startswith("utf") else ("#", "-", ".")
    halves = 0 if whole <= 0 else round(2 * width * part / whole)
    if part > 0:
        halves = max(halves, 1)
    if part < whole:
        halves = min(halves, 2 * width - 1)
    filled = full * (halves // 2) + half * (halves % 2)
    text = Text(no_wrap=True)
    text.append(filled, style=style)
    text.append(empty * (width - len(filled)), style="dim")
    return text
