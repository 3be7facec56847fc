"""Numbers, sizes, durations and times as people read them. Times are shown in the reader's own time zone."""

from __future__ import annotations

from datetime import UTC, datetime

from mtactl.cli.printable import printable

__all__ = ["age", "clock", "count", "date", "duration", "moment", "offset", "plural", "share", "short_count", "size"]

_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR


def count(number: int) -> str:
    """Give a number with its thousands apart: 48,210."""
    return f"{number:,}"


def short_count(number: int) -> str:
    """Give a number in seven columns at most, for tables: exact below a million, then 1.23M, 4.56G."""
    if abs(number) < 1_000_000:
        return count(number)
    scaled, unit = (number / 1e6, "M") if abs(number) < 999_500_000 else (number / 1e9, "G")
    digits = 2 if abs(scaled) < 10 else 1 if abs(scaled) < 100 else 0
    return f"{scaled:,.{digits}f}{unit}"


def plural(number: int, one: str, many: str = "") -> str:
    """Give a number with its noun: 1 recipient, 2,000 recipients."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def share(part: int, whole: int) -> str:
    """Give a part as a percentage, never rounded to a nothing or an all that it is not."""
    if whole <= 0:
        return ""
    percent = 100 * part / whole
    if 0 < part < whole:
        percent = min(max(percent, 0.1), 99.9)
    return f"{percent:.1f} %"


def size(octets: int) -> str:
    """Give a number of bytes: 512 B, 10.0 KiB, 1.5 GiB."""
    scaled = float(octets)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(scaled) < 1024:
            return f"{octets} B" if unit == "B" else f"{scaled:.1f} {unit}"
        scaled /= 1024
    return f"{scaled:,.1f} TiB"


def duration(seconds: float) -> str:
    """Give a span of time in its two largest units: 0.123 s, 45.6 s, 3 min 20 s, 4 h 12 min, 3 d 4 h."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if round(seconds, 1) < _MINUTE:
        return f"{seconds:.3f} s" if seconds < 10 else f"{seconds:.1f} s"
    whole = round(seconds)
    for large, large_name, small, small_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= large:
            first, rest = divmod(whole, large)
            second = rest // small
            return f"{count(first)} {large_name}" + (f" {second} {small_name}" if second else "")
    return f"{whole} s"


def age(seconds: float) -> str:
    """Give a span of time in its largest unit, in a few columns: 5s, 12m, 3h, 9d."""
    whole = max(0, int(seconds))
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if whole >= unit:
            return f"{whole // unit}{name}"
    return f"{whole}s"


def moment(text: str | None) -> datetime | None:
    """Read a time of the API; None when there is none, or it is none."""
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def clock(text: str | None) -> str:
    """Give a time of the API as the time of day, to the millisecond."""
    at = moment(text)
    if at is None:
        return printable(text or "")
    return at.astimezone().strftime("%H:%M:%S.%f")[:-3]


def date(text: str | None) -> str:
    """Give a time of the API with its date and time zone."""
    at = moment(text)
    return printable(text or "") if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z").rstrip()


def offset(text: str | None, since: str | None) -> str:
    """Give how long after `since` a time of the API was: +0.003 s."""
    at, start = moment(text), moment(since)
    if at is None or start is None:
        return ""
    seconds = (at - start).total_seconds()
    return duration(seconds) if seconds < 0 else f"+{duration(seconds)}"
