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

from queue_store.access import unusable
from queue_store.attempts import AttemptLog, OpenAttempt
from queue_store.body_records import segment_files
from queue_store.checksums import is_damage
from queue_store.errors import StoreCorrupt, StoreDamaged, StoreFull
from queue_store.failpoints import ARMED, reach
from queue_store.halt_journal import HaltJournal, Promises
from queue_store.index import BatchRows, Index, mapped
from queue_store.index_halts import load_campaigns, promised, put_back_halts
from queue_store.index_mail import settle
from queue_store.lock import StoreLock, take_lock
from queue_store.mending import (
    ACCEPT,
    HALTS,
    INDEX,
    LOG,
    NOTED,
    check_log,
    finish,
    look,
    make_quarantine,
    mend,
    set_aside,
)
from queue_store.page_image import PAGE
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
_SKIPPED_IDS = 1_000_000  # that may have been given in commits that are lost
_NEXT_DUE = "SELECT due FROM recipients INDEXED BY due WHERE state IN (1, 2) ORDER BY due LIMIT 1"
_CLAIMED = """
SELECT r.campaign_id, r.id, r.message_id, r.attempts, r.uncertain
FROM recipients AS r INDEXED BY claimed WHERE r.state = 3
"""


@dataclass(slots=True)
class Opened:
    """The parts of an open store."""

    index: Index
    segments: Segments
    attempts: AttemptLog
    room: Room
    lock: StoreLock
    recovery: Recovery

    def abandon(self) -> None:
        """Let go of everything as it is."""
        self.attempts.close()
        self.segments.close()
        self.index.close()
        if self.index.journal is not None:
            self.index.journal.close()
        self.lock.close()


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
    """Open or create the store in a folder, mended. Blocks. Raises StoreLocked, StoreCorrupt, StoreFull,
    StoreUnusable, OSError.

    On a full disk the reserve is spent: a halt must be possible after a restart too.
    """
    try:
        return _open_store(path, reserve, segment_size, now)
    except OSError as error:
        plain = unusable(path, error)
        if plain is None:
            raise
        raise plain from error


def _open_store(path: Path, reserve: int, segment_size: int, now: Callable[[], int]) -> Opened:
    _make_folder(path)
    lock = take_lock(path / "lock", path)
    if ARMED:
        reach("lock-taken")
    try:
        room = Room(path, reserve)
        opening = _Opening(path, lock, room, segment_size, now)
        try:
            return opening.open()
        except (apsw.Error, OSError, StoreFull) as error:
            # SQLite tells a full disk by more than one error while it opens.
            full = isinstance(error, (apsw.FullError, StoreFull)) or room.exhausted()
            if not full:
                raise
            if not room.spend():
                raise error if isinstance(error, StoreFull) else StoreFull(str(path), room.free()) from error
            return opening.open()
    except apsw.Error as error:
        lock.close()
        raise mapped(error, str(path / INDEX), 0) from error
    except BaseException:
        lock.close()
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


class _Opening:
    """One opening of a store; `open` may be called again where it failed."""

    def __init__(self, path: Path, lock: StoreLock, room: Room, segment_size: int, now: Callable[[], int]) -> None:
        self._path = path
        self._lock = lock
        self._room = room
        self._segment_size = segment_size
        self._now = now
        self._told: list[str] = []  # of a damaged index that was mended

    def open(self) -> Opened:
        """Open it, and mend a damaged index if that is what is in the way. Raises as `open_store`, and apsw.Error."""
        finish(self._path)
        try:
            # Of a page that is cut off SQLite takes the rest for zeros, and nobody checks it.
            if (self._path / NOTED).exists() or _size(self._path / INDEX) % PAGE:
                look(self._path)
            return self._open_parts()
        except (apsw.Error, StoreDamaged) as error:
            if self._told or (not isinstance(error, StoreDamaged) and not is_damage(error)):
                raise
            damage = error if isinstance(error, StoreDamaged) else StoreDamaged(str(self._path / INDEX), str(error))
            self._told = mend(self._path, damage, now=self._now())
            return self._open_parts()

    def _open_parts(self) -> Opened:
        path = self._path
        _sync_log(path / LOG)
        index_size, log_size = (_size(path / name) for name in (INDEX, LOG))
        if log_size and not index_size:  # SQLite would take it for the log of another file, and remove it
            raise StoreDamaged(str(path / INDEX), "it is missing or empty, and its log is there")
        with ExitStack() as parts:
            journal = HaltJournal(path / HALTS)
            parts.callback(journal.close)
            index = Index(path / INDEX, now=self._now, journal=journal)
            parts.callback(index.close)
            if log_size:
                check_log(path)
                index.restart_log()
            if not index_size:
                _check_not_lost(index, journal.promises, path)
            if (path / NOTED).exists():
                _check_structure(index)
            told = [*self._told]
            lost_log = bool(index_size and not log_size and not self._told and not _is_clean(index))
            if lost_log:
                told.append(f"{LOG} is missing after a run that did not end in order: what was only there is lost")
                index.take_ids(_SKIPPED_IDS)
            if not journal.promises.whole and not journal.promises.missing:
                told.append(f"{HALTS}, the copy of the halts, is damaged ({journal.promises.damage}): written anew")
            with index.transaction():
                told += put_back_halts(index, journal.promises.halts)
            segments = Segments(path / "segments", segment_size=self._segment_size)
            parts.callback(segments.close)
            keep = make_quarantine(path) if lost_log else None
            told += segments.recover(dict(index.rows("SELECT id, length FROM segments")), keep=keep)
            if ARMED:
                reach("recover-segments-done")
            attempts = AttemptLog(path / "attempts")
            parts.callback(attempts.close)
            recovery = replace(_recover(index, attempts), repairs=tuple(told), set_aside=_set_aside(path))
            if ARMED:
                reach("recovery-committed")
            attempts.clear()
            journal.begin(promised(index.db))
            self._room.restore(beside=RESERVE_BESIDE)
            (path / NOTED).unlink(missing_ok=True)
            (path / ACCEPT).unlink(missing_ok=True)
            parts.pop_all()
        return Opened(index, segments, attempts, self._room, self._lock, recovery)


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


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_clean(index: Index) -> bool:
    return bool(index.value("SELECT value FROM meta WHERE key = 'clean'"))


def _set_aside(path: Path) -> tuple[str, ...]:
    return tuple(str(each) for each in set_aside(path))


def _check_structure(index: Index) -> None:
    """Look for damage in the structure of an index whose pages are sound. Raises StoreDamaged, apsw.Error."""
    found = index.value("PRAGMA integrity_check(1)")
    if found != "ok":
        raise StoreDamaged(str(index.path), f"it is damaged: {found}")


def _check_not_lost(index: Index, promises: Promises, path: Path) -> None:
    """Refuse a new index beside bodies: recovery would cut them all. One file may be a torn first commit.

    Raises StoreCorrupt.
    """
    folder = path / "segments"
    filled = [file for file in segment_files(folder).values() if file.stat().st_size] if folder.is_dir() else []
    if len(filled) > 1 or (filled and promises.names):
        raise StoreCorrupt(
            str(index.path),
            f"it is new, but {len(filled)} segments of bodies are there: was it lost? Restore it from a backup; or, to"
            f" go on without that mail, move {folder} away (the halts stay in force)",
        )


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
