"""A connection to the control socket: aiohttp's protocol with our limits, and our answers where aiohttp has its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import LineTooLong

from mtactl.control.answers import PROBLEM, answer_problem, encode
from mtactl.control.problems import ProblemKind, Refusal

__all__ = ["Door", "open_connection"]

_MOST_HEADER = 8190  # bytes a field; the request line too
_MOST_HEADERS = 64
_IDLE_TIME = 75.0  # seconds between requests, and for the head of one
_LINGER_TIME = 1.0  # seconds for which what the client writes is still taken after a refusal, so that it reads it

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def _turned_away() -> bytes:
    refusal = Refusal(ProblemKind.BUSY, "Too many connections are open.")
    body = encode(refusal.document) + b"\n"
    head = (
        f"HTTP/1.1 {refusal.kind.status} Service Unavailable\r\n"
        f"Content-Type: {PROBLEM}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


_TURNED_AWAY = _turned_away()


class Door(asyncio.Protocol):
    """The protocol of a connection until it is let in, or for the moment in which it is turned away.

    `turned_away` holds those that have their refusal and are not yet closed; so many may be `lingering` there.
    """

    def __init__(
        self,
        admit: Callable[[asyncio.Transport, Door], None],
        turned_away: set[asyncio.Transport],
        *,
        lingering: int,
    ) -> None:
        self._admit = admit
        self._turned_away = turned_away
        self._lingering = lingering
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have it decided."""
        self._admit(cast("asyncio.Transport", transport), self)  # uvloop's transports are no subclass

    def turn_away(self, transport: asyncio.Transport) -> None:
        """Say that there are too many. A client that writes before it reads gets a moment to come to the answer."""
        transport.write(_TURNED_AWAY)
        if len(self._turned_away) >= self._lingering:
            transport.close()
            return
        self._transport = transport
        self._turned_away.add(transport)
        transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_TIME, transport.close)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Forget it."""
        if self._transport is not None:
            self._turned_away.discard(self._transport)


def open_connection(server: web.Server) -> web.RequestHandler:
    """Make the protocol of a connection that is let in."""
    return _Connection(
        server,
        loop=asyncio.get_running_loop(),
        keepalive_timeout=_IDLE_TIME,
        tcp_keepalive=False,
        access_log_class=_NoAccessLog,
        max_line_size=_MOST_HEADER,
        max_field_size=_MOST_HEADER,
        max_headers=_MOST_HEADERS,
        lingering_time=_LINGER_TIME,
        auto_decompress=False,
    )


class _NoAccessLog(AbstractAccessLogger):
    """Reads are not logged; what changes something is, by the server itself."""

    @property
    def enabled(self) -> bool:
        return False

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log nothing."""


class _Connection(web.RequestHandler):
    """Says in a problem document what aiohttp would say in plain text: that a request is not HTTP."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer to what could not be parsed, and close."""
        if request.writer.output_size > 0:
            raise ConnectionResetError("the answer had begun")
        if isinstance(exc, LineTooLong):
            refusal = Refusal(ProblemKind.HEADERS_TOO_LARGE, f"A line has more than {_MOST_HEADER} bytes.")
        elif status < 500:
            refusal = Refusal(ProblemKind.BAD_REQUEST, f"That is not HTTP/1.1: {message or exc}")
        else:
            log.error("control_connection_failed", exc_info=exc)
            refusal = Refusal(ProblemKind.INTERNAL, "The daemon's log says why.")
        response = answer_problem(refusal)
        response.force_close()
        return response
