"""The load, the same for each server: Postfix's smtp-source injects, its smtp-sink counts what arrives."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

_COUNTED = re.compile(rb"mesg=(\d+)")
_INTERVAL = 0.005  # seconds between looks at the counter


class Sink:
    """smtp-sink, with stamps (seconds of time.monotonic) of when its counter of messages reached what."""

    def __init__(self, port: int) -> None:
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        self.count = 0
        self._port = port
        self._first = 0.0
        self._first_count = 0
        self._last = 0.0
        self._process = subprocess.Popen(
            ["smtp-sink", *user, "-c", f"127.0.0.1:{port}", "1024"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while output := os.read(descriptor, 1 << 16):
            counted = _COUNTED.findall(output)
            if counted and int(counted[-1]) != self.count:
                self._last = time.monotonic()
                if not self._first:
                    self._first, self._first_count = self._last, int(counted[-1])
                self.count = int(counted[-1])
            time.sleep(_INTERVAL)

    def wait_until_up(self, timeout: float = 10.0) -> None:
        """Wait until it listens. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError as error:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise TimeoutError("smtp-sink does not listen") from error
                time.sleep(0.02)
            else:
                return

    def reset(self) -> int:
        """Forget the first stamp; give the counter as it stands."""
        self._first = 0.0
        return self.count

    def wait_for(self, count: int, timeout: float) -> float:
        """Wait until it has counted so many; give the stamp of then. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while self.count < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {self.count} of {count} messages arrived in {timeout:.0f} s")
            time.sleep(_INTERVAL)
        return self._last

    @property
    def first(self) -> tuple[float, int]:
        """The first stamp since `reset`, and what the counter had reached then."""
        return self._first, self._first_count

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        self._reading.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


def source(
    port: int,
    messages: int,
    *,
    size: int = 0,
    message: Path | None = None,
    sender: str = "bounce@news.example",
    sessions: int = 20,
) -> subprocess.Popen[bytes]:
    """Start smtp-source. It sends `size` octets, or the file `message`, and goes on after a refusal."""
    content = ("-l", str(size)) if message is None else ("-F", str(message))
    return subprocess.Popen(
        [
            *("smtp-source", "-A", "-d", "-s", str(sessions), "-m", str(messages), *content),
            *("-N", "-f", sender, "-t", "reader@inbox.example", f"127.0.0.1:{port}"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def inject(port: int, messages: int, *, size: int = 0, message: Path | None = None, sender: str = "") -> float:
    """Inject all; give the seconds it took. Raises RuntimeError when it does not come to its end."""
    began = time.monotonic()
    process = source(port, messages, size=size, message=message, sender=sender or "bounce@news.example")
    try:
        if process.wait() != 0:
            raise RuntimeError(f"smtp-source ended with {process.returncode}")
    finally:
        end(process)
    return time.monotonic() - began


def end(process: subprocess.Popen[bytes]) -> None:
    """Make sure that a process does not run."""
    if process.poll() is None:
        process.terminate()
    process.wait()


def missing_programs() -> list[str]:
    """Name the programs of the load that are not installed."""
    return [name for name in ("smtp-source", "smtp-sink") if shutil.which(name) is None]
