"""The format of SQLite's write-ahead log (sqlite.org/fileformat2.html#walformat)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["FRAME", "WAL_HEADER", "LogHeader", "add_to_sums", "read_header"]

WAL_HEADER = struct.Struct(">IIIIIIII")  # magic, version, page size, checkpoint, two salts, two checksums
FRAME = struct.Struct(">IIIIII")  # page, size of the file after a commit (else 0), two salts, two checksums
_MAGICS = {0x377F0682: "<", 0x377F0683: ">"}  # the byte order of the words that are summed
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class LogHeader:
    """A sound header. `sums` is where the running checksum of the frames begins."""

    page_size: int
    order: str
    salts: tuple[int, int]
    sums: tuple[int, int]


def read_header(octets: bytes) -> LogHeader | None:
    """Give a log's header; None when it is damaged or cut off."""
    if len(octets) < WAL_HEADER.size:
        return None
    magic, _, page_size, _, salt1, salt2, sum1, sum2 = WAL_HEADER.unpack(octets)
    order = _MAGICS.get(magic)
    if order is None or not 512 <= page_size <= 65536 or page_size & (page_size - 1):
        return None
    if add_to_sums(order, octets[:24], (0, 0)) != (sum1, sum2):
        return None
    return LogHeader(page_size, order, (salt1, salt2), (sum1, sum2))


def add_to_sums(order: str, octets: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    """Go on with a log's running checksum."""
    first, second = sums
    words = struct.unpack(f"{order}{len(octets) // 4}I", octets)
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & _MASK
        second = (second + other + first) & _MASK
    return first, second
