"""Checkpoints of a busy store, by a thread and a connection of its own.

With a long queue a checkpoint is thousands of pages: 30 to 190 ms, once a second or two, which a halt's commit would
wait for. Here most of the log is copied into the file beside the commits, which may go on (SQLite's PASSIVE mode). What
they append meanwhile keeps the log from beginning anew, so the committer follows with a checkpoint of its own, of the
few pages that are left. SQLite syncs the file only in a checkpoint that reaches the end of the log, which is then the
committer's; so it is synced here before, and the committer's has few pages to wait for (31 ms without, 10 with).
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import apsw

from queue_store.failpoints import ARMED, reach
from queue_store.index import connect

__all__ = ["Checkpointer"]


class Checkpointer:
    """One checkpoint at a time. For one thread, the committer's, beside its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # One descriptor for all of the run: closing one gives up the process's locks of the file (POSIX).
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._thread: threading.Thread | None = None
        self._done = False

    @property
    def running(self) -> bool:
        """Whether one is under way."""
        return self._thread is not None and not self._done

    @property
    def finished(self) -> bool:
        """Whether one has ended that was not followed up."""
        return self._done

    def begin(self) -> None:
        """Begin one if none is under way."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="queue-store-checkpointer")
            self._thread.start()

    def end(self) -> None:
        """Wait for the one under way, and forget it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._done = False

    def close(self) -> None:
        """Wait for the one under way, and let go of the file, after the connections did."""
        self.end()
        os.close(self._fd)

    def _run(self) -> None:
        # What goes wrong here goes wrong again in the committer's checkpoint, where it is dealt with.
        with contextlib.suppress(apsw.Error, OSError):
            db = connect(self._path)
            try:
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA wal_autocheckpoint = 0")
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                if ARMED:
                    reach("log-copied")
            finally:
                db.close()
            os.fdatasync(self._fd)
            if ARMED:
                reach("log-copied-synced")
        self._done = True
