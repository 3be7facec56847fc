"""The live log: the latest events, each drawn in a line."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from rich.text import Text

from mtactl.cli.figures import count, moment
from mtactl.cli.top.drawing import draw_log_line
from mtactl.control.types import Event

__all__ = ["KEPT", "Journal"]

KEPT = 1000  # lines
_MOST = 200  # events drawn in one go; whoever asks for outcomes may get thousands a second
_RECENT = 60.0  # seconds; an older halt is history

# What changes campaigns: the figures are to be read again at once.
_TELLING = frozenset({"halt", "halt_step", "hold", "release", "drop", "retry"})


class Journal:
    """Keeps the latest lines. `halts` are the campaigns of halts that came a moment ago, until they are taken."""

    def __init__(self) -> None:
        self._lines: deque[Text] = deque(maxlen=KEPT)
        self._halts: list[str] = []

    def take(self, events: Sequence[Event]) -> tuple[list[Text], bool]:
        """Take events; give their lines, and whether any of them changed a campaign."""
        fresh: list[Text] = []
        if len(events) > _MOST:
            others = [event for event in events if event.kind != "outcome"]
            outcomes = [event for event in events if event.kind == "outcome"][-_MOST:]
            skipped = len(events) - len(others) - len(outcomes)
            events = sorted(others + outcomes, key=lambda event: event.id)
            fresh.append(Text.assemble((f"{'':14}{count(skipped)} outcomes are not shown", "dim")))
        fresh += [draw_log_line(event) for event in events]
        self._halts += [
            str(event.data.get("campaign")) for event in events if event.kind == "halt" and _is_recent(event)
        ]
        self._lines += fresh
        return fresh, any(event.kind in _TELLING for event in events)

    def take_halts(self) -> tuple[str, ...]:
        """Give the campaigns that were halted a moment ago, once."""
        taken, self._halts = tuple(self._halts), []
        return taken

    def matching(self, match: str) -> list[Text]:
        """Give the lines that have this in them, in whatever case."""
        return [line for line in self._lines if match.lower() in line.plain.lower()]

    def last(self, number: int, width: int) -> list[Text]:
        """Give the last lines, cut to so many columns."""
        lines = [line.copy() for line in list(self._lines)[-number:]] if number > 0 else []
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return lines


def _is_recent(event: Event) -> bool:
    at = moment(event.at)
    return at is not None and time.time() - at.timestamp() < _RECENT
