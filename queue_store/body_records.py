"""The format of segment files: records of message bodies, and a walk over them that trusts no octet unchecked.

A segment file is a row of records, with nothing before, between or behind them. A record is a header of 28 octets,
little endian, and the body in wire form:

    4  magic            8d 4d 42 31 (not printable, so that seven-bit mail can't hold it; the last octet is the version)
    8  size             of the body, in octets
    8  message id
    4  body checksum    CRC-32 of the body
    4  head checksum    CRC-32 of segment id and offset (8 octets each, not stored) and the 24 octets above

The head checksum binds a record to its place: a record that a disk or a person put elsewhere is not taken for another,
and a length that fits it can be followed.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

try:
    from isal.isal_zlib import crc32  # the same sum in a fraction of the time
except ImportError:  # where it has no wheel
    from zlib import crc32

__all__ = [
    "HEADER_SIZE",
    "Record",
    "body_fits",
    "checksum_of",
    "pack_header",
    "scan",
    "segment_files",
    "segment_path",
    "unpack_header",
]

_MAGIC = b"\x8dMB1"
_PLACE = struct.Struct("<QQ")  # segment, offset
_HEAD = struct.Struct("<4sQQI")  # magic, size, message id, body checksum
_CHECK = struct.Struct("<I")

HEADER_SIZE = _HEAD.size + _CHECK.size

_NAME = re.compile(r"([0-9]{8,19})\.seg")
_CHUNK = 1 << 20
_SLICE = 5120  # octets, as long as the sum is made without giving up the interpreter's lock
_SLICED = 32 << 10  # octets: below 10 µs


def checksum_of(body: Sequence[bytes | bytearray | memoryview]) -> int:
    """Give the CRC-32 of a body, made in slices.

    Of a long text zlib gives up the interpreter's lock, and taking it back from a busy event loop takes longer than the
    checksum of a common mail does.
    """
    checksum = 0
    for piece in body:
        if len(piece) > _SLICED:
            checksum = crc32(piece, checksum)
        else:
            with memoryview(piece) as view:
                for at in range(0, len(view), _SLICE):
                    checksum = crc32(view[at : at + _SLICE], checksum)
    return checksum


def segment_path(folder: Path, segment: int) -> Path:
    """Give the path of a segment's file."""
    return folder / f"{segment:08d}.seg"


def segment_files(folder: Path) -> dict[int, Path]:
    """Give the segment files in a folder by id; other files there are not ours and left alone."""
    found = ((_NAME.fullmatch(entry.name), entry) for entry in sorted(folder.iterdir()))
    return {int(match[1]): entry for match, entry in found if match is not None}


def pack_header(segment: int, offset: int, message_id: int, size: int, body_checksum: int) -> bytes:
    """Give the header of a record for its place."""
    head = _HEAD.pack(_MAGIC, size, message_id, body_checksum)
    return head + _CHECK.pack(crc32(head, crc32(_PLACE.pack(segment, offset))))


def unpack_header(header: bytes | bytearray | memoryview, segment: int, offset: int) -> tuple[int, int, int] | None:
    """Give size, message id and body checksum; None when it is no header that was written for this place."""
    head = bytes(header[: _HEAD.size])
    (check,) = _CHECK.unpack_from(header, _HEAD.size)
    magic, size, message_id, body_checksum = _HEAD.unpack(head)
    if magic != _MAGIC or check != crc32(head, crc32(_PLACE.pack(segment, offset))):
        return None
    return size, message_id, body_checksum


@dataclass(frozen=True, slots=True)
class Record:
    """What `scan` found at an offset. Where `ok` is false, the body is damaged or cut off; with message id 0, the
    header too, and `size` is the whole damaged stretch.
    """

    offset: int
    message_id: int
    size: int
    ok: bool


def scan(path: Path) -> Iterator[Record]:
    """Walk the records of a segment file, over damage to the next header that was written for its place.

    Linear in the file's length whatever it holds. Raises OSError.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path.name} is not the name of a segment file")
    segment = int(match[1])
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < length:
            file.seek(offset)
            header = file.read(HEADER_SIZE)
            found = unpack_header(header, segment, offset) if len(header) == HEADER_SIZE else None
            if found is None:
                end = _next_header(file, segment, offset + 1, length)
                yield Record(offset, 0, end - offset, ok=False)
                offset = end
                continue
            size, message_id, checksum = found
            yield Record(offset, message_id, size, ok=body_fits(file, size, checksum))
            offset += HEADER_SIZE + size


def body_fits(file: BinaryIO, size: int, checksum: int) -> bool:
    """Check the body from the file's position on, in bounded memory."""
    value = 0
    while size:
        data = file.read(min(size, _CHUNK))
        if not data:
            return False
        value = crc32(data, value)
        size -= len(data)
    return value == checksum


def _next_header(file: BinaryIO, segment: int, start: int, length: int) -> int:
    """Give the offset of the first sound header from `start` on, else the length of the file."""
    while start < length:
        file.seek(start)
        data = file.read(_CHUNK + HEADER_SIZE)
        at = data.find(_MAGIC)
        while at >= 0:
            header = data[at : at + HEADER_SIZE]
            if len(header) == HEADER_SIZE and unpack_header(header, segment, start + at) is not None:
                return start + at
            at = data.find(_MAGIC, at + 1)
        start += _CHUNK
    return length
