"""How fast it goes, from totals that were read one after another. No I/O and no clock in it.

A rate is told only between two readings of the same run of the daemon with nothing lost between them: over an outage or
a restart it would be a mean that never was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtactl.control.types import Status

__all__ = ["NO_RATES", "Meter", "Odometers", "Rates", "draw_sparkline", "tell_rate"]

_KEPT = 600  # readings


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Recipients a second; None while it is not known."""

    accepted: float | None = None
    delivered: float | None = None
    deferred: float | None = None
    bounced: float | None = None


NO_RATES = Rates()


class Meter:
    """The rates of the node, and what they were. The seconds between readings are the daemon's own."""

    def __init__(self) -> None:
        self.past: deque[Rates] = deque(maxlen=_KEPT)
        self._last: Status | None = None

    def take(self, status: Status) -> Rates:
        """Take a reading; give the rates since the last one."""
        last, self._last = self._last, status
        seconds = 0.0 if last is None else status.uptime_seconds - last.uptime_seconds
        if last is None or seconds <= 0:
            if last is not None:
                self.past.append(NO_RATES)
            return NO_RATES
        now, then = status.totals, last.totals
        rates = Rates(
            accepted=_rate(now.accepted - then.accepted, seconds),
            delivered=_rate(now.delivered - then.delivered, seconds),
            deferred=_rate(status.deferrals - last.deferrals, seconds),
            bounced=_rate(now.bounced - then.bounced, seconds),
        )
        self.past.append(rates)
        return rates

    def lose(self) -> None:
        """Note that a reading failed."""
        self._last = None
        self.past.append(NO_RATES)

    def history(self, name: str) -> list[float | None]:
        """Give the past of one rate, the oldest first."""
        return [getattr(rates, name) for rates in self.past]


class Odometers:
    """The rates of many things at once, each with a total that only grows while it is the same."""

    def __init__(self) -> None:
        self._last: Mapping[str, int] = {}
        self._at = 0.0

    def take(self, totals: Mapping[str, int], at: float) -> dict[str, float]:
        """Take a reading at a time (seconds); give the rate of each that was in the last one, too."""
        seconds = at - self._at
        last, self._last, self._at = self._last, totals, at
        if seconds <= 0:
            return {}
        rates = {name: _rate(total - last[name], seconds) for name, total in totals.items() if name in last}
        return {name: rate for name, rate in rates.items() if rate is not None}

    def lose(self) -> None:
        """Forget the last reading."""
        self._last = {}


def _rate(grown: int, seconds: float) -> float | None:
    return None if grown < 0 else grown / seconds


def tell_rate(rate: float | None, unknown: str = "-") -> str:
    """Give a rate in a few columns: 4,512/s, 0.3/s."""
    if rate is None:
        return unknown
    return f"{rate:,.0f}/s" if rate >= 9.95 or rate == 0 else f"{rate:.1f}/s"


def draw_sparkline(values: Sequence[float | None], width: int, *, top: float, signs: str) -> str:
    """Draw the last values in so many columns, the latest on the right; what is not known stays empty.

    The first sign is for nothing at all, the last for `top`.
    """
    if width <= 0:
        return ""
    shown = values[-width:]
    steps = len(signs) - 1
    line = ""
    for value in shown:
        if value is None:
            line += " "
        elif value <= 0 or top <= 0:
            line += signs[0]
        else:
            line += signs[max(1, min(steps, round(value / top * steps)))]
    return line.rjust(width)
