"""Facts below each other: a name, and what there is to say, folded where the terminal ends."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from rich.text import Text

from mtactl.cli.printable import printable
from mtactl.cli.screen import Screen

__all__ = ["draw_facts"]

_LEAST = 16  # columns for what there is to say, however narrow the terminal is


def draw_facts(screen: Screen, facts: Iterable[tuple[str, str]], *, label: int, style: str = "") -> list[Text]:
    """Give the lines, with the names in so many columns."""
    lines = []
    for name, told in facts:
        room = max(_LEAST, screen.width - label - 3)
        folded = textwrap.wrap(printable(told), room, break_on_hyphens=False) or [""]
        for number, line in enumerate(folded):
            lines.append(Text.assemble(f"  {'' if number else name:<{label}} ", (line, style)))
    return lines
