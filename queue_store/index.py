"""The index: one SQLite file in WAL mode with everything but the bodies, written by the committer's thread alone.

A commit is durable when it returns (synchronous=FULL). What is cached of the index in memory (ids of campaigns and
lanes, the next id) is put back when a transaction is rolled back. SQLite gives up the interpreter's lock at each step,
and taking it back from a busy event loop costs more than a row does: so a batch is written in one step (batch.sql), and
the other statements take a whole batch at once and give back one row where they can (docs/adr/0002, docs/adr/0011).
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import apsw
import msgspec

from queue_store.checksums import RESERVED, is_damage, load_checksums
from queue_store.errors import StoreCorrupt, StoreDamaged, StoreError, StoreFailed, StoreFull
from queue_store.failpoints import ARMED, reach
from queue_store.halt_journal import HaltJournal
from queue_store.index_names import Campaigns, Lanes
from queue_store.records import Message, Outcome

__all__ = [
    "APPLICATION",
    "VERSION",
    "BatchRows",
    "Deltas",
    "Index",
    "as_json",
    "as_message",
    "connect",
    "ids",
    "mapped",
    "may_be_durable",
    "statements",
]

APPLICATION = 0x6D746171  # "mtaq"
VERSION = 2  # 1 had no checksums on its pages; it is read and written as it is
_PAGE_CACHE = 16 << 20  # bytes

_WRITE = (
    "INSERT INTO temp.batch (messages, recipients, segments, deferred, deferrals, ended, endings, counts, next_id)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

_FATAL = (
    apsw.IOError,
    apsw.CantOpenError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.ReadOnlyError,
    apsw.ProtocolError,
    apsw.BusyError,
)


def mapped(error: apsw.Error | OSError, path: str, free: int) -> StoreError:
    """Give the store's own error for one of SQLite or the operating system."""
    if isinstance(error, apsw.FullError):
        return StoreFull(path, free)
    if is_damage(error):
        return StoreDamaged(path, f"it is damaged: {error}")
    if isinstance(error, (OSError, *_FATAL)):
        return StoreFailed(f"{path}: {error}")
    return StoreError(f"{path}: {error}")


def may_be_durable(error: BaseException) -> bool:
    """Whether what failed to be committed may be there all the same when the index is opened anew: a log that could not
    be synced was written.
    """
    if isinstance(error, (apsw.Error, OSError)):
        error = mapped(error, "", 0)
    return isinstance(error, (StoreFailed, StoreCorrupt))


def connect(path: Path, *, read_only: bool = False) -> apsw.Connection:
    """Open the index file as all connections to it are opened."""
    load_checksums()
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    db = apsw.Connection(str(path), flags=flags)
    # Only an orderly end takes the log away, so that one that is missing after a crash is noticed (opening.py).
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    db.set_busy_timeout(10_000)
    db.execute(f"PRAGMA cache_size = {-_PAGE_CACHE // 1024}")
    db.execute("PRAGMA temp_store = MEMORY")
    return db


def ids(values: Iterable[int]) -> Any:
    """Bind integers as one array, for `SELECT value FROM carray(?)`. There must be one at least."""
    return apsw.carray(array("q", values))


def as_json(rows: Sequence[Any]) -> str:
    """Bind rows as one text, for `json_each(?)`. Raises UnicodeEncodeError on what is no Unicode text."""
    return msgspec.json.encode(rows).decode()


def _text(rows: Sequence[Any]) -> str | None:
    return as_json(rows) if rows else None


def statements(name: str) -> str:
    """Give a file of SQL of this package."""
    return resources.files("queue_store").joinpath(name).read_text("utf-8")


def as_message(campaign: str, columns: Sequence[Any]) -> Message:
    """Make a message of its columns: id, reverse_path, received_at, segment, offset, size, eight_bit, smtputf8, ret,
    envid.
    """
    number, reverse_path, received_at, segment, offset, size, eight_bit, smtputf8, ret, envid = columns
    return Message(
        id=number,
        campaign=campaign,
        reverse_path=reverse_path,
        received_at=received_at,
        segment=segment,
        offset=offset,
        size=size,
        eight_bit=bool(eight_bit),
        smtputf8=bool(smtputf8),
        ret=ret,
        envid=envid,
    )


_COUNTS = (
    "accepted",
    "delivered",
    "delivered_after_stop",
    "bounced",
    "expired",
    "dropped",
    "unknown",
    "deferred",
    "scheduled",
    "refused",
    "discarded",
    "began",
)
_COUNT_AT = {name: number for number, name in enumerate(_COUNTS, 1)}
_OUTCOME_AT = {outcome: _COUNT_AT[outcome.name.lower()] for outcome in Outcome}


