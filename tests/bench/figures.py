"""What a benchmark gives: figures with their units, the peer's beside them where there is one, and the project's goals.

A case is a module of this folder with `measure(scale, tell)`, which yields figures as it goes. `scale` is 1.0 for the
sizes that the goals speak of, less for a look; `tell` takes a sentence for those who wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypedDict

__all__ = ["Case", "Figure", "Goal", "Tell"]

Tell = Callable[[str], None]


class Goal(TypedDict, total=False):
    """What a figure must reach, and what it is to reach, as its two fields."""

    must: float
    aim: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number. `more` says whether more of it is better; `must` and `aim` are in the figure's own unit, or
    in times the peer's where `of_peer` is set. `samples` are what the value was taken of, `at` is the place on the
    picture's axis (a queue's size, a number of campaigns) where the case has one.
    """

    case: str
    what: str
    unit: str
    value: float
    more: bool = True
    peer: float | None = None
    peer_name: str = ""
    must: float | None = None
    aim: float | None = None
    of_peer: bool = False
    at: float | None = None
    samples: tuple[float, ...] = field(default=())
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Give how many times better than the peer it is."""
        if not self.peer or not self.value:
            return None
        return self.value / self.peer if self.more else self.peer / self.value

    def reaches(self, goal: float | None) -> bool | None:
        """Say whether a goal is reached; None where there is none."""
        reached = self.ratio if self.of_peer else self.value
        if goal is None or reached is None:
            return None
        return reached >= goal if self.more or self.of_peer else reached <= goal


class Case(Protocol):
    """What a module of this folder offers to `make bench`."""

    def measure(self, scale: float, tell: Tell) -> Iterator[Figure]:
        """Measure, and yield each figure when it is known."""
