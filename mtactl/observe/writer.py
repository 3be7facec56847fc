"""The way out for log lines: a bounded buffer and a thread that empties it into a file descriptor.

The event loop never waits for stderr: `write` only appends. When whoever reads the log is too slow, lines are left out
and counted, and a line that says how many follows as soon as there is room again.

Lines that come by the thousand may be gathered: the thread then lets a moment's worth of them go in one write. Waking
it for each costs more than the lines themselves, as it takes the interpreter's lock from the loop in mid-work. A line
that comes after a moment of silence goes at once, so a quiet node's log is never behind.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

__all__ = ["LineWriter"]


class LineWriter:
    """Writes whole lines to a file descriptor, from a thread of its own. All methods may be called from any thread.

    `limit` bounds what waits, in bytes. `gap_line` gives the line (with its newline) that tells how many were left out.
    `gather` is how many seconds at least lie between writes of lines that may be gathered.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        limit: int = 8 << 20,
        gap_line: Callable[[int], bytes] | None = None,
        gather: float = 0.03,
    ) -> None:
        self.gap_line = gap_line
        self._descriptor = descriptor
        self._limit = limit
        self._gather = gather
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._idle = False  # the thread waits for a first line
        self._due = False  # something waits that is not to be gathered
        self._waiting: list[bytes] = []
        self._size = 0
        self._left_out = 0
        self._untold = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    @property
    def left_out(self) -> int:
        """How many lines were left out so far."""
        return self._left_out

    def write(self, lines: bytes, count: int = 1, *, gather: bool = False) -> None:
        """Hand over `count` whole lines. Never blocks, never raises. `gather`: they may wait a moment for others."""
        with self._lock:
            if self._closed or self._size + len(lines) > self._limit:
                self._left_out += count
                self._untold += count
            else:
                self._waiting.append(lines)
                self._size += len(lines)
                if not gather or 2 * self._size > self._limit:
                    self._due = True
            if self._due or self._idle:
                self._idle = False
                self._changed.notify()

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits, for `timeout` seconds at most; lines that come later are left out."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        written_at = float("-inf")
        while True:
            with self._changed:
                # A gap is told even if no line comes behind it.
                while not (self._waiting or self._untold or self._closed):
                    self._idle = True
                    self._changed.wait()
                self._idle = False
                if not (self._waiting or self._untold):
                    return
                moment = written_at + self._gather - time.monotonic()
                self._changed.wait_for(lambda: self._due or self._closed, max(0.0, moment))
                self._due = False
                batch, self._waiting = self._waiting, []
                untold, self._untold = self._untold, 0
            data = b"".join(batch)
            if untold and self.gap_line is not None:
                data += self.gap_line(untold)
            written = self._put(data)
            written_at = time.monotonic()
            with self._changed:
                # Only now, so that the limit also holds for what a blocked descriptor keeps us from writing.
                self._size -= sum(map(len, batch))
                if not written:
                    self._left_out += data.count(b"\n")

    def _put(self, data: bytes) -> bool:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                # Someone who shares the descriptor made it non-blocking.
                writable = select.poll()
                writable.register(self._descriptor, select.POLLOUT)
                writable.poll()
            except OSError:
                return False  # a closed pipe: there is nobody to tell
        return True
