"""Make a new index of what is sound of a damaged one, with books that balance again.

The rows come from page_image.py; the halts also from their journal. What is lost is told, and counted: a recipient of
whom nothing is known any more is `unknown`; one whose envelope is lost is bounced, as its sender can't be named to the
peer; mail of a campaign whose name is lost is held under another name until a person decides. What an outcome is there
for does not wait any more. Nothing is begun that may have been halted: where neither copy of the halts is whole, this
refuses (HaltsLost), unless an operator has said that it shall go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import msgspec

from queue_store.body_records import segment_files
from queue_store.errors import HaltsLost, StoreCorrupt
from queue_store.halt_journal import Promises
from queue_store.index import APPLICATION, VERSION, connect, statements
from queue_store.page_image import PageImage
from queue_store.records import HaltRecord
from queue_store.salvage_books import balance

__all__ = ["Salvaged", "put_back", "salvage"]

_TABLES = ("meta", "lanes", "campaigns", "halts", "audit", "messages", "recipients", "outcomes", "segments")
_UNCERTAIN = 8  # the column of the table recipients
_SKIPPED_IDS = 1_000_000  # of identifiers that may have been given and are not known any more


@dataclass(slots=True)
class Salvaged:
    """What was lost and what was done, a sentence each. `bodies`: some mail lost its envelope, and has a body yet."""

    told: list[str] = field(default_factory=list)
    bodies: bool = False


def salvage(
    image: PageImage, new: Path, *, promises: Promises, segments: Path, now: int, accept_lost_halts: bool
) -> Salvaged:
    """Write a new index to `new` and make it durable. Raises HaltsLost, StoreCorrupt, apsw.Error, OSError."""
    if len(image.damaged) >= image.pages:
        raise StoreCorrupt(str(image.index), "none of its pages is one of a queue store's index")
    result = Salvaged()
    lost = _lost_tables(image)
    if image.damaged:
        result.told.append(
            f"{len(image.damaged)} of {image.pages} pages of the index are damaged, of "
            + ", ".join(sorted({name or "its structure" for name in image.damaged.values()}))
        )
    if image.lost_frames:
        result.told.append(f"{image.lost_frames} pages of the index's log are damaged")
    if lost & {"halts", "campaigns"} and not promises.whole:
        if not accept_lost_halts:
            raise HaltsLost(str(image.index), promises.damage)
        result.told.append("halts may be lost: an operator has said to go on without them")
    for leftover in (new, new.with_name(f"{new.name}-journal")):
        leftover.unlink(missing_ok=True)
    with closing(connect(new)) as db:
        _create(db)
        with db:
            for table in _TABLES:
                unread = _copy(image, db, table)
                if unread:
                    result.told.append(f"{unread} rows of {table} can't be read")
            _keep_promises(db, promises, result)
            _count_files(db, segments)
            result.bodies = balance(db, promises.names, now=now, lost=lost, told=result.told)
            _skip_ids(db, lost=bool(lost))
        db.execute(f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}")
    return result


def _lost_tables(image: PageImage) -> set[str]:
    """Give the tables that may lack rows; all, where whose a page was can't be told."""
    owners = set(image.damaged.values())
    if image.lost_frames or None in owners:
        return set(_TABLES)
    return {owner for owner in owners if owner}


def _create(db: apsw.Connection) -> None:
    db.reserve_bytes(reserve=8)
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(statements("schema.sql"))
    db.execute("DELETE FROM campaigns")


def _copy(image: PageImage, db: apsw.Connection, table: str) -> int:
    """Copy the rows that fit the table; give how many did not."""
    width = len(db.execute(f"SELECT name FROM pragma_table_info('{table}')").fetchall())
    sql = f"INSERT OR {'REPLACE' if table == 'meta' else 'IGNORE'} INTO {table} VALUES ({', '.join('?' * width)})"
    unread = 0
    for key, columns, is_old in image.rows(table):
        values = columns if key is None else [key, *columns[1:]]
        if is_old and table == "recipients" and len(values) == width:
            values[_UNCERTAIN] = 1  # what became of it since is not known
        try:
            db.execute(sql, values)
        except (apsw.ConstraintError, apsw.BindingsError, apsw.MismatchError):
            unread += 1
    return unread


def _keep_promises(db: apsw.Connection, promises: Promises, result: Salvaged) -> None:
    """Put back the campaigns, holds and halts that the journal knows and the rows don't."""
    db.execute(
        "INSERT OR REPLACE INTO campaigns (id, name) SELECT 0, '' WHERE NOT EXISTS "
        "(SELECT 1 FROM campaigns WHERE id = 0)"
    )
    numbers = {name: number for number, name in promises.names.items()}
    for name in (*promises.halts, *promises.held):
        db.execute("INSERT OR IGNORE INTO campaigns (id, name) VALUES (?, ?)", (numbers[name], name))
    for name in promises.held:
        db.execute("UPDATE campaigns SET held = 1 WHERE name = ?", (name,))
    for name, halt in promises.halts.items():
        if put_back(db, halt):
            result.told.append(f"the halt of campaign {name} was put back from its copy")


def put_back(db: apsw.Connection, halt: HaltRecord) -> bool:
    """Insert a halt's row if there is none; the campaign is there. Give whether it was inserted."""
    facts: dict[str, Any] = msgspec.to_builtins(halt)
    del facts["already"], facts["campaign"]
    db.execute(
        f"INSERT OR IGNORE INTO halts (campaign_id, {', '.join(facts)})"
        f" SELECT id{', ?' * len(facts)} FROM campaigns WHERE name = ?",
        (*facts.values(), halt.campaign),
    )
    if not db.changes():
        return False
    db.execute("UPDATE campaigns SET held = 0 WHERE name = ?", (halt.campaign,))
    return True


def _count_files(db: apsw.Connection, folder: Path) -> None:
    """Vouch for all that the segment files hold: what of it is sound is checked when it is read."""
    files: Iterable[tuple[int, Path]] = segment_files(folder).items() if folder.is_dir() else ()
    rows: Sequence[tuple[int, int]] = [(segment, path.stat().st_size) for segment, path in files]
    db.executemany(
        "INSERT INTO segments (id, length, live_bytes, live_messages, first_message, last_message)"
        " VALUES (?, ?, 0, 0, 0, 0) ON CONFLICT (id) DO UPDATE SET length = max(length, excluded.length)",
        rows,
    )


def _skip_ids(db: apsw.Connection, *, lost: bool) -> None:
    """Give no identifier twice."""
    db.execute(
        "UPDATE meta SET value = ? + max(value, (SELECT 1 + max(id) FROM (SELECT max(id) AS id FROM recipients"
        " UNION ALL SELECT max(id) FROM outcomes UNION ALL SELECT max(id + recipients) FROM messages"
        " UNION ALL SELECT max(last_message) FROM segments UNION ALL SELECT 0))) WHERE key = 'next_id'",
        (_SKIPPED_IDS if lost else 0,),
    )
