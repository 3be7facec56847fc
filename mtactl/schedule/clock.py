"""Whether the wall clock can be believed: it is compared with one that nobody can set.

Mail expires by the wall clock, and an expiry can't be taken back. A clock that is set ahead, by a wrong time server or
by a right one after a start with a wrong clock, would end all mail that waits at once. So for a while after a jump
ahead nothing expires: all that is due is tried, and who watches the node has the time to set the clock right.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

__all__ = ["ClockWatch"]

_SECOND = 1_000_000
_JUMP = 600.0  # seconds: more is no drift, and no correction of one
_DOUBT = 3600.0  # seconds after a jump ahead

_log = structlog.get_logger("clock")


class ClockWatch:
    """Looks at two clocks: `now` in µs since the epoch, `monotonic` in seconds."""

    def __init__(self, now: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._now = now
        self._monotonic = monotonic
        self._between = now() / _SECOND - monotonic()
        self._doubted_until: float | None = None

    def lets_expire(self) -> bool:
        """Whether mail may be called too old now."""
        moment = self._monotonic()
        between = self._now() / _SECOND - moment
        jump, self._between = between - self._between, between
        if jump > _JUMP:
            self._doubted_until = moment + _DOUBT
            _log.warning("the clock was set ahead; nothing expires for a while", seconds=round(jump))
        elif jump < -_JUMP:
            self._doubted_until = None
            _log.warning("the clock was set back", seconds=round(-jump))
        if self._doubted_until is not None and moment >= self._doubted_until:
            self._doubted_until = None
        return self._doubted_until is None
