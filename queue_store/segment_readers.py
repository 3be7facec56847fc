"""Segment files that are open for reading: a bounded set, shared by all threads."""

from __future__ import annotations

import os
import resource
import threading
from collections import OrderedDict
from pathlib import Path

from queue_store.body_records import segment_path

__all__ = ["OpenSegment", "SegmentReaders"]

_OPEN_READERS = 128
_OPEN_PART = 16  # the most that they may be of all descriptors that the process may have: a sixteenth


class OpenSegment:
    """An open segment file. It is closed when it has left the cache and the last read of it has ended."""

    __slots__ = ("fd", "gone", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0
        self.gone = False


class SegmentReaders:
    """A bounded set of open segment files, the least recently used one closed first. For any thread."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self._folder = folder
        if limit is None:
            limit = min(_OPEN_READERS, max(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _OPEN_PART))
        self._limit = limit
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, OpenSegment] = OrderedDict()

    def take_open(self, segment: int) -> OpenSegment | None:
        """Lend a segment, to be given back; None when it is not open."""
        with self._lock:
            reader = self._cache.get(segment)
            if reader is not None:
                self._cache.move_to_end(segment)
                reader.users += 1
            return reader

    def take(self, segment: int) -> OpenSegment:
        """Lend a segment, to be given back; open it if need be. Raises OSError."""
        reader = self.take_open(segment)
        if reader is not None:
            return reader
        # Not under the lock: opening may wait for the disk, and the event loop takes this lock.
        fresh = OpenSegment(os.open(segment_path(self._folder, segment), os.O_RDONLY | os.O_CLOEXEC))
        with self._lock:
            if os.fstat(fresh.fd).st_nlink == 0:  # unlinked since: kept here, it would hold its blocks on the disk
                fresh.gone = True
                fresh.users = 1
                return fresh
            reader = self._cache.setdefault(segment, fresh)
            reader.users += 1
            self._cache.move_to_end(segment)
            if reader is not fresh:
                os.close(fresh.fd)
            if len(self._cache) > self._limit:
                self._drop(self._cache.popitem(last=False)[1])
            return reader

    def give_back(self, reader: OpenSegment) -> None:
        """End a loan."""
        with self._lock:
            reader.users -= 1
            self._close_if_gone(reader)

    def discard(self, segment: int) -> None:
        """Let go of a segment; those who are reading it may finish."""
        with self._lock:
            reader = self._cache.pop(segment, None)
            if reader is not None:
                self._drop(reader)

    def close(self) -> None:
        """Let go of all, and keep no more."""
        with self._lock:
            self._limit = 0
            while self._cache:
                self._drop(self._cache.popitem()[1])

    def _drop(self, reader: OpenSegment) -> None:
        reader.gone = True
        self._close_if_gone(reader)

    @staticmethod
    def _close_if_gone(reader: OpenSegment) -> None:
        if reader.gone and reader.users == 0:
            os.close(reader.fd)
