"""The connections of a lane that wait for work, the one that waits longest first.

There is one timer for all of them, and a wait that ends before its time touches no timer at all: between two mails of a
busy lane a connection waits for some milliseconds, a thousand times a second.

Who was woken but has not yet run counts as at work already: when mail comes in a burst, each message would otherwise
wake a connection for those before it once more.
"""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["IdleConnections"]


class IdleConnections:
    """Who waits, each until a time of its own. Called from the event loop's thread only."""

    __slots__ = ("_roused", "_timer", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[bool], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._roused = 0  # woken, but their tasks have not run since

    async def wait(self, seconds: float) -> bool:
        """Return True when there is work, False when none came in that time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((waiter, deadline))
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._expire)
        try:
            return await waiter
        finally:
            # also where the task was cancelled in the tick in which it was woken
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self._roused -= 1

    def wake(self, number: int) -> None:
        """See to it that so many are at work, or as many as there are."""
        waiting = self._waiting
        while self._roused < number and waiting:
            waiter, _ = waiting.popleft()
            if not waiter.done():
                waiter.set_result(True)
                self._roused += 1

    def wake_all(self) -> None:
        """Wake all that wait."""
        self.wake(self._roused + len(self._waiting))

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
