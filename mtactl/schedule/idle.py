"""The connections of a lane that wait for work, the one that waits longest first.

There is one timer for all of them, and a wait that ends before its time touches no timer at all: between two mails of a
busy lane a connection waits for some milliseconds, a thousand times a second.
"""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["IdleConnections"]


class IdleConnections:
    """Who waits, each until a time of its own. Called from the event loop's thread only."""

    __slots__ = ("_timer", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[bool], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, seconds: float) -> asyncio.Future[bool]:
        """Give a future that is True when there is work, False when none came in that time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((waiter, deadline))
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._expire)
        return waiter

    def wake(self, number: int) -> None:
        """Wake so many, or as many as there are."""
        waiting = self._waiting
        while number > 0 and waiting:
            waiter, _ = waiting.popleft()
            if not waiter.done():
                waiter.set_result(True)
                number -= 1

    def _expire(self) -> None:
        self._timer = None
        waiting = self._waiting
        loop = asyncio.get_running_loop()
        now = loop.time()
        while waiting:
            waiter, deadline = waiting[0]
            if deadline > now and not waiter.done():
                self._timer = loop.call_at(deadline, self._expire)
                return
            waiting.popleft()
            if not waiter.done():
                waiter.set_result(False)
