"""Follows the daemon's events beside the screen, in a thread of its own, and comes back when the daemon does."""

from __future__ import annotations

import contextlib
import threading
from collections import deque

import msgspec

from mtactl.cli.client import Client
from mtactl.cli.event_stream import EventStream
from mtactl.cli.failures import Failure
from mtactl.control.types import Event

__all__ = ["EventFollower"]

_PAUSE = 0.5  # seconds between two tries to reach the daemon
_WAITING = 1000  # events that nobody took yet
_FROM_THE_BEGINNING = "0"


class EventFollower:
    """Gathers events until they are taken. The latest ones that the daemon remembers come first.

    Outcomes come by the thousand and are left out unless they are asked for.
    """

    def __init__(self, socket: str) -> None:
        self._client = Client(socket)
        self._waiting: deque[Event] = deque(maxlen=_WAITING)
        self._outcomes = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, whatever it waits for."""
        self._ended.set()
        self._client.hang_up()
        if self._thread.ident is not None:
            self._thread.join(timeout=1.0)

    @property
    def outcomes(self) -> bool:
        """Whether outcomes are asked for, too."""
        return self._outcomes

    @outcomes.setter
    def outcomes(self, wanted: bool) -> None:
        if wanted != self._outcomes:
            self._outcomes = wanted
            self._client.hang_up()  # to ask anew, from where it was

    def take(self) -> list[Event]:
        """Give the events since the last call, or the latest thousand of them."""
        taken = []
        while self._waiting:
            taken.append(self._waiting.popleft())
        return taken

    def _run(self) -> None:
        last_id = _FROM_THE_BEGINNING
        while not self._ended.is_set():
            stream = EventStream(last_id)
            outcomes = self._outcomes
            with contextlib.suppress(Failure):  # the screen says so: it asks for figures at the same time
                self._read(stream, outcomes=outcomes)
            if stream.begun:
                last_id = stream.last_id
            if outcomes == self._outcomes:
                self._ended.wait(_PAUSE)

    def _read(self, stream: EventStream, *, outcomes: bool) -> None:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": stream.last_id}
        fresh = stream.last_id == _FROM_THE_BEGINNING
        with self._client.stream("/v1/events", headers=headers, outcomes=outcomes) as pieces:
            for piece in pieces:
                for received in stream.feed(piece):
                    try:
                        event = msgspec.json.decode(received.data, type=Event)
                    except msgspec.DecodeError:
                        continue
                    if not (fresh and event.kind == "gap"):  # what was before us is not missed
                        self._waiting.append(event)
                    fresh = False
                if self._ended.is_set() or outcomes != self._outcomes:
                    return
