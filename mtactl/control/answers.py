"""Answers: JSON documents, problem documents, and streams that mind a slow or vanished reader."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
import structlog
from aiohttp import web

from mtactl.control.problems import Refusal

__all__ = [
    "EVENTS",
    "JSON",
    "PROBLEM",
    "Outflow",
    "answer",
    "answer_problem",
    "answer_rows",
    "encode",
    "end_iteration",
    "escape_unprintable",
]

JSON = "application/json"
PROBLEM = "application/problem+json"
EVENTS = "text/event-stream"

_STALL = 60.0  # seconds that a reader may take no octet at all before it is cut off
_ROWS = 500  # rows encoded in one go, a millisecond or so

# DEL, C1 controls, line and paragraph separators, and marks that turn the direction of writing. JSON leaves them as
# they are, and a terminal would act on them. In UTF-8 none of these sequences starts inside another character.
_UNPRINTABLE = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def escape_unprintable(text: bytes) -> bytes:
    r"""Write what JSON would leave unprintable as \uXXXX, in a text that is JSON already."""
    return _UNPRINTABLE.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), text)


def encode(value: Any) -> bytes:
    """Give the value as JSON in one line, with no control character in it."""
    return escape_unprintable(msgspec.json.encode(value))


def answer(value: Any) -> web.Response:
    """Answer with a JSON document."""
    return web.Response(body=encode(value) + b"\n", content_type=JSON)


def answer_problem(refusal: Refusal) -> web.Response:
    """Answer with a problem document (RFC 9457)."""
    return web.Response(
        body=encode(refusal.document) + b"\n",
        status=refusal.kind.status,
        content_type=PROBLEM,
        headers=refusal.headers,
    )


async def answer_rows(
    request: web.BaseRequest, name: str, rows: Sequence[msgspec.Struct], **more: Any
) -> web.StreamResponse:
    """Answer with `{"name": [rows], **more}`, encoded a few rows at a time so that nothing else has to wait for it."""
    if len(rows) <= _ROWS:
        return answer({name: rows[:], **more})  # a slice is a list, whatever the sequence
    async with Outflow(request, JSON) as out:
        for start in range(0, len(rows), _ROWS):
            head = b"," if start else b'{"%s":[' % name.encode()
            await out.write(head + encode(rows[start : start + _ROWS])[1:-1])
        tail = b"".join(b',"%s":%s' % (key.encode(), encode(value)) for key, value in more.items())
        await out.write(b"]" + tail + b"}\n")
    return out.response


async def end_iteration(pages: AsyncIterator[object]) -> None:
    """End an iteration that may not have come to its end, so that it lets go of what it holds now."""
    if (aclose := getattr(pages, "aclose", None)) is not None:
        await aclose()


class Outflow:
    """An answer that is written piece by piece. It begins with the first piece.

    A failure after that can't be told in the protocol any more: the connection is then cut before the end of the
    chunked body, so that no one takes the piece for the whole.
    """

    def __init__(self, request: web.BaseRequest, media: str, *, headers: dict[str, str] | None = None) -> None:
        self.response = web.StreamResponse(headers={"Content-Type": media, **(headers or {})})
        self._request = request

    @property
    def gone(self) -> bool:
        """Whether the reader has closed the connection."""
        transport = self._request.transport
        return transport is None or transport.is_closing()

    async def write(self, piece: bytes) -> None:
        """Write a piece, and wait while the reader is behind. Raises ConnectionError when it is gone or stalls."""
        try:
            async with asyncio.timeout(_STALL):
                if not self.response.prepared:
                    await self.response.prepare(self._request)
                await self.response.write(piece)
        except TimeoutError:
            raise ConnectionResetError(f"the reader took nothing for {_STALL:g} s") from None
        await asyncio.sleep(0)  # a reader that keeps up would otherwise keep the loop for itself

    def cut(self) -> None:
        """Close the connection at once, in the middle of whatever it is in."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or not self.response.prepared or not isinstance(error, Exception):
            return False
        if not isinstance(error, ConnectionError):
            log.error("control_stream_broken", path=self._request.path, exc_info=error)
        self.cut()
        return True
