"""A lane's rate limit: the generic cell rate algorithm (ITU-T I.371), in recipients a second.

The state is one number, the theoretical arrival time of the next recipient. Nothing sleeps in here: a lane asks how
long it must wait while it holds no message, and asks again when the time has come.
"""

from __future__ import annotations

__all__ = ["Throttle"]


class Throttle:
    """A rate in recipients a second (None: no limit), and how many may go at once after a pause."""

    __slots__ = ("_arrival", "burst", "rate")

    def __init__(self, rate: float | None, burst: int = 1) -> None:
        self.rate = rate
        self.burst = burst
        self._arrival = float("-inf")

    def wait(self, now: float) -> float:
        """Give the seconds from `now` (monotonic) until one recipient more may go; 0.0 when it may go now."""
        if self.rate is None:
            return 0.0
        return max(0.0, self._arrival - (self.burst - 1) / self.rate - now)

    def take(self, now: float, recipients: int) -> None:
        """Account for recipients that go now. A transaction of several is let go whole and paid for afterwards."""
        if self.rate is not None:
            self._arrival = max(self._arrival, now) + recipients / self.rate

    def change(self, rate: float | None, burst: int) -> None:
        """Set another rate; what was paid for at the old one is forgotten."""
        if (rate, burst) != (self.rate, self.burst):
            self.rate = rate
            self.burst = burst
            self._arrival = float("-inf")
