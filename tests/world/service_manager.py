"""A service manager's part, spoken for real: the socket that a service notifies, and sockets that it is handed."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.world.daemon import Daemon

# Takes the place of systemd between fork and exec: the sockets are 3 and up, and LISTEN_PID is the daemon's own.
_EXEC = """
import fcntl, os, sys
given, program = [int(fd) for fd in sys.argv[1].split(",")], sys.argv[2:]
high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in given]
for fd in given:
    os.close(fd)
for number, fd in enumerate(high, 3):
    os.dup2(fd, number)
    os.close(fd)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(program[0], program)
"""


class NotifySocket:
    """Where a service sends its state; keeps all that came, as dicts, in order, with the time of each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.messages: list[tuple[float, dict[str, str]]] = []

    def receive(self, timeout: float) -> dict[str, str] | None:
        """Wait for one message; None when there is none in time."""
        if not select.select([self._socket], [], [], timeout)[0]:
            return None
        text = self._socket.recv(65536).decode()
        message = dict(line.partition("=")[::2] for line in text.splitlines())
        self.messages.append((time.monotonic(), message))
        return message

    def drain(self) -> None:
        """Take what is there."""
        while self.receive(0.0) is not None:
            pass

    def expect(self, wanted: Callable[[dict[str, str]], object], *, seconds: float = 40.0) -> dict[str, str]:
        """Wait for a message that fits; those before it are kept in `messages`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            message = self.receive(left)
            if message is not None and wanted(message):
                return message
        raise AssertionError(f"it never came; there were {[message for _, message in self.messages]}")

    def close(self) -> None:
        """End."""
        self._socket.close()


@contextmanager
def notify_socket(path: Path) -> Iterator[NotifySocket]:
    """Listen for a block."""
    listener = NotifySocket(path)
    try:
        yield listener
    finally:
        listener.close()


def launch_with(node: Daemon, sockets: Sequence[tuple[str, socket.socket]], **environ: str) -> None:
    """Start a daemon with open sockets, each by its name, as file descriptors 3 and up (sd_listen_fds(3))."""
    names = ":".join(name for name, _ in sockets)
    numbers = [each.fileno() for _, each in sockets]
    with node.log.open("ab") as log:
        node.process = subprocess.Popen(
            [
                *(sys.executable, "-c", _EXEC, ",".join(map(str, numbers))),
                *(sys.executable, "-m", "mtactl.app", "--config", str(node.config)),
            ],
            stderr=log,
            stdout=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": names, **environ},
            pass_fds=numbers,
            process_group=0,
        )
