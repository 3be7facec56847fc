"""A turnstile: lets so many through in each turn of the event loop, the others in the turns that follow, in order.

A turn lasts as long as all that it finds to do. With thousands of peers who answer at once, all of their transactions
would go on, end and begin again in every turn; measured with 500 destinations and 3,000 connections to a peer on the
same machine, a turn took 100 ms and more, and whatever else came in (a halt, a client's command) waited for several of
them. What begins in a turn decides what goes on and ends in those that follow, so a bound on the beginnings is a bound
on the turn. Where peers take their time, turns are short, and the bound is never felt.

It is shut while whatever it feeds is behind; then all wait, and cost nothing, until they are told of a change.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["Turnstile"]


class Turnstile:
    """Lets `limit` through in a turn of the running loop, none while `is_shut`. For the loop's thread."""

    __slots__ = ("_armed", "_is_shut", "_left", "_limit", "_waiting")

    def __init__(self, limit: int, *, is_shut: Callable[[], bool] = lambda: False) -> None:
        self._limit = limit
        self._is_shut = is_shut
        self._left = limit
        self._armed = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    def passes(self) -> bool:
        """Go through at once if there is room in this turn and nobody waits; else `wait` is to be awaited."""
        if self._waiting or not self._left or self._is_shut():
            return False
        self._left -= 1
        self._arm()
        return True

    def wait(self) -> asyncio.Future[None]:
        """Give a future that is done when its turn has come."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._arm()
        return turn

    def reopen(self) -> None:
        """Look again at whether it is shut. To be called when that may have changed."""
        if self._waiting:
            self._arm()

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._armed = False
        self._left = self._limit
        while self._waiting and self._left and not self._is_shut():
            turn = self._waiting.popleft()
            if not turn.done():  # else whoever waited was cancelled
                turn.set_result(None)
                self._left -= 1
        if self._left < self._limit:
            self._arm()
