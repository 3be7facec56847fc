"""What the committer does when no one waits: checkpoints, dead segments, freed pages, the reserve.

Each step is short; a store that is never idle still gets one now and then. A segment is unlinked after the commit that
forgets it, never before. A mostly dead segment is copied forward: its living messages are appended again and point
there from the same commit on, which leaves it dead. A reader that still has the old place finds no file, and asks the
index for the new one (QueueStore.load_body).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import apsw

from queue_store.checkpointer import Checkpointer
from queue_store.errors import StoreCorrupt, StoreError
from queue_store.failpoints import ARMED, reach
from queue_store.index import BatchRows, Index, as_json, may_be_durable
from queue_store.room import RESERVE_BESIDE, Room
from queue_store.segments import Segments

__all__ = ["Upkeep"]

_INTERVAL = 1.0  # seconds between steps when the store is never idle
_PUT_OFF = 5.0  # seconds, when the disk is full
_LOOK = 10.0  # seconds between looks when nothing is known to need doing
_LOG_IDLE = 256  # pages of the write-ahead log that are worth a checkpoint when idle
_LOG_BUSY = 4096  # pages at which even a busy store checkpoints: 16 MiB
_FREE_PAGES = 1024  # kept for what comes next: 4 MiB
_FREE_SHARE = 8  # one in so many pages free is many
_PAGES_IN_STEP = 2048
_COPY_LEAST = 1 << 20  # bytes: a smaller segment is left to die by itself
_COPY_LIVING = 4  # one in so many bytes living is mostly dead
_COPY_LIVING_AFTER_DROP = 1.6  # a halt's space is to come back, though what it left in between is more than it took
_AFTER_DROP = 600.0  # seconds
_BEHIND_DROP = 0.1  # seconds without a further chunk of a drop
_COPY_MESSAGES = 500  # in a step: some 15 ms
_COPY_BYTES = 4 << 20  # in a step
_COPY_LOOK = 20_000  # messages looked at in a step


class Upkeep:
    """The housekeeping of one store. For the committer's thread."""

    def __init__(self, index: Index, segments: Segments, room: Room) -> None:
        self._index = index
        self._segments = segments
        self._room = room
        self._checkpointer = Checkpointer(index.path)
        self._log_pages = 0
        self._last = time.monotonic()
        self._next_look = 0.0
        self._busy = False  # the last step left something to do
        self._unreadable: set[int] = set()  # segments that can't be copied to the end
        self._copied: tuple[int, int] = (0, 0)  # the segment being copied, and the message up to which it is
        self._dropped_until = 0.0
        self.compact_at = math.inf  # time.monotonic: when what drops left is to be copied together
        index.db.set_wal_hook(self._on_log)

    def end(self) -> None:
        """Wait for the checkpoint under way."""
        self._checkpointer.end()

    def close(self) -> None:
        """End what is under way, and let go of the file."""
        self._checkpointer.close()

    def note_sealed(self) -> None:
        """Hear that a segment was sealed: it may be dead already."""
        self._next_look = 0.0

    def note_dropped(self) -> None:
        """Hear that much was dropped at once."""
        now = time.monotonic()
        self._dropped_until = now + _AFTER_DROP
        self.compact_at = now + _BEHIND_DROP

    def compact(self) -> None:
        """Give back some of what a drop has left. Raises apsw.Error, StoreError, OSError."""
        self.compact_at = 0.0 if self._reclaim() or self._copy_forward() else math.inf

    def wanted(self) -> bool:
        """Whether a step would do something now."""
        return self._busy or self._log_pages >= _LOG_IDLE or time.monotonic() >= self._next_look

    def overdue(self) -> bool:
        """Whether a step is due although the store is busy."""
        if self._checkpointer.finished or (self._log_pages >= _LOG_BUSY and not self._checkpointer.running):
            return True
        return time.monotonic() - self._last >= _INTERVAL

    def put_off(self) -> None:
        """Let it be for a while: the disk is full."""
        self._last = time.monotonic()
        self._next_look = self._last + _PUT_OFF
        self.compact_at = math.inf
        self._busy = False

    def relieve(self) -> bool:
        """Free what can be freed at once on a full disk; give whether anything was, so that a new try is worth it."""
        pages = self._log_pages
        try:
            self._checkpoint()
            return self._reclaim() or pages > 0
        except (apsw.Error, StoreError, OSError):
            return False  # what is more than a full disk is met again, and told, by the operations themselves

    def step(self, *, idle: bool) -> None:
        """Do one thing that is worth doing. `idle`: no one waits. Raises apsw.Error, StoreError, OSError."""
        now = time.monotonic()
        self._last = now
        if self._checkpointer.finished or (idle and not self._checkpointer.running and self._log_pages >= _LOG_IDLE):
            self._checkpoint()
            return
        if self._log_pages >= _LOG_BUSY and not self._checkpointer.running:
            self._checkpointer.begin()
            return
        self._busy = self._reclaim() or self._copy_forward() or self._vacuum() or self._restore()
        if not self._busy:
            self._next_look = now + _LOOK

    def _on_log(self, _: apsw.Connection, __: str, pages: int) -> int:
        self._log_pages = pages
        # A drop or many settlements may have left dead segments or free pages: look soon.
        self._next_look = min(self._next_look, time.monotonic() + 1.0)
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Copy the log into the file; the next commit then begins it anew, unless someone reads from it."""
        self._checkpointer.end()
        self._index.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if ARMED:
            reach("log-checkpointed")
        self._log_pages = 0

    def _reclaim(self) -> bool:
        """Forget and unlink the sealed segments without living messages."""
        rows = self._index.rows("SELECT id FROM segments WHERE live_messages = 0 AND id < ?", (self._segments.active,))
        if not rows:
            return False
        with self._index.transaction():
            for (segment,) in rows:
                self._index.db.execute("DELETE FROM segments WHERE id = ?", (segment,))
        if ARMED:
            reach("segments-forgotten")
        for (segment,) in rows:
            self._segments.unlink(segment)
        return True

    def _copy_forward(self) -> bool:
        """Append some living messages of a mostly dead segment anew."""
        index, segments = self._index, self._segments
        living = _COPY_LIVING_AFTER_DROP if time.monotonic() < self._dropped_until else _COPY_LIVING
        row = index.db.execute(
            "SELECT id, first_message, last_message FROM segments WHERE id < ? AND length >= ? AND live_messages > 0"
            " AND live_bytes * ? < length AND id NOT IN (SELECT value FROM json_each(?))"
            " ORDER BY live_bytes LIMIT 1",
            (segments.active, _COPY_LEAST, living, as_json(list(self._unreadable))),
        ).fetchone()
        if row is None:
            return False
        segment, first, last = row
        low = self._copied[1] if self._copied[0] == segment else first - 1
        high = index.value(
            "SELECT id FROM messages WHERE id > ? AND id <= ? ORDER BY id LIMIT 1 OFFSET ?", (low, last, _COPY_LOOK - 1)
        )
        rows = index.rows(
            "SELECT id, offset, size FROM messages WHERE id > ? AND id <= ? AND segment = ? ORDER BY id LIMIT ?",
            (low, last if high is None else high, segment, _COPY_MESSAGES),
        )
        copied = self._copy(segment, rows)
        if copied < len(rows) or len(rows) == _COPY_MESSAGES:
            self._copied = (segment, rows[copied - 1][0])
        elif high is not None:
            self._copied = (segment, high)
        else:  # through; what it still holds can't be read
            self._copied = (0, 0)
            if index.value("SELECT live_messages FROM segments WHERE id = ?", (segment,)):
                self._unreadable.add(segment)
        return True

    def _copy(self, segment: int, rows: Sequence[tuple[Any, ...]]) -> int:
        """Copy messages until a step is full; give how many were looked at."""
        index, segments = self._index, self._segments
        active, length = segments.active, segments.length(segments.active)
        bodies: list[tuple[int, tuple[bytes]]] = []
        octets = looked = 0
        try:
            with index.transaction():
                for message_id, offset, size in rows:
                    if octets and octets + size > _COPY_BYTES:
                        break
                    looked += 1
                    try:
                        bodies.append((message_id, (segments.read(segment, offset, size, message_id),)))
                    except StoreCorrupt:  # it stays where it is, and whoever is to send it learns of it
                        continue
                    octets += size
                if bodies:
                    self._move(segment, bodies)
        except BaseException as error:
            if not may_be_durable(error):  # else the index may point there when it is opened anew
                segments.rollback(length)
            raise
        if ARMED:
            reach("copy-committed")
        if segments.active == active:
            segments.seal_if_full()
        return looked

    def _move(self, segment: int, bodies: Sequence[tuple[int, tuple[bytes]]]) -> None:
        """Write the bodies behind the last one, durably, and then have the index point there."""
        places = self._segments.append_all(bodies)
        self._segments.sync()
        if ARMED:
            reach("copy-appended")
        self._point(segment, [(body[0], *place) for body, place in zip(bodies, places, strict=True)])
        if ARMED:
            reach("copy-pointed")

    def _point(self, segment: int, moved: Sequence[tuple[int, int, int]]) -> None:
        """Have the index say where in the active segment messages are: by id, the offset and the size in octets."""
        index = self._index
        active = self._segments.active
        octets = sum(size for _, _, size in moved)
        rows = BatchRows()
        rows.fill(active, self._segments.length(active), octets, [message_id for message_id, *_ in moved])
        index.write(rows)
        index.db.execute(
            "UPDATE segments SET live_messages = live_messages - ?, live_bytes = live_bytes - ? WHERE id = ?",
            (len(moved), octets, segment),
        )
        index.db.execute(
            "UPDATE messages SET segment = ?, offset = d.value ->> 1 FROM json_each(?) AS d"
            " WHERE messages.id = (d.value ->> 0)",
            (active, as_json(moved)),
        )

    def _vacuum(self) -> bool:
        """Give free pages at the end of the file back, when they are many."""
        free = self._index.db.pragma("freelist_count")
        if free < _FREE_PAGES or free * _FREE_SHARE < self._index.db.pragma("page_count"):
            return False
        self._index.db.execute(f"PRAGMA incremental_vacuum({_PAGES_IN_STEP})").fetchall()
        if ARMED:
            reach("pages-vacuumed")
        return True

    def _restore(self) -> bool:
        """Put the reserve back when there is room for it."""
        if self._room.spent:
            self._room.restore(beside=RESERVE_BESIDE)
        return False
