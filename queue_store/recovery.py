"""Opening a store, and mending what the end of the last run left.

After an orderly close nothing is claimed. Else the claimed recipients are looked up in the attempt log by id and
number of attempts made before: an outcome there is settled; a transaction that was open is, if its campaign is halted,
UNKNOWN when the end of the message was being written and DROPPED when it was not; everything else is READY again, and
uncertain where the end of a message was being written. When the log is of another boot (a power cut), each claimed
recipient may have begun: those of halted campaigns are UNKNOWN, the others uncertain, save where the halt was a cancel,
before which nothing had begun.
All this is one transaction, and the log is cleared behind it, so that a recovery that dies is done over.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import apsw
from msgspec.structs import replace

from queue_store.attempts import AttemptLog, OpenAttempt
from queue_store.body_records import segment_files
from queue_store.errors import StoreCorrupt, StoreFull
from queue_store.failpoints import ARMED, reach
from queue_store.index import BatchRows, Index, mapped
from queue_store.index_halts import load_campaigns
from queue_store.index_mail import settle
from queue_store.lock import take_lock
from queue_store.records import Outcome, Recovery, Settlement
from queue_store.room import RESERVE_BESIDE, Room
from queue_store.segments import Segments, sync_folder

__all__ = ["Opened", "mark_clean", "open_store"]

_READY_LANES = """
WITH RECURSIVE found (id) AS (
    SELECT (SELECT lane_id FROM recipients INDEXED BY ready WHERE state = 0 ORDER BY lane_id LIMIT 1)
    UNION ALL
    SELECT (SELECT lane_id FROM recipients INDEXED BY ready WHERE state = 0 AND lane_id > found.id
            ORDER BY lane_id LIMIT 1)
    FROM found WHERE found.id IS NOT NULL
)
SELECT lanes.name FROM found CROSS JOIN lanes ON lanes.id = found.id
"""
_NEXT_DUE = "SELECT due FROM recipients INDEXED BY due WHERE state IN (1, 2) ORDER BY due LIMIT 1"
_CLAIMED = """
SELECT r.campaign_id, r.id, r.message_id, r.attempts, r.uncertain
FROM recipients AS r INDEXED BY claimed WHERE r.state = 3
"""


@dataclass(slots=True)
class Opened:
    """The parts of an open store. `lock` is the descriptor that holds the lock."""

    index: Index
    segments: Segments
    attempts: AttemptLog
    room: Room
    lock: int
    recovery: Recovery

    def abandon(self) -> None:
        """Let go of everything as it is."""
        self.attempts.close()
        self.segments.close()
        self.index.close()
        os.close(self.lock)


@dataclass(slots=True)
class _Findings:
    """What became of the claimed recipients."""

    settlements: list[Settlement] = field(default_factory=list)
    returned: int = 0
    unknown: int = 0
    settled: int = 0
    began: set[int] = field(default_factory=set)
    uncertain: list[tuple[int, int]] = field(default_factory=list)  # campaign id, recipient id


def open_store(path: Path, *, reserve: int, segment_size: int, now: Callable[[], int]) -> Opened:
    """Open or create the store in a folder, mended. Blocks. Raises StoreLocked, StoreCorrupt, StoreFull, OSError.

    On a full disk the reserve is spent: a halt must be possible after a restart too.
    """
    _make_folder(path)
    lock = take_lock(path / "lock", path)
    if ARMED:
        reach("lock-taken")
    try:
        room = Room(path, reserve)
        try:
            return _open_parts(path, lock, room, segment_size, now)
        except (apsw.Error, OSError, StoreFull) as error:
            # SQLite tells a full disk by more than one error while it opens.
            full = isinstance(error, (apsw.FullError, StoreFull)) or room.exhausted()
            if not full or not room.spend():
                raise
            return _open_parts(path, lock, room, segment_size, now)
    except apsw.Error as error:
        os.close(lock)
        raise mapped(error, str(path / "queue.db"), 0) from error
    except BaseException:
        os.close(lock)
        raise


def _make_folder(path: Path) -> None:
    """Make the store's folder, and those above it, where they are missing, and their names durable.

    Also where it is there already: whoever made it may have been killed before that.
    """
    above = [folder.parent for folder in (path.absolute(), *path.absolute().parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if ARMED:
        reach("folder-made")
    for folder in above:
        sync_folder(folder)
    if not above:
        with contextlib.suppress(PermissionError):  # made for us, in a folder that is not ours to read
            sync_folder(path.absolute().parent)


def _open_parts(path: Path, lock: int, room: Room, segment_size: int, now: Callable[[], int]) -> Opened:
    _sync_log(path / "queue.db-wal")
    with ExitStack() as parts:
        index = Index(path / "queue.db", now=now)
        parts.callback(index.close)
        _check_not_lost(index, path)
        segments = Segments(path / "segments", segment_size=segment_size)
        parts.callback(segments.close)
        repairs = segments.recover(dict(index.rows("SELECT id, length FROM segments")))
        if ARMED:
            reach("recover-segments-done")
        attempts = AttemptLog(path / "attempts")
        parts.callback(attempts.close)
        recovery = replace(_recover(index, attempts), repairs=tuple(repairs))
        if ARMED:
            reach("recovery-committed")
        attempts.clear()
        room.restore(beside=RESERVE_BESIDE)
        parts.pop_all()
    return Opened(index, segments, attempts, room, lock, recovery)


def _sync_log(path: Path) -> None:
    """Make durable what a killed process wrote to the log and had not synced: it counts from now on, and a power cut in
    the next commit is to spoil that one alone.
    """
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)


def _check_not_lost(index: Index, path: Path) -> None:
    """Refuse a new index beside bodies: recovery would cut them all. One file may be a torn first commit.

    Raises StoreCorrupt.
    """
    folder = path / "segments"
    if index.next_id != 1 or not folder.is_dir():
        return
    filled = [file for file in segment_files(folder).values() if file.stat().st_size]
    if len(filled) > 1:
        raise StoreCorrupt(str(index.path), f"it is new, but {len(filled)} segments of bodies are there: was it lost?")


def mark_clean(index: Index, room: Room) -> None:
    """End a run in order: what is claimed is READY again, the log is in the file, and the store says so.

    On a full disk the reserve is spent for it; when that is not enough for the file to grow, the log stays beside it.
    """

    def mark() -> None:
        with index.transaction():
            index.db.execute("UPDATE recipients INDEXED BY claimed SET state = 0 WHERE state = 3")
            if ARMED:
                reach("claims-returned")
            index.db.execute("UPDATE meta SET value = 1 WHERE key = 'clean'")

    def copy_log() -> None:
        index.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    try:
        mark()
    except apsw.FullError:
        if not room.spend():
            raise
        mark()
    if ARMED:
        reach("clean-marked")
    try:
        copy_log()
    except apsw.FullError:
        room.spend()
        with contextlib.suppress(apsw.FullError):  # what the log holds is read from it at the next start
            copy_log()


def _recover(index: Index, attempts: AttemptLog) -> Recovery:
    clean = bool(index.value("SELECT value FROM meta WHERE key = 'clean'"))
    open_attempts = {(attempt.recipient_id, attempt.attempt): attempt for attempt in attempts.recover()}
    with index.transaction():
        index.db.execute("UPDATE meta SET value = 0 WHERE key = 'clean'")
        found = _judge(index, open_attempts if attempts.trusted else None)
        rows = BatchRows()
        settle(index, found.settlements, rows)
        for campaign_id in found.began:
            index.deltas.mark_began(campaign_id)
        index.write(rows)
        index.db.executemany("UPDATE recipients SET uncertain = 1 WHERE campaign_id = ? AND id = ?", found.uncertain)
        index.db.execute("UPDATE recipients INDEXED BY claimed SET state = 0 WHERE state = 3")
        if ARMED:
            reach("recovery-written")
    return Recovery(
        campaigns=load_campaigns(index.db),
        ready_lanes=[name for (name,) in index.db.execute(_READY_LANES)],
        next_due=index.value(_NEXT_DUE),
        clean=clean,
        returned=found.returned,
        unknown=found.unknown,
        settled=found.settled,
    )


def _judge(index: Index, attempts: dict[tuple[int, int], OpenAttempt] | None) -> _Findings:
    """Say what became of each claimed recipient. `attempts` None: the log can't be trusted."""
    found = _Findings()
    # Of a campaign that was cancelled nothing had begun when its gate closed, and nothing could since.
    cancelled = {number for (number,) in index.rows("SELECT campaign_id FROM halts WHERE kind = 'cancel'")}
    for campaign_id, recipient_id, message_id, made, uncertain in index.rows(_CLAIMED):
        campaign = index.campaigns.of_id(campaign_id)
        attempt = None if attempts is None else attempts.get((recipient_id, made))
        if campaign_id in cancelled and attempt is None:
            found.returned += 1
            continue
        if attempts is None:
            found.began.add(campaign_id)
        if attempt is not None and attempt.settlement is not None:
            known = replace(attempt.settlement, campaign=campaign.name, message_id=message_id, slot=None)
            found.settlements.append(known)
            found.settled += 1
            continue
        if attempt is not None:
            found.began.add(campaign_id)
        may_be_delivered = attempts is None if attempt is None else attempt.ending
        if not campaign.halted or (attempt is None and attempts is not None):
            found.returned += 1
            if may_be_delivered:
                found.uncertain.append((campaign_id, recipient_id))
            continue
        unknown = may_be_delivered or bool(uncertain)
        found.unknown += unknown
        found.settlements.append(
            Settlement(
                recipient_id=recipient_id,
                message_id=message_id,
                campaign=campaign.name,
                outcome=Outcome.UNKNOWN if unknown else Outcome.DROPPED,
                at=index.now(),
                after_stop=True,
                began=attempt is not None,
                reply="the daemon ended during the transaction" if attempt is not None else "the machine ended",
            )
        )
    return found
