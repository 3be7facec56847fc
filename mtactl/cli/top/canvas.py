"""A screen whose lines are kept instead of written, so that what the other verbs draw can stand on the live screen."""

from __future__ import annotations

import sys

from rich.console import RenderableType
from rich.text import Text

from mtactl.cli.screen import ASCII, UNICODE, Screen

__all__ = ["Canvas"]

_SPARKS, _ASCII_SPARKS = "▁▂▃▄▅▆▇█", "_.-=+*%#"


class Canvas(Screen):
    """So many columns. `lines` is what was shown on it."""

    def __init__(self, columns: int) -> None:
        # Not that of Screen: the live screen has put something else in the place of the output streams.
        encoding = getattr(sys.__stderr__, "encoding", None) or "ascii"
        self.glyphs = UNICODE if encoding.lower().replace("-", "").startswith("utf") else ASCII
        self._columns = max(1, columns)
        self.lines: list[Text] = []

    @property
    def width(self) -> int:
        """The columns of a line."""
        return self._columns

    @property
    def sparks(self) -> str:
        """The signs of a sparkline, from nothing to the most."""
        return _SPARKS if self.glyphs is UNICODE else _ASCII_SPARKS

    def show(self, *things: RenderableType) -> None:
        """Keep the lines."""
        self.lines += [thing for thing in things if isinstance(thing, Text)]
