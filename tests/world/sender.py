"""Hostile senders: a client of bare octets for a real daemon, and what the daemon costs while it is busy with them."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.bench.processes import memory_of
from tests.world.daemon import Daemon, check_law

EHLO = b"EHLO client.test\r\n"
BEGIN = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n"
SECONDS = 60.0  # for anything: the machine may be busy


class Sender:
    """A connection. What is sent goes out at once, in packets of its own as far as the kernel allows."""

    def __init__(self, port: int, *, window: int | None = None) -> None:
        self.socket = socket.socket()
        if window is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.settimeout(SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(("127.0.0.1", port))
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close in order."""
        self._file.close()
        self.socket.close()

    def reset(self) -> None:
        """Close with a reset: what is under way is lost."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def reply(self) -> tuple[int, str]:
        """Read a reply; give its code and its text. Raises AssertionError when the connection is closed."""
        lines = []
        while True:
            line = self._file.readline()
            assert line.endswith(b"\r\n"), f"{lines} and then {line!r}"
            lines.append(line[4:-2].decode())
            if line[3:4] == b" ":
                return int(line[:3]), "\n".join(lines)

    def codes(self, count: int) -> list[int]:
        return [self.reply()[0] for _ in range(count)]

    def ask(self, octets: bytes) -> tuple[int, str]:
        self.send(octets)
        return self.reply()

    def greet(self) -> Self:
        """Take the greeting and say EHLO."""
        assert self.reply()[0] == 220
        assert self.ask(EHLO)[0] == 250
        return self

    def end(self) -> bytes:
        """Read to the end of the connection, however it comes."""
        said = b""
        try:
            while line := self._file.readline():
                said += line
        except ConnectionError:
            pass
        return said


def pour(sender: Sender, octets: bytes, total: int) -> int:
    """Send the octets again and again, up to a total; give how much was sent when the server closed the connection."""
    sent = 0
    try:
        while sent < total:
            sender.send(octets)
            sent += len(octets)
    except ConnectionError:
        pass
    return sent


def open_files(node: Daemon) -> int:
    """Give how many file descriptors a daemon has open."""
    return len(os.listdir(f"/proc/{node.process.pid}/fd"))


def until(holds: Callable[[], bool], what: str = "it did not come to hold") -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@contextmanager
def bounded(node: Daemon, *, mebibytes: float, left: float | None = None) -> Iterator[None]:
    """Assert that the daemon's memory grows by so much at most while the block runs (by `left` when it is over), that
    no file descriptor stays open, that it is well and that its books balance.
    """
    pid = node.process.pid
    files = open_files(node)
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # VmHWM begins anew
    before = memory_of(pid)["VmRSS"]
    yield
    most = memory_of(pid)["VmHWM"] - before
    until(lambda: open_files(node) <= files, f"{open_files(node)} files are open, {files} were")
    after = memory_of(pid)["VmRSS"] - before
    print(f"memory: {before:.0f} MiB, at most {most:+.1f}, in the end {after:+.1f}")
    assert most <= mebibytes, f"{most:.1f} MiB more"
    assert after <= (mebibytes if left is None else left), f"{after:.1f} MiB more are left"
    status = node.status()
    check_law(status["totals"])
    until(lambda: node.status()["health"] == "ok", "it is not well again")
    log = node.log.read_text()
    assert "session_failed" not in log and "Traceback" not in log, node.tail()
