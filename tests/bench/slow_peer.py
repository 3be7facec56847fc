"""A mail server that takes its time for each reply, over thousands of connections, at little cost.

Each reply goes out so many seconds after the one before it, or after its command where that came later: pipelined
commands save round trips, not the server's time. The greeting takes from nothing up to twice as long, by chance, so
that connections that were opened together don't go in step. It runs as recording_peer does, and keeps no record.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections import deque

import uvloop

from tests.bench.recording_peer import Books, Commands, raise_descriptors, serve

_HELLO = b"250-peer.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 104857600\r\n"
_OK = b"250 2.0.0 Ok\r\n"
_BYE = b"221 2.0.0 Bye\r\n"
_ANSWERS = {b"EHLO": _HELLO, b"DATA": b"354 go on\r\n", b"QUIT": _BYE}


class SlowSession(asyncio.Protocol):
    """One connection: one timer, and the replies that wait for it."""

    def __init__(self, books: Books, delay: float) -> None:
        self.books = books
        self.delay = delay
        self.commands = Commands()
        self.waiting: deque[tuple[bytes, bool]] = deque()  # and whether it answers a message
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.books.open += 1
        self.waiting.append((b"220 peer.example ESMTP\r\n", False))
        self.timer = self.loop.call_later(random.uniform(0, 2 * self.delay), self.reply)

    def connection_lost(self, exc) -> None:
        self.books.open -= 1
        if self.timer is not None:
            self.timer.cancel()

    def say(self, octets: bytes, *, taken: bool = False) -> None:
        self.waiting.append((octets, taken))
        if self.timer is None:
            self.timer = self.loop.call_later(self.delay, self.reply)

    def reply(self) -> None:
        octets, taken = self.waiting.popleft()
        self.timer = self.loop.call_later(self.delay, self.reply) if self.waiting else None
        self.transport.write(octets)
        if taken:
            self.books.take()
        if octets is _BYE:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        for line in self.commands.feed(data):
            if line is None:
                self.say(_OK, taken=True)
            else:
                self.say(_ANSWERS.get(line[:4].upper(), _OK))


def main() -> None:
    """Serve with the delay of the command line, in seconds."""
    parser = argparse.ArgumentParser(description="take all mail, slowly")
    parser.add_argument("--delay", type=float, required=True)
    delay = parser.parse_args().delay
    raise_descriptors()
    books = Books(None)
    uvloop.run(serve(lambda: SlowSession(books, delay), books))


if __name__ == "__main__":
    main()
