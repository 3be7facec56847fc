"""Runs the coroutine of one connection, and goes on with it in the very callback that brings what it waits for.

An asyncio task would go on a turn of the loop later, by way of a future, a handle and a timer for each read; with four
reads a message that is a tenth of what the daemon does for it. What the coroutine awaits besides (a commit) is an
asyncio future as everywhere.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any

__all__ = ["Driver", "park"]


@types.coroutine
def park() -> Generator[None, None, None]:
    """Wait until the driver is told to go on. May only be awaited in a coroutine that a Driver runs."""
    yield _PARKED  # type: ignore[misc]  # None is a turn of the loop, so this is something else


_PARKED = object()


class Driver:
    """Runs one coroutine, on the running loop. `finished` is done when it is at its end."""

    __slots__ = ("_awaited", "_coroutine", "_loop", "_parked", "finished")

    def __init__(self, coroutine: Coroutine[Any, None, None], loop: asyncio.AbstractEventLoop) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._parked = False
        self._awaited: asyncio.Future[Any] | None = None
        self.finished: asyncio.Future[None] = loop.create_future()

    def start(self) -> None:
        """Run it up to where it first waits."""
        self._step()

    def go_on(self) -> None:
        """Go on with it if it is parked, now. What comes while it waits for something else is there when it looks."""
        if self._parked:
            self._step()

    def cancel(self) -> None:
        """Raise CancelledError where it waits, soon."""
        if self._awaited is not None:
            self._awaited.cancel()
        elif not self.finished.done():
            self._loop.call_soon(self._throw)

    def _throw(self) -> None:
        if self._parked:
            self._step(asyncio.CancelledError())

    def _wake(self, _done: asyncio.Future[Any]) -> None:
        self._awaited = None
        self._step()

    def _step(self, error: BaseException | None = None) -> None:
        self._parked = False
        try:
            awaited = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration:
            self.finished.set_result(None)
        except asyncio.CancelledError:
            self.finished.cancel()
        else:
            if awaited is _PARKED:
                self._parked = True
            elif awaited is None:  # asyncio.sleep(0)
                self._loop.call_soon(self._step)
            else:
                self._await(awaited)

    def _await(self, future: asyncio.Future[Any]) -> None:
        future._asyncio_future_blocking = False  # noqa: SLF001 - the protocol between futures and what drives them
        self._awaited = future
        future.add_done_callback(self._wake)
