"""The lock that keeps a store to one process: flock on a file that names the holder, which the kernel lets go."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from queue_store.errors import StoreLocked
from queue_store.failpoints import ARMED, reach

__all__ = ["take_lock"]


def take_lock(path: Path, store: Path) -> int:
    """Lock the file and write our process id into it; give the descriptor. Raises StoreLocked, OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).strip()
        os.close(fd)
        raise StoreLocked(str(store), int(text) if text.isdigit() else None) from None
    except BaseException:
        os.close(fd)
        raise
    # On a full disk the id can't be written, and the store is to open all the same.
    try:
        os.ftruncate(fd, 0)
        if ARMED:
            reach("lock-emptied")
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except OSError:
        pass
    return fd
