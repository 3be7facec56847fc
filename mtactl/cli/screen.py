"""Where the client writes what people read: the two output streams, as wide and as colourful as they can be.

No escape sequence goes to anything but a terminal, and no colour where NO_COLOR is set. A terminal gets lines that fit;
a pipe gets them whole, unless COLUMNS says otherwise, since what is cut can't be searched for.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, RenderableType

from mtactl.cli.failures import ReaderGone
from mtactl.cli.session import silence, writing

__all__ = ["ASCII", "UNICODE", "Glyphs", "Screen"]

_ENDLESS = 100_000  # columns of a pipe
_READABLE = 80  # columns for what is drawn and not searched
_WIDEST = 100  # columns beyond which a drawing gains nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyphs:
    """The signs that a stream's encoding has."""

    tick: str
    waiting: str
    spinner: str
    done: str
    rest: str
    cut: str
    levels: str  # of a bar, from the lowest to the full one
    mark: str
    outcomes: dict[str, str]


_OUTCOMES = ("delivered", "bounced", "expired", "dropped", "unknown", "in_flight", "queued")

UNICODE = Glyphs(
    tick="✔",
    waiting="·",
    spinner="⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏",
    done="━",
    rest="─",
    cut="…",
    levels="▁▂▃▄▅▆▇█",
    mark="▲",
    outcomes=dict(zip(_OUTCOMES, "█▓▚░?▞▒", strict=True)),
)
ASCII = Glyphs(
    tick="x",
    waiting=".",
    spinner="|/-\\",
    done="#",
    rest="-",
    cut="...",
    levels=".:-=+*#@",
    mark="^",
    outcomes=dict(zip(_OUTCOMES, "DBEx?>q", strict=True)),
)


class Screen:
    """Writes lines and drawings to one stream: the standard output, or with `errors` the standard error stream."""

    def __init__(self, *, errors: bool = False) -> None:
        self._stream: TextIO = sys.stderr if errors else sys.stdout
        self._errors = errors
        self.is_terminal = self._stream.isatty()
        self.is_live = self.is_terminal and os.environ.get("TERM", "") not in {"", "dumb", "unknown"}
        unicode = (self._stream.encoding or "ascii").lower().replace("-", "").startswith("utf")
        self.glyphs = UNICODE if unicode else ASCII
        given = os.environ.get("COLUMNS", "")
        columns = int(given) if given.isascii() and given.isdigit() and int(given) > 0 else None
        colourless = bool(os.environ.get("NO_COLOR")) or not self.is_live
        self.console = _Console(
            file=self._stream,
            force_terminal=self.is_terminal,
            color_system=None if colourless else "auto",
            width=columns or (None if self.is_terminal else _ENDLESS),
            highlight=False,
            markup=False,
            emoji=False,
        )

    @property
    def width(self) -> int:
        """The columns of a line; practically endless on a pipe."""
        return self.console.width

    @property
    def drawing_width(self) -> int:
        """The columns of a drawing."""
        return min(self.width if self.width < _ENDLESS else _READABLE, _WIDEST)

    def show(self, *things: RenderableType) -> None:
        """Write each in lines of its own; what does not fit is cut. Raises ReaderGone; on the error stream nothing."""
        try:
            with writing():
                for thing in things:
                    self.console.print(thing, no_wrap=True, overflow="crop", crop=True)
                self._stream.flush()
        except ReaderGone:
            if not self._errors:
                raise
            silence(sys.stderr)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Tell the caller; rich would end the process."""
        raise ReaderGone