class Deltas:
    """What a batch changes in the counts, by campaign."""

    def __init__(self) -> None:
        self._rows: dict[int, list[int]] = {}

    def add(self, campaign: int, column: str, number: int = 1) -> None:
        """Add to a count; `began` is a flag and stays 1."""
        self._row(campaign)[_COUNT_AT[column]] += number

    def add_outcome(self, campaign: int, outcome: int, *, after_stop: bool, number: int = 1) -> None:
        """Add to the count of an outcome."""
        row = self._row(campaign)
        row[_OUTCOME_AT[Outcome(outcome)]] += number
        if after_stop and outcome == Outcome.DELIVERED:
            row[_COUNT_AT["delivered_after_stop"]] += number

    def mark_began(self, campaign: int) -> None:
        """Note that a transaction of the campaign began."""
        self._row(campaign)[_COUNT_AT["began"]] = 1

    def take(self) -> list[list[int]]:
        """Give what gathered, a row a campaign that changes, and forget it."""
        rows = [row for row in self._rows.values() if any(row[1:])]
        self._rows.clear()
        return rows

    def clear(self) -> None:
        """Forget what gathered."""
        self._rows.clear()

    def _row(self, campaign: int) -> list[int]:
        row = self._rows.get(campaign)
        if row is None:
            row = self._rows[campaign] = [campaign] + [0] * len(_COUNTS)
        return row


@dataclass(slots=True)
class BatchRows:
    """The rows of a batch, as batch.sql takes them apart.

    `segments`: by id, its length in octets, and of what the batch put there: octets, messages, least and greatest id.
    """

    messages: list[tuple[Any, ...]] = field(default_factory=list)
    recipients: list[tuple[Any, ...]] = field(default_factory=list)
    segments: dict[int, tuple[int, int, int, int, int]] = field(default_factory=dict)
    deferred: list[tuple[Any, ...]] = field(default_factory=list)
    ended: list[tuple[Any, ...]] = field(default_factory=list)

    def fill(self, segment: int, length: int, octets: int, message_ids: Sequence[int]) -> None:
        """Vouch for a segment up to `length`, and count messages with `octets` that were put there, by growing id."""
        _, more, messages, first, _ = self.segments.get(segment, (0, 0, 0, message_ids[0], 0))
        self.segments[segment] = (length, more + octets, messages + len(message_ids), first, message_ids[-1])

    def __bool__(self) -> bool:
        return bool(self.messages or self.segments or self.deferred or self.ended)


