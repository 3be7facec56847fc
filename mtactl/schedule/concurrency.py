"""How many connections a lane may have at once: feedback of 1/N with hysteresis, after Postfix's SCHEDULER_README.

Each delivery that a destination handles adds 1/N to the allowance (N is the present one), each failure to hold a
session takes 1/N off; the allowance moves only when a whole step has added up, so single errors among successes do not
make it swing. Failures that add up to one whole allowance (a pseudo-cohort) with no success in between mean that the
destination is dead, which is the lane's cue to back off.
"""

from __future__ import annotations

__all__ = ["Concurrency"]

_INITIAL = 5  # Postfix's default_destination_concurrency default for a start, initial_destination_concurrency


class Concurrency:
    """The allowance of one destination, between 1 and `limit` connections."""

    __slots__ = ("_credit", "_failed", "allowance", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.allowance = min(_INITIAL, limit)
        self._credit = 0.0
        self._failed = 0.0

    def succeed(self) -> None:
        """Account for a transaction that the destination answered, whatever it said."""
        self._failed = 0.0
        if self.allowance >= self.limit:
            self._credit = 0.0
            return
        self._credit += 1.0 / self.allowance
        if self._credit >= 1.0:
            self._credit -= 1.0
            self.allowance += 1

    def fail(self) -> None:
        """Account for a session that could not be had, or was lost."""
        self._failed += 1.0 / self.allowance
        self._credit -= 1.0 / self.allowance
        if self._credit <= -1.0:
            self._credit += 1.0
            self.allowance = max(1, self.allowance - 1)

    @property
    def dead(self) -> bool:
        """Whether a whole allowance of failures came with no success in between."""
        return self._failed >= 1.0 - 1e-9

    def probe(self) -> None:
        """Begin again after a back-off: one connection, and a single failure is enough to be dead again."""
        self.allowance = 1
        self._credit = 0.0
        self._failed = 0.0

    def change(self, limit: int) -> None:
        """Set another limit."""
        self.limit = limit
        self.allowance = min(self.allowance, limit)
