"""The way out for log lines: a bounded buffer and a thread that empties it into a file descriptor.

The event loop never waits for stderr: `write` only appends. When whoever reads the log is too slow, lines are left out
and counted, and a line that says how many follows as soon as there is room again.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

__all__ = ["LineWriter"]


class LineWriter:
    """Writes whole lines to a file descriptor, from a thread of its own. All methods may be called from any thread.

    `limit` bounds what waits, in bytes. `gap_line` gives the line (with its newline) that tells how many were left out.
    """

    def __init__(
        self, descriptor: int, *, limit: int = 8 << 20, gap_line: Callable[[int], bytes] | None = None
    ) -> None:
        self.gap_line = gap_line
        self._descriptor = descriptor
        self._limit = limit
        self._changed = threading.Condition()
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

    def write(self, lines: bytes, count: int = 1) -> None:
        """Hand over `count` whole lines. Never blocks, never raises."""
        with self._changed:
            if self._closed or self._size + len(lines) > self._limit:
                self._left_out += count
                self._untold += count
                return
            self._waiting.append(lines)
            self._size += len(lines)
            self._changed.notify()

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits, for `timeout` seconds at most; lines that come later are left out."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                batch, self._waiting = self._waiting, []
                untold, self._untold = self._untold, 0
            data = b"".join(batch)
            if untold and self.gap_line is not None:
                data += self.gap_line(untold)
            written = self._put(data)
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
