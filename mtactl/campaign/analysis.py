"""What became of a campaign, gathered page by page: when, where to, and with which replies.

Its size is bounded, however many recipients, destinations and replies there are: times are gathered in steps that grow
with the span, and of destinations and replies that are too many the least are put together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["SERIES", "Analysis", "LaneTally", "ReplyTally", "Timeline", "normalise"]

SERIES = ("delivered", "delivered_after_stop", "bounced", "expired", "dropped", "unknown")

_STEPS = (1, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 86400)  # seconds
_MOST_POINTS = 240  # of the whole
_MOST_AROUND = 60  # of the part around the stop
_AROUND = 1800  # seconds before and after the stop
_MOST_BUCKETS = 2_000
_MOST_KEYS = 20_000  # destinations or replies that are told apart; beyond it the half with the least is put together
_LONGEST = 200  # characters of a normalised reply

# What differs from one recipient to the next: addresses, queue ids, numbers, dates. An enhanced status code (RFC 3463)
# stays, and so does a word without a digit.
_PARTICULAR = re.compile(
    r"<[^<>]*>|[^\s<>()\[\],;:'\"]+@[^\s<>()\[\],;:'\"]+"
    r"|(?<![\w.])(?![245]\.\d{1,3}\.\d{1,3}(?![\w.]))(?=[\w.+/=:-]*\d)[\w.+/=:-]{5,}"
)
_RUN = re.compile(r"\*(?:[\s,;:/-]*\*)+")


def normalise(reply: str) -> str:
    """Give a reply with a `*` for what differs from one recipient to the next."""
    return _RUN.sub("*", _PARTICULAR.sub("*", " ".join(reply.split())))[:_LONGEST]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Outcomes in steps of so many seconds, from `start` on (seconds since the epoch); all series are as long."""

    start: int
    step: int
    series: Mapping[str, Sequence[int]]


