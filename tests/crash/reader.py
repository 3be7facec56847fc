"""Reads a store from its files alone, with none of the store's own code (but that which loads the checksums of the
index's pages): the index with SQLite, the bodies by hand.

The folder must not be in use; it is not left as it was (SQLite recovers its log), so give it a copy.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw

from queue_store.checksums import load_checksums

CLAIMED = 3

_OUTCOMES = {1: "delivered", 2: "bounced", 3: "expired", 4: "dropped", 5: "unknown"}
GROWING = ("accepted", "delivered", "delivered_after_stop", "bounced", "expired", "dropped", "unknown")

# A record: magic, size, message id, CRC-32 of the body, CRC-32 of its place and all before.
_HEADER = struct.Struct("<4sQQII")
_MAGIC = bytes.fromhex("8d4d4231")


class Books:
    """What a store holds. Recipients go by their addresses, which a test uses once each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waiting: dict[str, str] = {}  # recipient: campaign
        self.claimed: set[str] = set()
        self.uncertain: set[str] = set()
        self.outcomes: dict[str, str] = {}
        self.campaign_of: dict[str, str] = {}
        self.after_stop: dict[str, str] = {}
        self.rows: Counter[str] = Counter()  # by recipient
        self.tallies: dict[str, Counter[str]] = defaultdict(Counter)  # by campaign, from the rows
        with closing(_open(folder / "queue.db")) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            self._read(db)

    def _read(self, db: apsw.Connection) -> None:
        names = dict(db.execute("SELECT id, name FROM campaigns"))
        recipients: dict[int, list[str]] = defaultdict(list)
        for number, message, address, state, uncertain in db.execute(
            "SELECT campaign_id, message_id, address, state, uncertain FROM recipients"
        ):
            self.waiting[address] = self.campaign_of[address] = names[number]
            self.rows[address] += 1
            self.tallies[names[number]]["live"] += 1
            recipients[message].append(address)
            if state == CLAIMED:
                self.claimed.add(address)
            if uncertain:
                self.uncertain.add(address)
        for number, address, outcome, after_stop in db.execute(
            "SELECT campaign_id, address, outcome, after_stop FROM outcomes"
        ):
            name = self.outcomes[address] = _OUTCOMES[outcome]
            self.campaign_of[address] = names[number]
            self.rows[address] += 1
            self.tallies[names[number]][name] += 1
            if after_stop:
                self.after_stop[address] = names[number]
                self.tallies[names[number]]["delivered_after_stop"] += name == "delivered"
        self.counts = {
            name: dict(zip(GROWING, counts, strict=True))
            for name, *counts in db.execute(f"SELECT name, {', '.join(GROWING)} FROM campaigns")
        }
        self.held = {name for (name,) in db.execute("SELECT name FROM campaigns WHERE held")}
        self.halted = {names[number]: kind for number, kind in db.execute("SELECT campaign_id, kind FROM halts")}
        self._places = [
            (number, segment, offset, size, recipients.pop(number))
            for number, segment, offset, size in db.execute("SELECT id, segment, offset, size FROM messages")
        ]
        assert not recipients, f"recipients wait whose messages are gone: {recipients}"

    def bodies(self) -> Iterator[tuple[list[str], bytes]]:
        """Give, for each message, the recipients that wait for it, and its body; raise AssertionError if one is not
        where the index says, or not as it was summed.
        """
        files: dict[int, bytes] = {}
        for number, segment, offset, size, addresses in self._places:
            if segment not in files:
                files[segment] = (self.folder / "segments" / f"{segment:08d}.seg").read_bytes()
            octets = files[segment]
            end = offset + _HEADER.size + size
            assert end <= len(octets), f"message {number} is cut off: it ends at {end} of {len(octets)}"
            magic, said, whose, body_sum, head_sum = _HEADER.unpack_from(octets, offset)
            assert (magic, said, whose) == (_MAGIC, size, number), f"message {number} is not at {segment}, {offset}"
            place = zlib.crc32(struct.pack("<QQ", segment, offset))
            assert zlib.crc32(octets[offset : offset + _HEADER.size - 4], place) == head_sum, f"head of {number}"
            body = octets[offset + _HEADER.size : end]
            assert zlib.crc32(body) == body_sum, f"the body of message {number} does not fit its checksum"
            yield addresses, body


def _open(index: Path) -> apsw.Connection:
    """Open an index and leave it as it is: who closes it last would else put its log away."""
    load_checksums()  # they can be loaded once only in a process
    db = apsw.Connection(str(index), flags=apsw.SQLITE_OPEN_READWRITE)
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return db


def has_index(folder: Path) -> bool:
    """Whether there is an index with a schema: without one nothing was ever answered."""
    index = folder / "queue.db"
    if not index.exists():
        return False
    with closing(_open(index)) as db:
        return bool(db.execute("SELECT count(*) FROM sqlite_schema").get)
