"""What happens, as a stream that any number of readers may follow, each at its own pace.

A slow reader never slows the daemon: what does not fit into its queue is left out, and an event of kind "gap" tells it
how many it missed. The latest events are kept, save for outcomes, which come by the thousand and are on record anyway.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Event", "EventBus"]

OUTCOME = "outcome"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. `id` grows by one an event; `at` is in µs since the epoch."""

    id: int
    at: int
    kind: str
    data: Mapping[str, Any]


class _Reader:
    """The queue of one reader. The oldest go first when it is full, so that what it then reads is recent."""

    def __init__(self, limit: int, *, outcomes: bool) -> None:
        self.outcomes = outcomes
        self.queue: deque[Event] = deque()
        self.arrived = asyncio.Event()
        self._limit = limit
        self._missed = 0
        self._last_missed: Event | None = None

    def put(self, event: Event) -> None:
        if len(self.queue) >= self._limit:
            self._last_missed = self.queue.popleft()
            self._missed += 1
        self.queue.append(event)
        self.arrived.set()

    def take_gap(self) -> Event | None:
        """Give the gap that lies before the queue's first event, once."""
        missed, last = self._missed, self._last_missed
        self._missed, self._last_missed = 0, None
        return None if last is None else _gap(last.id, last.at, missed)


class EventBus:
    """Publishes events to whoever follows. Called from the event loop's thread only.

    `now` gives µs since the epoch, `ring` is how many events are kept, `backlog` how many a reader may lag behind.
    """

    def __init__(self, *, now: Callable[[], int] | None = None, ring: int = 1000, backlog: int = 10_000) -> None:
        self._now = now or (lambda: time.time_ns() // 1000)
        self._ring: deque[Event] = deque(maxlen=ring)
        self._backlog = backlog
        self._readers: set[_Reader] = set()
        self._last = 0
        self._forgotten = 0  # the id of the last event that the ring has lost
        self._closed = False

    @property
    def followed(self) -> bool:
        """Whether anyone follows the outcomes, too: their events need not be built otherwise."""
        return any(reader.outcomes for reader in self._readers)

    def publish(self, kind: str, data: Mapping[str, Any]) -> None:
        """Tell what happened. Never blocks; `data` must not be changed afterwards, and can be written as JSON."""
        self._last += 1
        event = Event(id=self._last, at=self._now(), kind=kind, data=data)
        if kind != OUTCOME:
            if len(self._ring) == self._ring.maxlen:
                self._forgotten = self._ring[0].id
            self._ring.append(event)
        for reader in self._readers:
            if reader.outcomes or kind != OUTCOME:
                reader.put(event)

    def recent(self) -> Sequence[Event]:
        """Give the latest events but outcomes, the oldest first."""
        return tuple(self._ring)

    async def follow(self, after: int | None = None, *, outcomes: bool = True) -> AsyncGenerator[Event, None]:
        """Give events as they come; with `after`, first those behind that id which are still kept.

        Ends when the bus is closed. An id of a former run of the daemon (larger than any of this one) brings all that
        is kept. A reader without `outcomes` has missed something only when an event of another kind is forgotten;
        the gap then tells how many ids went by, those of outcomes among them.
        """
        reader = _Reader(self._backlog, outcomes=outcomes)
        replay: list[Event] = []
        if after is not None:
            start = after if after <= self._last else 0
            replay = [event for event in self._ring if event.id > start]
            missed = self._last - start - len(replay) if outcomes else self._forgotten - start
            if missed > 0 and start == after:
                replay.insert(0, _gap(start, self._now(), missed))
        self._readers.add(reader)
        try:
            for event in replay:
                yield event
            while not self._closed:
                gap = reader.take_gap()
                if gap is not None:
                    yield gap
                elif reader.queue:
                    yield reader.queue.popleft()
                else:
                    reader.arrived.clear()
                    await reader.arrived.wait()
        finally:
            self._readers.discard(reader)

    def close(self) -> None:
        """End all followers' streams."""
        self._closed = True
        for reader in self._readers:
            reader.arrived.set()


def _gap(last_id: int, at: int, missed: int) -> Event:
    return Event(id=last_id, at=at, kind="gap", data={"missed": missed})