@dataclass(slots=True, kw_only=True)
class LaneTally:
    """What became of a campaign at one destination. `waiting` has what is in flight as well, and what is deferred."""

    waiting: int = 0
    deferred: int = 0
    delivered: int = 0
    bounced: int = 0
    expired: int = 0
    dropped: int = 0
    unknown: int = 0

    @property
    def recipients(self) -> int:
        """All of them."""
        return self.waiting + self.delivered + self.bounced + self.expired + self.dropped + self.unknown

    def add(self, other: LaneTally) -> None:
        """Add another's numbers."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True, kw_only=True)
class ReplyTally:
    """How often a reply was seen, and one of them as it came."""

    example: str
    seen: int = 0


@dataclass(slots=True)
class Analysis:
    """Gathers pages. `stop` is when the gate closed, in seconds since the epoch."""

    stop: int | None = None
    lanes: dict[str, LaneTally] = field(default_factory=dict)
    others: LaneTally = field(default_factory=LaneTally)  # of destinations that are not told apart
    replies: dict[tuple[str, int | None, str], ReplyTally] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("waiting", *SERIES), 0))
    _step: int = 0  # index in _STEPS
    _buckets: dict[int, list[int]] = field(default_factory=dict)
    _around: dict[int, list[int]] = field(default_factory=dict)

    def add(
        self,
        *,
        waiting: Iterable[tuple[str, bool, int]],
        settled: Iterable[tuple[str, str, int]],
        times: Iterable[tuple[int, str, bool, int]],
        replies: Iterable[tuple[str, int | None, str, int]],
    ) -> None:
        """Add a page: those who wait by lane and whether they are deferred, those settled by lane and outcome, outcomes
        by second and whether they came after the stop, and replies by outcome (or "deferred"), code and text.
        """
        for lane, deferred, number in waiting:
            tally = self._lane(lane)
            tally.waiting += number
            tally.deferred += number if deferred else 0
            self.totals["waiting"] += number
        for lane, outcome, number in settled:
            tally = self._lane(lane)
            setattr(tally, outcome, getattr(tally, outcome) + number)
            self.totals[outcome] += number
        for second, outcome, after_stop, number in times:
            self._count(second, outcome, after_stop, number)
        for outcome, code, reply, number in replies:
            if not reply and code is None:
                continue
            key = (outcome, code, normalise(reply))
            seen = self.replies.get(key)
            if seen is None:
                seen = self.replies[key] = ReplyTally(example=reply)
            seen.seen += number
        if len(self.replies) > _MOST_KEYS:
            self._merge_replies()

    def _lane(self, lane: str) -> LaneTally:
        tally = self.lanes.get(lane)
        if tally is None:
            if len(self.lanes) >= _MOST_KEYS:
                self._merge_lanes()
            tally = self.lanes[lane] = LaneTally()
        return tally

    def _merge_lanes(self) -> None:
        ranked = sorted(self.lanes, key=lambda name: self.lanes[name].recipients)
        for name in ranked[: _MOST_KEYS // 2]:
            self.others.add(self.lanes.pop(name))

    def _merge_replies(self) -> None:
        ranked = sorted(self.replies, key=lambda key: self.replies[key].seen)
        for key in ranked[: len(ranked) - _MOST_KEYS // 2]:
            seen = self.replies.pop(key)
            rest = self.replies.setdefault((key[0], key[1], "*"), ReplyTally(example=seen.example))
            rest.seen += seen.seen

    def _count(self, second: int, outcome: str, after_stop: bool, number: int) -> None:
        places = [SERIES.index(outcome)]
        if outcome == "delivered" and after_stop:
            places.append(1)
            self.totals["delivered_after_stop"] += number
        buckets = [(self._buckets, second - second % _STEPS[self._step])]
        if self.stop is not None and abs(second - self.stop) <= _AROUND:
            buckets.append((self._around, second))
        for found, key in buckets:
            counts = found.get(key)
            if counts is None:
                counts = found[key] = [0] * len(SERIES)
            for place in places:
                counts[place] += number
        while len(self._buckets) > _MOST_BUCKETS and self._step < len(_STEPS) - 1:
            self._step += 1
            self._buckets = _regroup(self._buckets, _STEPS[self._step])

    def timeline(self) -> Timeline | None:
        """Give all of it; None when nothing has an outcome."""
        return _timeline(self._buckets, _STEPS[self._step], _MOST_POINTS)

    def around_stop(self) -> Timeline | None:
        """Give half an hour before and after the stop, as far as anything happened in it."""
        return _timeline(self._around, 1, _MOST_AROUND)

    def top_lanes(self, most: int) -> tuple[Sequence[tuple[str, LaneTally]], int, LaneTally]:
        """Give the destinations with the most recipients, how many more are known, and those together."""
        ranked = sorted(self.lanes.items(), key=lambda item: (-item[1].recipients, item[0]))
        rest = LaneTally()
        rest.add(self.others)
        for _, tally in ranked[most:]:
            rest.add(tally)
        return ranked[:most], max(0, len(ranked) - most), rest

    def top_replies(self, most: int) -> Iterator[tuple[str, int | None, str, ReplyTally]]:
        """Give the replies seen most of each outcome."""
        given: dict[str, int] = {}
        for (outcome, code, text), seen in sorted(self.replies.items(), key=lambda item: -item[1].seen):
            given[outcome] = given.get(outcome, 0) + 1
            if given[outcome] <= most:
                yield outcome, code, text, seen


def _regroup(buckets: Mapping[int, Sequence[int]], step: int) -> dict[int, list[int]]:
    made: dict[int, list[int]] = {}
    for second, counts in buckets.items():
        key = second - second % step
        known = made.get(key)
        made[key] = list(counts) if known is None else [one + other for one, other in zip(known, counts, strict=True)]
    return made


def _timeline(buckets: Mapping[int, Sequence[int]], least: int, most: int) -> Timeline | None:
    if not buckets:
        return None
    span = max(buckets) - min(buckets) + 1
    steps = [step for step in _STEPS if step >= least]
    # A clock that was set wrong may have left an outcome decades away: then the step is what the span needs.
    step = next((step for step in steps if span <= step * (most - 1)), span // (most - 1) + 1)
    grouped = _regroup(buckets, step)
    start, end = min(grouped), max(grouped)
    nothing = (0,) * len(SERIES)
    columns = [grouped.get(second, nothing) for second in range(start, end + 1, step)]
    return Timeline(
        start=start, step=step, series={name: [row[place] for row in columns] for place, name in enumerate(SERIES)}
    )
