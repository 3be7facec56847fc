"""The pages of a damaged index, read without SQLite: what is sound of the file and its log, and whose each page is.

SQLite stops at the first thing that is wrong. Here each page is taken by itself: its latest version in the log, or
else in the file, counts if it is sound (by the log's own sums, or those of checksums.py). To which table a page belongs
is asked of the pages above it, and of the map of parents that SQLite keeps in a file that can shrink; so it is found
though the ones above it are not.
The formats are on sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import apsw

from queue_store.checksums import RESERVED, PageCheck
from queue_store.wal_format import FRAME, WAL_HEADER, add_to_sums, read_header

__all__ = ["PAGE", "PageImage", "Row"]

PAGE = 4096
USABLE = PAGE - RESERVED

_IN_INDEX, _IN_TABLE, _LEAF_OF_INDEX, _LEAF_OF_TABLE = 2, 5, 10, 13
_FREE, _ROOT = 2, 1
_MAP_ENTRIES = USABLE // 5
_UNKNOWN = 0  # no page has the number
_PAGES = 1 << 31
_DEPTH = 40
_SALTED = 16  # octets of a frame, up to the end of the salts
_SECTOR = 512
_LOCK_PAGE = (1 << 30) // PAGE + 1  # never used

# A row: the key where the table has one, the columns as they are stored, and whether it is of an older version.
Row = tuple[int | None, list[Any], bool]


@cache
def _roots_of_tables() -> dict[int, str]:
    """Give the tables by the page on which each begins: always the same, as they are made in one order, and stay."""
    with closing(apsw.Connection(":memory:")) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute(resources.files("queue_store").joinpath("schema.sql").read_text("utf-8"))
        found: list[tuple[Any, ...]] = db.execute(
            "SELECT rootpage, type, name FROM sqlite_schema WHERE rootpage > 0"
        ).fetchall()
    return {root: name if kind == "table" else "" for root, kind, name in found}


def _is_in_one_sector(at: int) -> bool:
    """Whether the head of a frame, up to the salts, is in one sector. Else a power cut may leave the mark of a commit
    of an older log beside the salts of this one.
    """
    return at // _SECTOR == (at + _SALTED - 1) // _SECTOR


class PageImage:
    """The pages of an index and its log."""

    def __init__(self, index: Path, log: Path) -> None:
        """Read what is there. Raises OSError."""
        self._check = PageCheck()
        self._file = _mapped(index)
        self._log = _mapped(log)
        self._roots = _roots_of_tables()
        self._in_log: dict[int, list[tuple[int, bool]]] = {}  # by page, where its versions are
        self.lost_frames = 0
        self.index = index
        self.log_is_empty = not any(self._log[: WAL_HEADER.size])
        self.log_has_header = False
        self.sound_frames = 0  # of the log, before the first that is not
        self.lost_commits = 0  # that end behind it
        self._sound: dict[int, bool] = {}
        size = self._read_log()
        first = self.page(1)
        if not size and first is not None:
            (size,) = struct.unpack_from(">I", first, 28)  # it may have been cut
        self.pages = size or -(-len(self._file) // PAGE)

    def close(self) -> None:
        """Let go of what it needs."""
        self._check.close()
        for octets in (self._file, self._log):
            if isinstance(octets, mmap.mmap):
                octets.close()

    # -- pages ----------------------------------------------------------------------------------------------------

    def _read_log(self) -> int:
        """Find the frames that count; give the number of pages after the last commit among them, 0 without one.

        SQLite sums a log from its start on, and ends it at the first frame that does not fit. But each frame has the
        sum up to it, so that the one behind it can be checked by that: damage in one costs no other.
        """
        step = FRAME.size + PAGE
        starts = range(WAL_HEADER.size, len(self._log) - step + 1, step)
        if not starts:
            return 0
        frames = self._check_frames(starts)
        broken = next((at for at, (_, _, sound) in enumerate(frames) if not sound), len(frames))
        whole = max((at for at, (_, commit, _) in enumerate(frames[:broken]) if commit), default=-1)
        last = max((at for at, (_, commit, _) in enumerate(frames) if commit), default=-1)
        self.sound_frames = broken
        self.lost_commits = sum(1 for _, commit, _ in frames[broken:] if commit)
        if self.lost_commits < 2 and self.log_has_header:
            last = whole  # what a power cut leaves of the last commit, which was never answered
        size = 0
        for at, (page, commit, sound) in enumerate(frames[: last + 1]):
            self.lost_frames += not sound
            if page != _UNKNOWN:
                self._in_log.setdefault(page, []).append((starts[at] + FRAME.size, sound))
            size = commit if commit and sound else size
        return size

    def _check_frames(self, starts: range) -> list[tuple[int, int, bool]]:
        """Give, of each frame, its page, the pages after it where it ends a commit, and whether it is sound; of one of
        another log, which was here before, there is nothing to be had.
        """
        header = read_header(self._log[: WAL_HEADER.size])
        self.log_has_header = header is not None
        order = header.order if header is not None else "<"
        salts = header.salts if header is not None else FRAME.unpack_from(self._log, starts[0])[2:4]
        sums = header.sums if header is not None else WAL_HEADER.unpack_from(self._log, 0)[6:8]
        frames: list[tuple[int, int, bool]] = []
        for at in starts:
            page, commit, *rest = FRAME.unpack_from(self._log, at)
            text = self._log[at + FRAME.size : at + FRAME.size + PAGE]
            fits = add_to_sums(order, text, add_to_sums(order, self._log[at : at + 8], sums)) == tuple(rest[2:])
            sums = rest[2], rest[3]
            if tuple(rest[:2]) == tuple(salts):
                ends = commit if fits or _is_in_one_sector(at) else 0
                frames.append((page if page < _PAGES else _UNKNOWN, ends, fits))
            else:
                frames.append((_UNKNOWN, 0, False))
        return frames

    def page(self, number: int) -> bytes | None:
        """Give a page, None if it is damaged. Where the latest version is damaged, an older one does not count."""
        places = self._in_log.get(number)
        if places:
            at, sound = places[-1]
            return self._log[at : at + PAGE] if sound else None
        return self._page_in_file(number)

    def _page_in_file(self, number: int) -> bytes | None:
        page = self._file[(number - 1) * PAGE : number * PAGE]
        sound = self._sound.get(number)
        if sound is None:
            sound = self._sound[number] = len(page) == PAGE and self._check.fits(page)
        return page if sound else None

    def _older(self, number: int) -> bytes | None:
        """Give the latest version of a page that is sound, where its last one is not."""
        places = self._in_log.get(number, [])
        for at, sound in reversed(places):
            if sound:
                return self._log[at : at + PAGE]
        return self._page_in_file(number) if places else None

    # -- whose they are -------------------------------------------------------------------------------------------

    @staticmethod
    def _map_page(number: int) -> int:
        """Give the page of the map of parents that speaks of a page: itself where it is one."""
        return 2 + (number - 2) // (_MAP_ENTRIES + 1) * (_MAP_ENTRIES + 1)

    def _map_entry(self, number: int) -> tuple[int, int]:
        """Give the kind of a page and its parent, (0, 0) where that is not known."""
        where = self._map_page(number)
        octets = self.page(where)
        if octets is None or number <= where:
            return 0, 0
        kind, parent = struct.unpack_from(">BI", octets, (number - where - 1) * 5)
        return kind, parent

    @cached_property
    def _parents(self) -> dict[int, int]:
        found = {}
        for number in range(1, self.pages + 1):
            page = self.page(number)
            if page is not None and not (number > 1 and number == self._map_page(number)):
                for child in _children(page, 100 if number == 1 else 0):
                    found[child] = number
        return found

    def table_of(self, number: int) -> str | None:
        """Give the table that a page is of; "" for what is none of any table's rows, None where it can't be told."""
        for depth in range(_DEPTH):
            if number == 1 or (number > 1 and number == self._map_page(number)):
                return ""
            if number in self._roots:
                return self._roots[number]
            kind, parent = self._map_entry(number)
            if kind == _FREE and not depth:
                return ""
            if kind in (0, _FREE):
                parent = self._parents.get(number, _UNKNOWN)
            if parent == _UNKNOWN:
                return "" if kind == _ROOT else None
            number = parent
        return None

    @cached_property
    def _numbers(self) -> dict[str | None, list[int]]:
        """The pages of each table."""
        found: dict[str | None, list[int]] = {}
        for number in range(1, self.pages + 1):
            found.setdefault(self.table_of(number), []).append(number)
        return found

    @cached_property
    def damaged(self) -> dict[int, str | None]:
        """The pages that are damaged, with the table of each; a free one is not counted."""
        numbers = (number for number in range(1, self.pages + 1) if number != _LOCK_PAGE)
        bad = [number for number in numbers if self.page(number) is None]
        owners = {number: self.table_of(number) for number in bad}
        free = {number for number in bad if number > 2 and self._map_entry(number)[0] == _FREE}
        return {number: owner for number, owner in owners.items() if number not in free}

    def rows(self, table: str) -> Iterator[Row]:
        """Give the rows of a table that can be read; of damaged pages those of an older version, if there is one."""
        for number in self._numbers.get(table, ()):
            page = self.page(number)
            version = self._older(number) if page is None else page
            if version is not None:
                for key, columns in self._rows_on(version):
                    yield key, columns, page is None

    def _rows_on(self, page: bytes) -> Iterator[tuple[int | None, list[Any]]]:
        kind = page[0]
        if kind not in (_IN_INDEX, _LEAF_OF_INDEX, _LEAF_OF_TABLE):
            return
        start = 12 if kind == _IN_INDEX else 8
        (cells,) = struct.unpack_from(">H", page, 3)
        for at in struct.unpack_from(f">{min(cells, USABLE // 2 - 8)}H", page, start):
            row = self._row(page, at + 4 if kind == _IN_INDEX else at, kind)
            if row is not None:
                yield row

    def _row(self, page: bytes, at: int, kind: int) -> tuple[int | None, list[Any]] | None:
        try:
            length, at = _varint(page, at)
            key = None
            if kind == _LEAF_OF_TABLE:
                key, at = _varint(page, at)
            local = _local(length, kind)
            payload = page[at : at + local]
            if local < length:
                (following,) = struct.unpack_from(">I", page, at + local)
                payload += self._overflow(following, length - local)
            return key, _columns(payload)
        except (IndexError, struct.error, ValueError):  # it can't be read: what it was is not known
            return None

    def _overflow(self, number: int, length: int) -> bytes:
        octets = b""
        while len(octets) < length:
            page = self.page(number)
            if page is None:
                raise ValueError("damaged")
            (number,) = struct.unpack_from(">I", page)
            octets += page[4 : 4 + min(USABLE - 4, length - len(octets))]
        return octets


def _mapped(path: Path) -> bytes | mmap.mmap:
    if not path.exists() or not path.stat().st_size:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _children(page: bytes, start: int) -> Sequence[int]:
    kind = page[start]
    if kind not in (_IN_INDEX, _IN_TABLE):
        return ()
    (cells,) = struct.unpack_from(">H", page, start + 3)
    cells_at = struct.unpack_from(f">{min(cells, USABLE // 2 - 60)}H", page, start + 12)
    return [struct.unpack_from(">I", page, at)[0] for at in (start + 8, *cells_at) if at + 4 <= PAGE]


def _local(length: int, kind: int) -> int:
    """Give how many octets of a record are on its own page."""
    most = USABLE - 35 if kind == _LEAF_OF_TABLE else (USABLE - 12) * 64 // 255 - 23
    if length <= most:
        return length
    least = (USABLE - 12) * 32 // 255 - 23
    local = least + (length - least) % (USABLE - 4)
    return local if local <= most else least


def _varint(octets: bytes, at: int) -> tuple[int, int]:
    value = 0
    for _ in range(8):
        octet = octets[at]
        at += 1
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            return value, at
    return value << 8 | octets[at], at + 1


_WIDTHS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _columns(payload: bytes) -> list[Any]:
    """Take a record apart. Raises ValueError, IndexError, struct.error."""
    end, at = _varint(payload, 0)
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    columns: list[Any] = []
    for kind in kinds:
        if kind == 0:
            columns.append(None)
        elif kind in (8, 9):
            columns.append(kind - 8)
        elif kind in _WIDTHS:
            width = _WIDTHS[kind]
            columns.append(int.from_bytes(payload[at : at + width], "big", signed=True))
            at += width
        elif kind == 7:
            columns.append(struct.unpack_from(">d", payload, at)[0])
            at += 8
        elif kind >= 13 and kind % 2:
            width = (kind - 13) // 2
            columns.append(payload[at : at + width].decode())
            at += width
        else:
            raise ValueError(f"a column of kind {kind}")
    if at > len(payload):
        raise ValueError("a record that is cut off")
    return columns
