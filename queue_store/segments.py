"""Message bodies, in append-only segment files.

The format is in body_records.py. The index holds the truth about what is a message; these files hold nothing
that the index does not point at, save for what a crash left behind its last commit, which `recover` cuts off.

Only the committer's thread appends, syncs, cuts and seals; any thread reads. What was appended is durable when `sync`
has returned.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from queue_store.body_records import HEADER_SIZE, checksum_of, pack_header, segment_files, segment_path, unpack_header
from queue_store.errors import StoreCorrupt, StoreError, StoreFailed, StoreFull
from queue_store.failpoints import ARMED, reach
from queue_store.read_ahead import ReadAhead
from queue_store.segment_readers import SegmentReaders

__all__ = ["Segments", "sync_folder"]

_IOV_MAX = os.sysconf("SC_IOV_MAX")
_NOWAIT_LIMIT = 256 << 10  # octets; checking and copying more would hold up the event loop for over 0.1 ms
# Out of descriptors or memory is no fault of the disk: like a full one, it passes.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)

_Piece = bytes | bytearray | memoryview


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Segments:
    """The segment files of one folder. `recover` comes first; `segment_size` is where one is full, in octets."""

    active: int

    def __init__(self, folder: Path, *, segment_size: int) -> None:
        self._folder = folder
        self._segment_size = segment_size
        self._lengths: dict[int, int] = {}
        self._readers = SegmentReaders(folder)
        self._ahead = ReadAhead()  # of the event loop's thread
        self._nowait = hasattr(os, "RWF_NOWAIT")
        self._write_durably = hasattr(os, "RWF_DSYNC")
        self._fd = -1  # of the active segment; made at the first append
        self._end = 0
        self._synced = 0  # at the last `sync`
        self._durable = 0
        self._folder_dirty = False
        self.active = 0
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            if ARMED:
                reach("segments-folder-made")
            sync_folder(folder.parent)
            if ARMED:
                reach("segments-folder-synced")

    def recover(self, known: Mapping[int, int], *, keep: Path | None = None) -> list[str]:
        """Make the files fit the index, which vouches for `known` (segment: length), and start a new active segment.
        With `keep`, what no commit vouches for is not taken away, but put there or left.

        Gives a sentence for each thing mended, and for each segment that lacks what the index points at (which stays
        as it is: reads of what is missing raise StoreCorrupt). Raises OSError.
        """
        files = segment_files(self._folder)
        self.active = max((0, *files, *known)) + 1
        repairs = []
        for segment in sorted(known.keys() - files.keys()):
            if known[segment]:
                repairs.append(f"segment {segment} is missing, with {known[segment]} octets of bodies")
            self._lengths[segment] = 0
        for segment, path in files.items():
            vouched = known.get(segment)
            repair = self._drop(path, keep) if vouched is None else self._fit(segment, path, vouched, keep)
            if repair:
                repairs.append(f"segment {segment}{repair}")
        if repairs:
            sync_folder(self._folder)
        return repairs

    @staticmethod
    def _drop(path: Path, keep: Path | None) -> str:
        """See to a segment that belongs to no message; give what was done, if it held anything."""
        length = path.stat().st_size
        if keep is not None:
            path.rename(keep / path.name)
            return f" ({length} octets) belongs to no message that is known: put in {keep}"
        path.unlink()
        if ARMED:
            reach("recover-unlinked")
        return f" ({length} octets) belongs to no message: removed" if length else ""

    def _fit(self, segment: int, path: Path, vouched: int, keep: Path | None) -> str:
        """Make a segment as long as the index vouches for; give what was done, or what can't be."""
        length = path.stat().st_size
        self._lengths[segment] = min(length, vouched)
        if length < vouched:
            return f" is too short: {length} of {vouched} octets are there"
        if length == vouched:
            return ""
        if keep is not None:
            return f" has {length - vouched} octets at its end that no commit vouches for"
        self._cut(path, vouched)
        return f": cut {length - vouched} octets that no commit vouches for"

    def append(self, message_id: int, body: Sequence[_Piece]) -> tuple[int, int, int]:
        """Write a record behind the last one; give its segment, its offset and the size of the body in octets.

        As `append_all`.
        """
        ((offset, size),) = self.append_all([(message_id, body)])
        return self.active, offset, size

    def append_all(self, messages: Sequence[tuple[int, Sequence[_Piece]]]) -> list[tuple[int, int]]:
        """Write records, each of a message id and a body, behind the last one, to the active segment and in one go;
        give the offset of each and the size of its body in octets.

        They are durable when `sync` has returned, which has little left to do where the file system can write and make
        durable in one call. Either all of it is there or nothing. Raises StoreFull, StoreFailed.
        """
        places: list[tuple[int, int]] = []
        pieces: list[_Piece] = []
        begin = offset = self._end
        for message_id, body in messages:
            size = sum(map(len, body))
            pieces.append(pack_header(self.active, offset, message_id, size, checksum_of(body)))
            pieces += body
            places.append((offset, size))
            offset += HEADER_SIZE + size
        try:
            if self._fd < 0:
                self._make_active()
            durable = self._write(pieces, offset - begin)
        except OSError as error:
            if self._fd >= 0:
                self._truncate(begin)
            self._fail(error)
        if durable and begin == self._durable:
            self._durable = offset
        self._end = self._lengths[self.active] = offset
        return places

    def sync(self) -> None:
        """Make durable what was appended since the last call. Raises StoreFull, StoreFailed: then roll back."""
        try:
            if self._end != self._durable:
                os.fdatasync(self._fd)
            self._synced = self._durable = self._end
            if ARMED:
                reach("segment-synced")
            if self._folder_dirty:
                sync_folder(self._folder)
                self._folder_dirty = False
        except OSError as error:
            self._fail(error)

    def rollback(self, length: int | None = None) -> None:
        """Cut off what was appended to the active segment since the last sync, or all behind `length` where a commit
        failed after the sync. Raises StoreFailed.
        """
        end = self._synced if length is None else length
        if self._fd < 0 or end >= self._end:
            return
        self._truncate(end)
        self._end = self._lengths[self.active] = end
        self._synced = self._durable = min(self._synced, end)

    def length(self, segment: int) -> int:
        """Give a segment's length in octets, what is not yet synced included; 0 when there is no file of it."""
        return self._lengths.get(segment, 0)

    def seal_if_full(self) -> int | None:
        """Start a new segment when the active one is full and synced; give the id of the full one, else None."""
        if self._end < self._segment_size or self._end != self._synced:
            return None
        sealed = self.active
        os.close(self._fd)
        self._fd = -1
        self._end = self._synced = self._durable = 0
        self.active = sealed + 1
        return sealed

    def read(self, segment: int, offset: int, size: int, message_id: int) -> bytes:
        """Read a body, waiting for the disk. Raises StoreCorrupt when it is not what was appended; OSError when the
        file can't be opened for a reason that says nothing of its content (EMFILE).
        """
        try:
            reader = self._readers.take(segment)
            try:
                header = os.pread(reader.fd, HEADER_SIZE, offset)
                body = _read_fully(reader.fd, offset + HEADER_SIZE, size)
            finally:
                self._readers.give_back(reader)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EIO):
                raise StoreCorrupt(str(segment_path(self._folder, segment)), str(error)) from error
            raise
        self._check(header, body, (segment, offset, size, message_id))
        return body

    def read_raw(self, segment: int, offset: int, size: int) -> bytes:
        """Read what is in the place of a record, header and body, checked or not. Raises OSError."""
        reader = self._readers.take(segment)
        try:
            return _read_fully(reader.fd, offset, HEADER_SIZE + size)
        finally:
            self._readers.give_back(reader)

    def read_nowait(self, segment: int, offset: int, size: int, message_id: int) -> bytes | None:
        """Read a body that is in memory; None when the disk would have to be waited for, when the file system can't
        tell, or when it is large enough to hold up the event loop. Raises StoreCorrupt.
        """
        if not self._nowait or size > _NOWAIT_LIMIT:
            return None
        reader = self._readers.take_open(segment)
        if reader is None:
            return None
        try:
            return self._read_ahead(reader.fd, (segment, offset, size, message_id))
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                self._nowait = False
            return None  # `read` meets the same error and tells it
        finally:
            self._readers.give_back(reader)

    def _read_ahead(self, fd: int, meant: tuple[int, int, int, int]) -> bytes | None:
        try:
            return self._take_ahead(fd, meant)
        except StoreCorrupt:
            self._ahead.forget()
            return self._take_ahead(fd, meant)

    def _take_ahead(self, fd: int, meant: tuple[int, int, int, int]) -> bytes | None:
        segment, offset, size, _ = meant
        record = self._ahead.read(fd, segment, offset, HEADER_SIZE + size)
        if record is None:
            return None
        body = bytes(record[HEADER_SIZE:])
        self._check(record[:HEADER_SIZE], body, meant)
        return body

    def unlink(self, segment: int) -> None:
        """Remove a sealed segment that nothing points at. Reads under way may finish; a later one is StoreCorrupt.

        Not made durable: should it be there again after a power cut, `recover` removes it. Raises OSError.
        """
        if segment == self.active:
            raise StoreError(f"segment {segment} is being written")
        self._lengths.pop(segment, None)
        segment_path(self._folder, segment).unlink(missing_ok=True)
        if ARMED:
            reach("segment-unlinked")
        self._readers.discard(segment)

    def close(self) -> None:
        """Let go of all files. What was not synced is not made durable."""
        self._readers.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _make_active(self) -> None:
        if self.active == 0:
            raise StoreError("recover comes before the first append")
        path = segment_path(self._folder, self.active)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        if ARMED:
            reach("segment-file-made")
        self._folder_dirty = True
        with suppress(OSError):  # so that read_nowait, which opens nothing itself, finds it open
            self._readers.give_back(self._readers.take(self.active))

    def _write(self, pieces: Sequence[_Piece], total: int) -> bool:
        """Write behind the end; give whether it is durable already."""
        offset = self._end
        if len(pieces) <= _IOV_MAX:
            if self._write_durably:
                try:
                    if os.pwritev(self._fd, pieces, offset, os.RWF_DSYNC) == total:
                        return True
                except OSError as error:
                    if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                        raise
                    self._write_durably = False
            elif os.pwritev(self._fd, pieces, offset) == total:
                return False
        # A short write says nothing yet; the rest of it meets the error, if there is one.
        _write_fully(self._fd, pieces, offset)
        return False

    def _truncate(self, length: int) -> None:
        try:
            os.ftruncate(self._fd, length)
        except OSError as error:
            raise StoreFailed(f"{segment_path(self._folder, self.active)} can't be cut: {error}") from error

    @staticmethod
    def _cut(path: Path, length: int) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, length)
            if ARMED:
                reach("recover-cut")
            os.fsync(fd)
            if ARMED:
                reach("recover-cut-synced")
        finally:
            os.close(fd)

    def _fail(self, error: OSError) -> NoReturn:
        if error.errno in _NO_ROOM:
            room = os.statvfs(self._folder)
            raise StoreFull(str(self._folder), room.f_bavail * room.f_frsize) from error
        raise StoreFailed(f"{segment_path(self._folder, self.active)}: {error}") from error

    def _check(self, header: bytes | bytearray | memoryview, body: bytes, meant: tuple[int, int, int, int]) -> None:
        segment, offset, size, message_id = meant
        if len(header) < HEADER_SIZE or len(body) < size:
            what = "is cut off"
        elif (found := unpack_header(header, segment, offset)) is None:
            what = "has no sound header"
        elif found[:2] != (size, message_id):
            what = f"is of message {found[1]} with {found[0]} octets, not of {message_id} with {size}"
        elif found[2] != checksum_of((body,)):
            what = "does not fit its checksum"
        else:
            return
        raise StoreCorrupt(str(segment_path(self._folder, segment)), f"the record at {offset} {what}")


def _write_fully(fd: int, pieces: Sequence[_Piece], offset: int) -> None:
    """Write pieces one behind the other, in as many calls as it takes."""
    views = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
    first = 0
    while first < len(views):
        written = os.pwritev(fd, views[first : first + _IOV_MAX], offset)
        if ARMED:
            reach("segment-piece-written")
        offset += written
        while first < len(views) and written >= len(views[first]):
            written -= len(views[first])
            first += 1
        if written:
            views[first] = views[first][written:]


def _read_fully(fd: int, offset: int, size: int) -> bytes:
    """Read `size` octets, fewer only at the end of the file. One call does for all but records of over 2 GiB."""
    data = os.pread(fd, size, offset)
    while len(data) < size and (more := os.pread(fd, size - len(data), offset + len(data))):
        data += more
    return data
