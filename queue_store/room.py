"""What room the store's file system has, and the reserve that is spent when a halt would not fit otherwise."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from queue_store.failpoints import ARMED, reach

__all__ = ["RESERVE_BESIDE", "Room"]

RESERVE_BESIDE = 1 << 20  # bytes that must be free beside the reserve before it is put back
_EXHAUSTED = 1 << 20  # bytes: with fewer free, a failure may come of it

_PLENTY = 4 << 30  # bytes, far more than can be written
_LOOKED_AT = 0.25  # seconds ago

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Room:
    """Free bytes of the file system that holds `folder`, beside a reserve of `reserve` bytes kept in a file of it."""

    def __init__(self, folder: Path, reserve: int) -> None:
        self._folder = folder
        self._path = folder / "reserve"
        self._reserve = reserve
        self._seen = 0
        self._looked = 0.0
        self._kept = self._path.stat().st_size if self._path.exists() else 0

    @property
    def spent(self) -> bool:
        """Whether some of the reserve is not on disk now."""
        return self._kept < self._reserve

    def free(self) -> int:
        """Give the bytes that are free for mail: less what of the reserve is not on disk."""
        return max(0, self._available() - max(0, self._reserve - self._kept))

    def size(self) -> int:
        """Give the bytes of the whole file system."""
        figures = os.statvfs(self._folder)
        return figures.f_blocks * figures.f_frsize

    def exhausted(self) -> bool:
        """Whether the file system has next to nothing left."""
        return self._available() < _EXHAUSTED

    def spend(self) -> bool:
        """Give the reserve back to the file system; give whether there was any."""
        had = self._kept > 0
        self._path.unlink(missing_ok=True)
        if ARMED:
            reach("reserve-spent")
        self._kept = 0
        return had

    def restore(self, *, beside: int = 0) -> bool:
        """Put the reserve on disk if it fits with `beside` bytes left over; give whether it is there now."""
        if not self.spent:
            if self._kept > self._reserve:
                os.truncate(self._path, self._reserve)
                self._kept = self._reserve
            return True
        if self._available() < self._reserve - self._kept + beside:
            return False
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if ARMED:
            reach("reserve-file-made")
        try:
            os.posix_fallocate(fd, 0, self._reserve)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._path.unlink()
            self._kept = 0
            return False
        finally:
            os.close(fd)
        if ARMED:
            reach("reserve-restored")
        self._kept = self._reserve
        return True

    def _available(self) -> int:
        # A system call for each mail would be too many for a figure that changes slowly while there is plenty.
        now = time.monotonic()
        if self._seen < _PLENTY or now - self._looked > _LOOKED_AT:
            figures = os.statvfs(self._folder)
            self._seen = figures.f_bavail * figures.f_frsize
            self._looked = now
        return self._seen
