"""The signs of life that the daemon gives its service manager, from the start of its parts to the end of the last.

The watchdog is fed from the event loop, so a loop that hangs starves it by itself; and only while the thread that
commits comes round as well: a daemon that takes connections and can't make anything durable is no daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mtactl.systemd import Notifier

__all__ = ["Heartbeat"]

_STATUS = 10.0  # seconds between two lines of status where no watchdog asks for more
_LEAST_PATIENCE = 2.0  # seconds; an idle committer comes round twice a second


class Heartbeat:
    """Feeds the watchdog and renews the status line.

    `interval` is in seconds, None for no watchdog. `silence` gives the seconds since the committer last came round,
    `status` the line. A committer that is silent for longer than `interval` gets no more food for the watchdog.
    """

    def __init__(
        self,
        notifier: Notifier,
        *,
        interval: float | None,
        silence: Callable[[], float],
        status: Callable[[], str],
    ) -> None:
        self._notifier = notifier
        self._watched = interval is not None
        self._interval = min(interval or _STATUS, _STATUS)
        self._patience = max(interval or _STATUS, _LEAST_PATIENCE)
        self._silence = silence
        self._status = status
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, in the running loop; nothing is done where no service manager listens."""
        if self._notifier.listening:
            self._beat()

    def stop(self) -> None:
        """End."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _beat(self) -> None:
        silent = self._silence()
        if silent > self._patience:
            self._notifier.status(f"the store has not answered for {silent:.0f} s; {self._status()}")
        else:
            if self._watched:
                self._notifier.watchdog()
            self._notifier.status(self._status())
        self._next = asyncio.get_running_loop().call_later(self._interval, self._beat)
