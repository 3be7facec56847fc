"""The lock that keeps a store to one process, which the kernel lets go when the process ends.

It is on the folder itself (flock), which nobody can delete under us, and on a file in it that names the holder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from queue_store.errors import StoreLocked
from queue_store.failpoints import ARMED, reach

__all__ = ["StoreLock", "holder", "take_lock"]


class StoreLock:
    """A lock that is held."""

    def __init__(self, *descriptors: int) -> None:
        self._descriptors = list(descriptors)

    def close(self) -> None:
        """Let go of it."""
        while self._descriptors:
            os.close(self._descriptors.pop())


def take_lock(path: Path, store: Path) -> StoreLock:
    """Lock a store by its folder and the file `path`, and write our process id there. Raises StoreLocked, OSError."""
    folder = os.open(store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    lock = StoreLock(folder)
    try:
        _lock(folder, path, store)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        lock = StoreLock(folder, fd)
        _lock(fd, path, store)
    except BaseException:
        lock.close()
        raise
    # On a full disk the id can't be written, and the store is to open all the same.
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        if ARMED:
            reach("lock-emptied")
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return lock


def holder(path: Path) -> int | None:
    """Give the process id that a lock file names, if it is one."""
    try:
        text = path.read_bytes()[:32].strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _lock(fd: int, path: Path, store: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreLocked(str(store), holder(path)) from None
