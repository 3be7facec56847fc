"""A mail server that takes everything at once and keeps a record of it, for leaks that are judged at full load.

tests/world/peer_world, which can misbehave in any way, would be the slowest part of the load; smtp-sink is faster, but
does not tell when a transaction began. This one can do nothing but say yes, and writes the same record (the events
`mail`, `rcpt`, `end`, `rset` and `lost`), so that the daemon is judged by the same rules. It shares no code with it.

It runs in its own process, prints its port as a line of JSON, and ends at SIGTERM or with its standard input. Each line
of that is a command, answered by a line of JSON: `count` says how many messages were taken and when the first was;
`flush` says it when the record has all that came before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

__all__ = ["Count", "Peer", "recording_peer", "serve"]

_SENDER = re.compile(rb"<[^+>]*\+([A-Za-z0-9_.-]+)\+(\d+)@")
_PATH = re.compile(rb"<([^>]*)>")
_HELLO = b"250-peer.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 104857600\r\n"
_OK = b"250 2.0.0 Ok\r\n"


class Books:
    """What all connections share: the record, and the count."""

    def __init__(self, record: int | None) -> None:
        self.record = record
        self.lines: list[str] = []
        self.connections = 0
        self.open = 0
        self.transactions = 0
        self.taken = 0
        self.first = 0  # ns of CLOCK_MONOTONIC

    def note(self, line: str) -> None:
        """Record an event, in the file at the end of the loop's tick."""
        if not self.lines:
            asyncio.get_running_loop().call_soon(self.flush)
        self.lines.append(line)

    def flush(self) -> None:
        """Put all events into the file."""
        lines, self.lines = self.lines, []
        octets = "".join(lines).encode()
        while octets and self.record is not None:
            octets = octets[os.write(self.record, octets) :]

    def take(self) -> None:
        """Count a message."""
        self.taken += 1
        if not self.first:
            self.first = time.monotonic_ns()

    def told(self) -> dict[str, int]:
        """Give the counts."""
        return {"taken": self.taken, "first": self.first, "open": self.open, "t": time.monotonic_ns()}


class Commands:
    """Splits what a client sends into commands, and None for the end of each message."""

    def __init__(self) -> None:
        self._buffer = b""
        self._in_data = False

    def feed(self, octets: bytes) -> Iterator[bytes | None]:
        """Take octets; give what they complete."""
        buffer = self._buffer + octets if self._buffer else octets
        while buffer:
            if self._in_data:
                end = 0 if buffer.startswith(b".\r\n") else buffer.find(b"\r\n.\r\n") + 2
                if end == 1:
                    break
                buffer = buffer[end + 3 :]
                self._in_data = False
                yield None
                continue
            line, found, rest = buffer.partition(b"\r\n")
            if not found:
                break
            buffer = rest
            self._in_data = line[:4].upper() == b"DATA"
            yield line
        self._buffer = buffer


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.commands = Commands()
        self.transaction = 0  # its number, while one is open

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.books.connections += 1
        self.books.open += 1
        self.number = self.books.connections
        transport.write(b"220 peer.example ESMTP\r\n")

    def connection_lost(self, exc) -> None:
        self.books.open -= 1
        if self.transaction:
            self.note("lost")

    def note(self, kind: str, more: str = "") -> None:
        self.books.note(f'{{"t":{time.monotonic_ns()},"k":"{kind}","c":{self.number},"n":{self.transaction}{more}}}\n')

    def data_received(self, data: bytes) -> None:
        replies: list[bytes] = []
        for line in self.commands.feed(data):
            if line is not None:
                replies.append(self.answer(line))
                continue
            # Handed over at once: the stamp must not come before the octets.
            self.transport.write(b"".join((*replies, _OK)))
            replies.clear()
            self.books.take()
            self.note("end", ',"code":250')
            self.transaction = 0
        if replies:
            self.transport.write(b"".join(replies))
            if replies[-1].startswith(b"221"):
                self.transport.close()

    def answer(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        books = self.books
        if verb == b"MAIL":
            found = _SENDER.search(line)
            campaign, key = (found[1].decode(), int(found[2])) if found else ("", -1)
            books.transactions += 1
            self.transaction = books.transactions
            self.note("mail", f',"campaign":"{campaign}","key":{key},"code":250')
        elif verb == b"RCPT":
            found = _PATH.search(line)
            address = found[1].decode("utf-8", "replace") if found else ""
            self.note("rcpt", f',"to":{json.dumps(address)},"code":250')
        elif verb == b"DATA":
            return b"354 go on\r\n"
        elif verb == b"EHLO":
            return _HELLO
        elif verb == b"RSET":
            if self.transaction:
                self.note("rset")
            self.transaction = 0
        elif verb == b"QUIT":
            return b"221 2.0.0 Bye\r\n"
        return _OK


async def serve(session: Callable[[], asyncio.Protocol], books: Books) -> None:
    """Serve, and obey standard input, until that ends or SIGTERM comes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(session, "127.0.0.1", 0, backlog=4096)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin.buffer)

    async def obey() -> None:
        while await commands.readline():
            books.flush()
            print(json.dumps(books.told()), flush=True)
        ended.set()

    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    async with asyncio.TaskGroup() as group:
        obeying = group.create_task(obey())
        await ended.wait()
        obeying.cancel()
    server.close()
    books.flush()


def raise_descriptors() -> None:
    """Allow this process as many descriptors as it may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Serve, with or without a record."""
    parser = argparse.ArgumentParser(description="take all mail and keep a record")
    parser.add_argument("--record", type=Path)
    path = parser.parse_args().record
    record = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    raise_descriptors()
    books = Books(record)
    try:
        uvloop.run(serve(lambda: Session(books), books))
    finally:
        if record is not None:
            os.close(record)


# -- the side of who starts it -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Count:
    """What a peer has taken; stamps are ns of CLOCK_MONOTONIC, `first` is 0 before the first message."""

    taken: int
    first: int
    open: int
    at: int


class Peer:
    """A peer of this kind, in its own process."""

    def __init__(self, module: str, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C at the terminal is for the one who ends it in order
        )
        try:
            self.port: int = self._answer()["port"]
        except BaseException:
            self.end()
            raise

    def count(self) -> Count:
        """Ask for the counts; the record has all of it. Raises RuntimeError when it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"count\n")
        self._process.stdin.flush()
        told = self._answer()
        return Count(told["taken"], told["first"], told["open"], told["t"])

    def _answer(self) -> dict[str, int]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the peer has ended")
        answer: dict[str, int] = json.loads(line)
        return answer

    def end(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.terminate()
        self._process.wait()


@contextmanager
def recording_peer(record: Path | None = None) -> Iterator[Peer]:
    """Run one for a block."""
    options = () if record is None else ("--record", str(record))
    peer = Peer("tests.bench.recording_peer", *options)
    try:
        yield peer
    finally:
        peer.end()


if __name__ == "__main__":
    main()
