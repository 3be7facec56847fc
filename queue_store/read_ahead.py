"""Reads of records that lie one behind the other in a segment, several in one call.

A lane takes its recipients in the order in which they came, and so mostly reads where it left off. Each read gives up
the interpreter's lock, and a busy committer takes a while to give it back: a call for a dozen records saves eleven such
waits. What was read ahead is kept for the reads that follow, in one block of bounded size.

An octet that was read ahead can be out of date in one way: a commit that failed was rolled back, and something else was
written in its place. Whoever finds a record in the block that is not sound is to `forget` it and read again.
"""

from __future__ import annotations

import os

__all__ = ["ReadAhead"]

_BLOCK = 128 << 10  # octets
_SHORT = _BLOCK // 4  # octets of a record: of longer ones too few fit


class ReadAhead:
    """The latest block. For one thread."""

    __slots__ = ("_block", "_filled", "_next", "_segment", "_start")

    def __init__(self) -> None:
        self._block = bytearray(_BLOCK)
        self._segment = 0
        self._start = 0  # offset in the segment of the block's first octet
        self._filled = 0
        self._next = (0, 0)  # segment and offset behind the record that was read last

    def read(self, fd: int, segment: int, offset: int, length: int) -> memoryview | bytearray | None:
        """Give octets of a segment that are in memory, good until the next call; None where fewer are there.

        Raises BlockingIOError when the disk would have to be waited for, OSError.
        """
        at = offset - self._start
        if segment != self._segment or at < 0 or at + length > self._filled:
            if length > _BLOCK:
                record = bytearray(length)
                return record if os.preadv(fd, (record,), offset, os.RWF_NOWAIT) == length else None
            ahead = length <= _SHORT and (segment, offset) == self._next
            self._filled = 0
            wanted = memoryview(self._block)[: _BLOCK if ahead else length]
            self._filled = os.preadv(fd, (wanted,), offset, os.RWF_NOWAIT)
            self._segment, self._start = segment, offset
            if self._filled < length:
                return None
            at = 0
        self._next = (segment, offset + length)
        return memoryview(self._block)[at : at + length]

    def forget(self) -> None:
        """Let go of the block."""
        self._filled = 0
