"""Bodies that have just become durable and are about to be sent: kept in memory for a moment, so that what came in goes
out again without being read back and checked.

Bounded by octets; the oldest are let go of first. Whoever does not find a body here reads it from its segment.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["FreshBodies"]

_LIMIT = 16 << 20  # octets
_LARGEST = 1 << 20  # octets of one body


class FreshBodies:
    """Bodies in wire form by message id. For the event loop's thread."""

    __slots__ = ("_bodies", "_octets")

    def __init__(self) -> None:
        self._bodies: dict[int, bytes] = {}
        self._octets = 0

    def put(self, message_id: int, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Keep a body for a while."""
        size = sum(map(len, pieces))
        if size > _LARGEST:
            return
        self._octets += size
        self._bodies[message_id] = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        while self._octets > _LIMIT:
            self._octets -= len(self._bodies.pop(next(iter(self._bodies))))

    def take(self, message_id: int) -> bytes | None:
        """Give a body if it is here, and keep it no longer."""
        body = self._bodies.pop(message_id, None)
        if body is not None:
            self._octets -= len(body)
        return body