class Index:
    """The writer's side of the index. `now` gives µs since the epoch. For one thread at a time."""

    def __init__(self, path: Path, *, now: Callable[[], int], journal: HaltJournal | None = None) -> None:
        """Open the file, create or check its schema. Raises apsw.Error, StoreCorrupt."""
        self.path = path
        self.now = now
        self.journal = journal  # told of campaigns, holds and halts once they are durable
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # addresses are for no one else to read
        if ARMED:
            reach("index-file-made")
        self.db = connect(path)
        try:
            self._prepare()
            self.campaigns = Campaigns(self)
            self.next_id = self._load_next_id()
        except BaseException:
            self.db.close()
            raise
        self.deltas = Deltas()
        self.lanes = Lanes(self)
        self._stored_next_id = self._written_next_id = self.next_id
        self._undo: list[Callable[[], object]] = []
        self._after: list[Callable[[], object]] = []
        # Where a chunked walk that the caller goes on with stands: see index_drops.
        self.scans: dict[tuple[Any, ...], tuple[int, int, int]] = {}

    def _load_next_id(self) -> int:
        number: int | None = self.value("SELECT value FROM meta WHERE key = 'next_id'")
        if number is None:
            raise StoreDamaged(str(self.path), "it is damaged: the next identifier is missing")
        return number

    def _prepare(self) -> None:
        db = self.db
        if (found := db.pragma("application_id")) not in (0, APPLICATION):
            raise StoreCorrupt(str(self.path), f"it is another program's file (application id {found})")
        version = db.pragma("user_version")
        if version > VERSION:
            raise StoreCorrupt(str(self.path), f"its schema {version} is newer than this program's, {VERSION}")
        if version == 0:
            db.reserve_bytes(reserve=RESERVED)
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        elif version == VERSION and db.reserve_bytes() != RESERVED:
            raise StoreDamaged(str(self.path), "it is damaged: its header says that its pages have no checksums")
        if (mode := db.pragma("journal_mode", "wal")) != "wal":
            raise StoreCorrupt(str(self.path), f"its journal mode is {mode}: the file system can't do WAL")
        if ARMED:
            reach("index-log-begun")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 67108864")
        # upkeep.py does it. By the pragma: apsw's method leaves a hook of its own, which takes the interpreter's lock.
        db.execute("PRAGMA wal_autocheckpoint = 0")
        if version == 0:
            with self._plain_transaction():
                db.execute(statements("schema.sql"))
                db.execute(f"PRAGMA application_id = {APPLICATION}")
                db.execute(f"PRAGMA user_version = {VERSION}")
                if ARMED:
                    reach("index-schema-written")
            if ARMED:
                reach("index-schema-made")
        db.execute(statements("batch.sql"))

    def restart_log(self) -> None:
        """Have the next commit begin the log anew, with other salts. Raises apsw.Error.

        Where the end of a commit is that a power cut has torn, its octets lie behind what is committed next in the same
        log; another cut then would leave what looks like two commits that are lost, which is the mark of damage.
        """
        self.db.execute("PRAGMA wal_checkpoint(RESTART)")

    @contextmanager
    def _plain_transaction(self) -> Iterator[None]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    # -- transactions ---------------------------------------------------------------------------------------------

    def begin(self, *, one_write: bool = False) -> None:
        """Begin a transaction. Where one `write` is all that is done in it, SQLite needs no more than that."""
        if not one_write:
            self.db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make the transaction durable. When it raises, roll back."""
        self.write(BatchRows())
        if self.db.in_transaction:
            self.db.execute("COMMIT")
        self._stored_next_id = self.next_id
        self._undo.clear()
        after, self._after = self._after, []
        for action in after:
            action()

    def rollback(self) -> None:
        """Undo the transaction, also in what is cached of it. Ids that it took are not given again."""
        self.deltas.clear()
        self._written_next_id = self._stored_next_id
        self._after.clear()
        for action in reversed(self._undo):
            action()
        self._undo.clear()
        if self.db.in_transaction:  # SQLite may have rolled back by itself
            self.db.execute("ROLLBACK")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done inside, or roll it back."""
        self.begin()
        try:
            yield
            self.commit()
        except BaseException:
            self.rollback()
            raise

    def on_rollback(self, action: Callable[[], object]) -> None:
        """Have something in memory put back if this transaction fails."""
        self._undo.append(action)

    def after_commit(self, action: Callable[[], object]) -> None:
        """Have something done once this transaction is durable."""
        self._after.append(action)

    # -- statements -----------------------------------------------------------------------------------------------

    def write(self, rows: BatchRows) -> None:
        """Write rows, and with them what gathered in the counts and in the identifiers taken: one step of SQLite.

        In a transaction of one write this is durable when it returns; `commit` is still to be called.
        Raises apsw.ConstraintError when a recipient to be deferred or ended is not claimed; then nothing must be
        committed.
        """
        counts = self.deltas.take()
        next_id = self.next_id if self.next_id != self._written_next_id else None
        if not (rows or counts or next_id):
            return
        self._written_next_id = self.next_id
        self.db.execute(
            _WRITE,
            (
                _text(rows.messages),
                _text(rows.recipients),
                _text([(segment, *share) for segment, share in rows.segments.items()]),
                _text(rows.deferred),
                len(rows.deferred),
                _text(rows.ended),
                len(rows.ended),
                _text(counts),
                next_id,
            ),
        )

    def value(self, sql: str, bindings: Sequence[Any] = ()) -> Any:
        """Give the first column of the first row, or None."""
        row = self.db.execute(sql, bindings).fetchone()
        return None if row is None else row[0]

    def row(self, sql: str, bindings: Sequence[Any] = ()) -> tuple[Any, ...]:
        """Give the first row of a statement that has one."""
        row: tuple[Any, ...] | None = self.db.execute(sql, bindings).fetchone()
        assert row is not None, sql
        return row

    def rows(self, sql: str, bindings: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Give all rows."""
        rows: list[tuple[Any, ...]] = self.db.execute(sql, bindings).fetchall()
        return rows

    def change(self, sql: str, bindings: Sequence[Any] = ()) -> int:
        """Run a statement that changes rows; give how many."""
        self.db.execute(sql, bindings)
        return self.db.changes()

    def take_ids(self, number: int) -> int:
        """Give the first of so many identifiers that were never used."""
        first = self.next_id
        self.next_id = first + number
        return first

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()
