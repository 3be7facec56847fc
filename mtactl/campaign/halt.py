"""A halt as it goes on: its facts and the five steps of CONTRACT.md §4, in the order in which reports show them.

gate_closed and recorded come first, in that order; queue_dropped and in_flight_finished come in any order; completed
comes last. A step is reached once; reaching one out of turn raises.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from mtactl.errors import IllegalMove

__all__ = ["Halt", "HaltStep"]


class HaltStep(enum.Enum):
    """The steps, by their names in reports."""

    GATE_CLOSED = "gate_closed"
    RECORDED = "recorded"
    QUEUE_DROPPED = "queue_dropped"
    IN_FLIGHT_FINISHED = "in_flight_finished"
    COMPLETED = "completed"


_NEEDS = {
    HaltStep.GATE_CLOSED: frozenset[HaltStep](),
    HaltStep.RECORDED: frozenset({HaltStep.GATE_CLOSED}),
    HaltStep.QUEUE_DROPPED: frozenset({HaltStep.RECORDED}),
    HaltStep.IN_FLIGHT_FINISHED: frozenset({HaltStep.RECORDED}),
    HaltStep.COMPLETED: frozenset({HaltStep.QUEUE_DROPPED, HaltStep.IN_FLIGHT_FINISHED}),
}


@dataclass(slots=True, kw_only=True)
class Halt:
    """One campaign's halt on this node. Times are µs since the epoch; counts are recipients when the gate closed."""

    campaign: str
    kind: str  # "stop" or "cancel"
    reason: str | None
    requested_uid: int | None
    requested_user: str
    requested_at: int
    queued_at_stop: int
    in_flight_at_stop: int
    steps: dict[HaltStep, int] = field(default_factory=dict)

    def reach(self, step: HaltStep, at: int) -> None:
        """Note that a step is done. Raises IllegalMove when it was, or when one that it needs was not."""
        if step in self.steps or not _NEEDS[step] <= self.steps.keys():
            reached = ", ".join(name.value for name in self.steps) or "nothing yet"
            raise IllegalMove(self.campaign, f"halting with {reached} done", step.value)
        self.steps[step] = at

    @property
    def completed_at(self) -> int | None:
        """When nothing was queued or in flight any more, or None."""
        return self.steps.get(HaltStep.COMPLETED)

    def queue_dropped(self, queued: int) -> tuple[int, int]:
        """Give (done, total) of the step queue_dropped, with so many still queued."""
        total = max(self.queued_at_stop, queued)
        return total - queued, total

    def in_flight_finished(self, in_flight: int) -> tuple[int, int]:
        """Give (done, total) of the step in_flight_finished, with so many still in flight."""
        return self.in_flight_at_stop - in_flight, self.in_flight_at_stop
