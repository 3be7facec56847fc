"""Text for people: numbers, sizes, times and durations, and words by strangers made harmless."""

from __future__ import annotations

import re
from datetime import UTC, datetime

__all__ = ["ago", "clean", "duration", "local_time", "number", "percent", "plural", "seconds_between", "size"]

# C0, DEL and C1 controls, marks that turn the direction of writing, line and paragraph separators, byte-order mark,
# and what may be left of text that was not UTF-8.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_PRECISE = 10  # seconds below which tenths matter


def clean(text: str) -> str:
    """Give the text with every character spelt out that a terminal would act on."""
    return _UNSAFE.sub(_spell, text)


def _spell(found: re.Match[str]) -> str:
    point = ord(found[0])
    return f"\\x{point:02x}" if point <= 0xFF else f"\\u{point:04x}"


def number(count: int) -> str:
    """Give a count with its thousands apart."""
    return f"{count:,}"


def plural(count: int, noun: str) -> str:
    """Give a count and what it counts: "1 recipient", "2,000 recipients"."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def percent(part: int, whole: int) -> str:
    """Give a share. What is not nothing is never shown as 0 %, and what is not all never as 100 %."""
    if whole <= 0:
        return ""
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "<0.1 %"
    if 99.9 < share < 100:
        return ">99.9 %"
    return f"{share:.1f} %"


def size(octets: int) -> str:
    """Give a number of octets in the unit that suits it."""
    if octets < 1024:
        return f"{octets} B"
    amount = float(octets)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1000:
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def duration(seconds: float) -> str:
    """Give a length of time, in two units at most."""
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < _PRECISE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, smaller, smaller_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit} {name} {rest} {smaller_name}" if rest else f"{whole // unit} {name}"
    return f"{whole} s"


def local_time(at: str) -> str:
    """Give an RFC 3339 time in this machine's time zone, or as it is when it can't be read."""
    moment = _moment(at)
    return clean(at) if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def seconds_between(earlier: str, later: str) -> float | None:
    """Give the seconds between two RFC 3339 times, or None when one can't be read."""
    start, end = _moment(earlier), _moment(later)
    return None if start is None or end is None else (end - start).total_seconds()


def ago(at: str, *, now: datetime | None = None) -> str:
    """Say how long ago an RFC 3339 time was, or how soon it will be."""
    moment = _moment(at)
    if moment is None:
        return clean(at)
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{duration(round(seconds))} ago" if seconds > 0 else f"in {duration(round(-seconds))}"


def _moment(at: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
