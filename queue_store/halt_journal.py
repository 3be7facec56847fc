"""The second copy of what must never be forgotten: halts, holds, and which campaign a number stands for.

The index has all of it, and rules where it is sound. But one damaged page could take a halt with it, or the name of a
campaign, so that its halt would not be found again; so both are also here, in a file of their own that only ever grows
(docs/adr/0015). It is written behind the commit and synced behind the answer: a halt waits for no more than its commit,
and what a crash leaves out in between is put right from the index when the store is opened.

The file is a row of records, little endian, then zeros; its blocks are allocated beforehand, so that a full disk takes
no halt. A file that is cut, or that holds anything behind the first zeros, is not whole.

    4  magic "MTHJ"   4  length   8  number of the record, from 0 on   4  CRC-32 of number and text   then JSON:
    ["mtactl halts", version] | ["campaign", id, name] | ["hold", id, name, held] | ["halt", id, facts]
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from queue_store.records import HaltRecord
from queue_store.segments import sync_folder

__all__ = ["HaltJournal", "Promises", "read_promises"]

_MAGIC = b"MTHJ"
_HEAD = struct.Struct("<4sIQI")
_NUMBER = struct.Struct("<QI")  # what is summed before the text: the record's number, and its length
_CHUNK = 64 << 10  # octets allocated at a time
_LEAST_FREE = 32 << 10  # octets that are always allocated ahead
_TITLE = ["mtactl halts", 1]
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class Promises:
    """What a journal says. `whole`: nothing of it can be missing; else `damage` is a sentence that says why not."""

    halts: dict[str, HaltRecord] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    names: dict[int, str] = field(default_factory=dict)
    records: int = 0
    end: int = 0
    damage: str = ""
    missing: bool = False
    torn: bool = False  # no sound record is behind the damage: so a power cut leaves what was being written

    @property
    def whole(self) -> bool:
        """Whether it can be relied on alone."""
        return not self.damage

    def take(self, what: Sequence[Any]) -> None:
        """Take a record in. Raises msgspec.ValidationError, ValueError on what is none."""
        match what:
            case ["campaign", int(number), str(name)]:
                self.names[number] = name
            case ["hold", int(number), str(name), bool(held)]:
                self.names[number] = name
                (self.held.add if held else self.held.discard)(name)
            case ["halt", int(number), facts]:
                halt = msgspec.convert(facts, HaltRecord)
                self.names[number] = halt.campaign
                self.held.discard(halt.campaign)
                self.halts[halt.campaign] = halt
            case [title, _] if title == _TITLE[0]:
                if what != _TITLE:
                    raise ValueError("it is of another version")
            case _:
                raise ValueError(f"a record is unknown: {what!r:.80}")


def read_promises(path: Path) -> Promises:
    """Read a journal as far as it is sound. Raises OSError."""
    found = Promises()
    try:
        octets = path.read_bytes()
    except FileNotFoundError:
        found.missing = True
        found.damage = "the file is missing"
        return found
    found.damage = _parse(octets, found)
    found.torn = bool(found.records and found.damage) and not _goes_on(octets, found.end)
    return found


def _goes_on(octets: bytes, start: int) -> bool:
    """Whether there is a sound record behind a damaged one."""
    at = octets.find(_MAGIC, start + 1)
    while at >= 0:
        head = octets[at : at + _HEAD.size]
        if len(head) == _HEAD.size:
            _, length, number, checksum = _HEAD.unpack(head)
            text = octets[at + _HEAD.size : at + _HEAD.size + length]
            if checksum == zlib.crc32(text, zlib.crc32(_NUMBER.pack(number, length))):
                return True
        at = octets.find(_MAGIC, at + 1)
    return False


def _parse(octets: bytes, found: Promises) -> str:
    """Take in what is sound; give what is wrong behind it."""
    while True:
        head = octets[found.end : found.end + _HEAD.size]
        if len(head) < _HEAD.size:
            return "its end is cut off"
        if not any(head):
            if any(octets[found.end :]):
                return f"record {found.records} is missing, and others follow"
            if not found.records:
                return "it is empty"
            return "" if len(octets) % _CHUNK == 0 else "its end is cut off"
        magic, length, number, checksum = _HEAD.unpack(head)
        text = octets[found.end + _HEAD.size : found.end + _HEAD.size + length]
        sound = (
            magic == _MAGIC
            and number == found.records
            and len(text) == length
            and checksum == zlib.crc32(text, zlib.crc32(_NUMBER.pack(number, length)))
        )
        if not sound:
            return f"record {found.records} at octet {found.end} is damaged"
        try:
            found.take(msgspec.json.decode(text))
        except (msgspec.MsgspecError, ValueError) as error:
            return f"record {found.records} at octet {found.end} can't be read: {error}"
        found.records += 1
        found.end += _HEAD.size + length


class HaltJournal:
    """The journal of an open store. For one thread at a time, the committer's."""

    def __init__(self, path: Path) -> None:
        """Read the file; `begin` comes before the first `note`. Raises OSError."""
        self._path = path
        self._fd = -1
        self._end = 0
        self._records = 0
        self._allocated = 0
        self._waiting: list[list[Any]] = []
        self._unsynced = False
        self._new: Path | None = None  # written anew, and not in its place yet
        self.promises = read_promises(path)

    @property
    def unsynced(self) -> bool:
        """Whether a halt or a hold that was noted is not durable here."""
        return self._unsynced

    def begin(self, records: Iterable[Sequence[Any]]) -> None:
        """Go on with the file if it says just what it should, which is `records`; else write it anew.

        Raises OSError; where there is no room, what is noted waits for it.
        """
        wanted = Promises()
        listed = list(records)
        for record in listed:
            wanted.take(record)
        told = self.promises
        same = (told.halts, told.held, told.names) == (wanted.halts, wanted.held, wanted.names)
        if told.whole and same and told.records <= 2 * len(listed) + 1000:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            self._allocated = os.fstat(self._fd).st_size
            self._end, self._records = told.end, told.records
        else:
            self._write_anew(listed)
        self.promises = Promises()  # it may be long, and is not needed any more

    def _write_anew(self, records: Sequence[Sequence[Any]]) -> None:
        self._new = self._path.with_name(f"{self._path.name}.new")
        self._fd = os.open(self._new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._waiting = [_TITLE, *map(list, records)]
        self.sync()

    # -- what is promised -----------------------------------------------------------------------------------------

    def note_campaign(self, number: int, name: str) -> None:
        """Note what a campaign's number stands for. Durable some time. Never raises."""
        self._waiting.append(["campaign", number, name])  # written with the next of the others, or as the store closes

    def note_hold(self, number: int, name: str, *, held: bool) -> None:
        """Note a hold or a release. Never raises."""
        self._waiting.append(["hold", number, name, held])
        self._unsynced = True

    def note_halt(self, number: int, halt: HaltRecord) -> None:
        """Note a halt, or how far it has come. Never raises."""
        self._waiting.append(["halt", number, msgspec.to_builtins(halt)])
        self._unsynced = True

    def write(self) -> None:
        """Hand what was noted to the kernel: it survives this process. Without room it waits. Raises OSError."""
        if self._waiting:
            self._put()

    def sync(self) -> None:
        """Make durable what was noted. Without room it waits. Raises OSError."""
        self.write()
        if self._unsynced and not self._waiting:
            os.fdatasync(self._fd)
            if self._new is not None:  # now it is whole
                self._new.rename(self._path)
                sync_folder(self._path.parent)
                self._new = None
            self._unsynced = False

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _put(self) -> None:
        octets = bytearray()
        for number, what in enumerate(self._waiting, self._records):
            text = msgspec.json.encode(what)
            octets += _HEAD.pack(
                _MAGIC, len(text), number, zlib.crc32(text, zlib.crc32(_NUMBER.pack(number, len(text))))
            )
            octets += text
        try:
            self._allocate(self._end + len(octets))
            written = 0
            while written < len(octets):
                written += os.pwrite(self._fd, memoryview(octets)[written:], self._end + written)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            return
        self._end += len(octets)
        self._records += len(self._waiting)
        self._waiting.clear()
        self._unsynced = True

    def _allocate(self, end: int) -> None:
        if end + _LEAST_FREE <= self._allocated:
            return
        size = -(-(end + _LEAST_FREE) // _CHUNK) * _CHUNK
        try:
            os.posix_fallocate(self._fd, 0, size)
        except OSError:
            if end + _HEAD.size <= self._allocated:
                return  # what was allocated ahead is for this
            raise
        self._allocated = size
