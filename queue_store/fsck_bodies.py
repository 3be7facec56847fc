"""Check the segment files against the index: each message that waits has its body, whole, where the index says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import apsw

from queue_store.body_records import HEADER_SIZE, body_fits, segment_files, segment_path, unpack_header
from queue_store.finding import Finding, Kind, Severity

__all__ = ["check_bodies"]

_OF_SEGMENT = "SELECT id, offset, size FROM messages WHERE segment = ? ORDER BY offset"
_SHOWN = 20
_HOMELESS = """
SELECT segment, count(*), min(id) FROM messages WHERE segment NOT IN (SELECT id FROM segments) GROUP BY segment
"""


def check_bodies(db: apsw.Connection, folder: Path) -> Iterator[Finding]:
    """Find bodies that are missing or damaged, and files that nothing points at. Raises apsw.Error, OSError."""
    files = segment_files(folder) if folder.is_dir() else {}
    rows: list[tuple[int, int, int]] = list(db.execute("SELECT id, length, live_messages FROM segments ORDER BY id"))
    for segment, vouched, living in rows:
        path = files.pop(segment, None)
        where = segment_path(folder, segment).name
        if path is None:
            if living:
                messages = [number for (number,) in db.execute("SELECT id FROM messages WHERE segment = ?", (segment,))]
                what = f"the file is missing, with the bodies of {living} messages"
                yield _error(where, what, *_affected(db, messages))
            continue
        yield from _check_segment(db, path, segment, vouched)
    for segment, messages, first in db.execute(_HOMELESS):
        files.pop(segment, None)
        yield _error(
            segment_path(folder, segment).name,
            f"{messages} messages, the first of them {first}, have their bodies in it, but the index does not know it",
        )
    for path in files.values():
        octets = path.stat().st_size
        what = f"the index does not know the file: its {octets} octets belong to no message"
        yield _note(path.name, what, Kind.STRAY)


def _check_segment(db: apsw.Connection, path: Path, segment: int, vouched: int) -> Iterator[Finding]:
    with path.open("rb") as file:
        length = path.stat().st_size
        if length < vouched:
            yield _error(path.name, f"it has {length} octets, but the index vouches for {vouched}")
        elif length > vouched:
            yield _note(path.name, f"its last {length - vouched} octets are of no commit", Kind.TORN)
        end = 0
        for message_id, offset, size in db.execute(_OF_SEGMENT, (segment,)):
            where = f"{path.name}, octet {offset}"
            if offset < end:
                yield _error(where, f"message {message_id} begins before the end of the one in front of it")
            end = offset + HEADER_SIZE + size
            if end > vouched:
                yield _error(where, f"message {message_id} ends at {end}, behind what the index vouches for")
            wrong = _wrong(file, (segment, offset, size, message_id))
            if wrong is not None:
                yield _error(where, f"the body of message {message_id} {wrong}", *_affected(db, [message_id]))


def _wrong(file: BinaryIO, meant: tuple[int, int, int, int]) -> str | None:
    """Say what is wrong with a record, if anything is."""
    segment, offset, size, message_id = meant
    file.seek(offset)
    header = file.read(HEADER_SIZE)
    if len(header) < HEADER_SIZE:
        return "is cut off"
    found = unpack_header(header, segment, offset)
    if found is None:
        return "has no sound header"
    if found[:2] != (size, message_id):
        return f"is that of message {found[1]}, with {found[0]} octets"
    return None if body_fits(file, size, found[2]) else "does not fit its checksum"


def _affected(db: apsw.Connection, messages: list[int]) -> Iterator[str]:
    """Say whose mail it is."""
    for message_id in messages[:_SHOWN]:
        row = db.execute(
            "SELECT c.name, m.reverse_path, m.live FROM messages m JOIN campaigns c ON c.id = m.campaign_id"
            " WHERE m.id = ?",
            (message_id,),
        ).fetchone()
        if row is not None:
            name, sender, living = row
            addresses = [
                str(address)
                for (address,) in db.execute(
                    "SELECT r.address FROM recipients r JOIN messages m ON m.campaign_id = r.campaign_id"
                    " WHERE m.id = ? AND r.message_id = m.id LIMIT 3",
                    (message_id,),
                )
            ]
            whose = f"campaign {name}" if name else "no campaign"
            more = ", ..." if int(str(living)) > len(addresses) else ""
            yield f"message {message_id} of {whose}, from <{sender}>, to {', '.join(addresses)}{more} ({living} wait)"
    if len(messages) > _SHOWN:
        yield f"and {len(messages) - _SHOWN} more messages"


def _error(where: str, what: str, *affects: str) -> Finding:
    return Finding(severity=Severity.ERROR, where=where, what=what, kind=Kind.BODY, affects=affects)


def _note(where: str, what: str, kind: Kind) -> Finding:
    return Finding(severity=Severity.NOTE, where=where, what=what, kind=kind)
