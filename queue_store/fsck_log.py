"""Check the write-ahead log of the index: SQLite ends it, in silence, at the first frame that does not fit.

After a power cut that is right: what follows was never synced. But one damaged octet in the middle of a log takes
every commit behind it, acknowledged ones too. The two can be told apart: each commit is synced before the next one is
written, so a power cut spoils the last commit alone. The format is on sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from queue_store.finding import Finding, Severity

__all__ = ["check_log"]

_HEADER = struct.Struct(">IIIIIIII")  # magic, version, page size, checkpoint, two salts, two checksums
_FRAME = struct.Struct(">IIIIII")  # page, size of the file after a commit (else 0), two salts, two checksums
_MAGICS = {0x377F0682: "<", 0x377F0683: ">"}  # the byte order of the words that are summed
_SALTED = 16  # octets of a frame, up to the end of the salts
_SECTOR = 512
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Log:
    page_size: int
    order: str
    salts: tuple[int, int]
    sums: tuple[int, int]


def check_log(path: Path) -> Iterator[Finding]:
    """Find damage in a write-ahead log; there is none where there is no log. Raises OSError."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        octets = file.read(_HEADER.size)
        log = _read_header(octets)
        if log is None:
            if any(octets):
                yield Finding(
                    severity=Severity.ERROR,
                    where=path.name,
                    what="the header is damaged: no commit that is in the log counts",
                )
            return
        sound, lost = _walk(file, log)
    at = f"{path.name}, frame {sound + 1}"
    if lost > 1:
        yield Finding(severity=Severity.ERROR, where=at, what=f"it is damaged, and with it {lost} commits are lost")
    elif lost == 1:
        yield Finding(severity=Severity.NOTE, where=at, what="the last commit is not whole, and does not count")


def _read_header(octets: bytes) -> _Log | None:
    if len(octets) < _HEADER.size:
        return None
    magic, _, page_size, _, salt1, salt2, sum1, sum2 = _HEADER.unpack(octets)
    order = _MAGICS.get(magic)
    if order is None or not 512 <= page_size <= 65536 or page_size & (page_size - 1):
        return None
    if _add(order, octets[:24], (0, 0)) != (sum1, sum2):
        return None
    return _Log(page_size, order, (salt1, salt2), (sum1, sum2))


def _walk(file: BinaryIO, log: _Log) -> tuple[int, int]:
    """Give how many frames are sound, and how many commits of the same log stand behind them."""
    sums = log.sums
    sound = lost = 0
    whole = True
    at = _HEADER.size
    while len(octets := file.read(_FRAME.size + log.page_size)) == _FRAME.size + log.page_size:
        _, commit, *rest = _FRAME.unpack_from(octets)
        ours = tuple(rest[:2]) == log.salts
        if whole or (ours and commit):
            follows = _add(log.order, octets[_FRAME.size :], _add(log.order, octets[:8], sums)) == tuple(rest[2:])
            whole = whole and ours and follows
            sound += whole
            if not whole and ours and commit and (follows or _is_in_one_sector(at)):
                lost += 1
        sums = (rest[2], rest[3])  # of the frame before, as it says
        at += len(octets)
    return sound, lost


def _is_in_one_sector(at: int) -> bool:
    """Whether the head of a frame, up to the salts, is in one sector. Else a power cut may leave a mark of a commit
    from an older log with the salts of this one.
    """
    return at // _SECTOR == (at + _SALTED - 1) // _SECTOR


def _add(order: str, octets: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    """Go on with the log's running checksum."""
    first, second = sums
    words = iter(struct.unpack(f"{order}{len(octets) // 4}I", octets))
    for one, other in zip(words, words, strict=True):
        first = (first + one + second) & _MASK
        second = (second + other + first) & _MASK
    return first, second
