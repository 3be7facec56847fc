"""The control server: HTTP/1.1 on the control socket (CONTRACT.md §4).

Every request goes the same way: who calls (the kernel says), which route, the query, the body, the handler; whatever
goes wrong on it is answered with a problem document. There is no thread and no lock on this way, so a halt waits for
nothing but the loop and the store.

A part of the connections is kept for operators: observers and strangers that take all they can get don't lock out the
one who wants to halt.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from aiohttp import web

from mtactl.control.answers import answer_problem
from mtactl.control.connection import Door, open_connection
from mtactl.control.listener import Listener
from mtactl.control.node import Node
from mtactl.control.parameters import read_query
from mtactl.control.peers import Caller, Doorkeeper, Role, read_peer
from mtactl.control.problems import ProblemKind, Refusal, refusal_of
from mtactl.control.route import Call, Route
from mtactl.control.router import Router
from mtactl.control.types import NoBody
from mtactl.settings import ControlSettings

__all__ = ["ControlServer"]

_MOST_CONNECTIONS = 256
_FOR_OPERATORS = 64  # of them
_LINGERING = 64  # more, that were turned away and have a moment to come to the answer
_MOST_BODY = 64 << 10  # bytes
_BODY_TIME = 30.0  # seconds
_STOP_TIME = 5.0  # seconds that requests under way get at the end

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class ControlServer:
    """Serves a node on its control socket.

    `listening` is a socket that is open already (from the service manager) and replaces the one of the settings.
    `keep_alive` is in seconds, between two signs of life on an event stream. `most` is how many connections there may
    be, `backlog` how many may wait to be accepted.
    """

    def __init__(
        self,
        node: Node,
        settings: ControlSettings,
        *,
        listening: socket.socket | None = None,
        keep_alive: float = 15.0,
        most: int = _MOST_CONNECTIONS,
        backlog: int = _MOST_CONNECTIONS,
    ) -> None:
        self._node = node
        self._settings = settings
        self._listening = listening
        self._keep_alive = keep_alive
        self._most = most
        self._backlog = backlog
        self._router = Router()
        self._doorkeeper = Doorkeeper(operators=(), observers=())
        self._streams: set[Callable[[], object]] = set()
        self._turned_away: set[asyncio.Transport] = set()
        self._stopping = False
        self._listener: Listener | None = None
        self._accepting: asyncio.Server | None = None
        self._web: web.Server | None = None

    async def start(self) -> None:
        """Listen. Raises ControlSocketError."""
        settings = self._settings
        self._doorkeeper = Doorkeeper(operators=settings.operators, observers=settings.observers)
        if self._listening is None:
            self._listener = Listener.bind(
                settings.socket, mode=settings.mode, groups=settings.operators, backlog=self._backlog
            )
        else:
            self._listener = Listener(self._listening)
        self._stopping = False
        loop = asyncio.get_running_loop()
        self._web = web.Server(self._answer)
        # Python 3.13 would remove the socket's file by itself, also one that belongs to the service manager.
        options: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        self._accepting = await loop.create_unix_server(
            lambda: Door(self._admit, self._turned_away, lingering=min(_LINGERING, self._most // 4)),
            sock=self._listener.socket,
            backlog=min(self._backlog, 128),
            **options,
        )
        log.info("control_listening", path=str(self._listener.socket.getsockname()))

    def change(self, settings: ControlSettings) -> None:
        """Serve other operators and observers from the next request on; of the socket only the group changes."""
        self._doorkeeper = Doorkeeper(operators=settings.operators, observers=settings.observers)
        if self._listener is not None:
            self._listener.change(settings.operators)

    async def stop(self) -> None:
        """Stop listening, end the streams, give commands under way a few seconds, remove the socket's file."""
        if self._accepting is None or self._web is None or self._listener is None:
            return
        self._stopping = True
        self._listener.remove()
        self._accepting.close()
        for end in tuple(self._streams):
            end()
        await asyncio.sleep(0)
        self._web.pre_shutdown()
        await self._web.shutdown(_STOP_TIME)
        for transport in tuple(self._turned_away):
            transport.abort()
        await self._accepting.wait_closed()
        self._accepting = self._web = self._listener = None

    def _admit(self, transport: asyncio.Transport, door: Door) -> None:
        """Give a new connection its protocol, or turn it away when there are too many."""
        assert self._web is not None
        open_now = len(self._web.connections)
        most = min(self._most, _MOST_CONNECTIONS)
        if open_now >= most - min(_FOR_OPERATORS, max(1, most // 3)):
            role = self._doorkeeper.recognise(read_peer(transport.get_extra_info("socket"))).role
            if open_now >= most or role is not Role.OPERATOR:
                if not self._turned_away:
                    log.warning("control_too_many_connections", connections=open_now)
                door.turn_away(transport)
                return
        connection = open_connection(self._web)
        transport.set_protocol(connection)
        connection.connection_made(transport)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, come what may."""
        try:
            return await self._handle(request)
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None:
                log.exception("control_request_failed", method=request.method, target=request.raw_path)
                refusal = Refusal(ProblemKind.INTERNAL, "The daemon's log says why.")
            response = answer_problem(refusal)
            if refusal.kind in {ProblemKind.TOO_SLOW, ProblemKind.TOO_LARGE, ProblemKind.BUSY}:
                response.force_close()  # what is left of the request is not worth reading
            return response

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._stopping or request.transport is None:
            raise Refusal(ProblemKind.BUSY, "The daemon is stopping.")
        caller = self._doorkeeper.recognise(read_peer(request.transport.get_extra_info("socket")))
        _permit(caller, request, self._settings, reading=True)
        match = self._router.match(request.method, request.raw_path)
        route = match.route
        _permit(caller, request, self._settings, reading=not route.changes)
        query = read_query(match.query, route.parameters)
        body = await _read_body(request, route) if route.changes else NoBody()
        call = Call(
            node=self._node,
            request=request,
            caller=caller,
            name=match.name,
            query=query,
            body=body,
            streams=self._streams,
            keep_alive=self._keep_alive,
        )
        return await (_logged(call, route) if route.changes else route.handle(call))


def _permit(caller: Caller, request: web.BaseRequest, settings: ControlSettings, *, reading: bool) -> None:
    """Let the caller pass, or raise Refusal."""
    if caller.role >= (Role.OBSERVER if reading else Role.OPERATOR):
        return
    log.warning(
        "control_denied",
        method=request.method,
        target=request.raw_path,
        uid=caller.peer.uid,
        user=caller.by.user,
        pid=caller.peer.pid,
    )
    setting = "control.operators or control.observers" if reading else "control.operators"
    groups = (*settings.operators, *settings.observers) if reading else settings.operators
    named = f" ({', '.join(groups)})" if groups else ", which has none"
    detail = f"User {caller.by.user} (uid {caller.peer.uid}) is in none of the groups of {setting}{named}."
    raise Refusal(ProblemKind.FORBIDDEN, detail)


async def _read_body(request: web.BaseRequest, route: Route) -> msgspec.Struct:
    """Read the JSON body, whatever type it is said to have: `curl -d` says it is a form. No body is an empty object."""
    try:
        async with asyncio.timeout(_BODY_TIME):
            octets = await _read_octets(request)
    except TimeoutError:
        raise Refusal(ProblemKind.TOO_SLOW, f"The body was not there within {_BODY_TIME:g} s.") from None
    except web.RequestPayloadError as error:
        raise Refusal(ProblemKind.BAD_REQUEST, f"The body can't be read: {error}.") from error
    try:
        return msgspec.json.decode(octets.strip() or b"{}", type=route.body)
    except msgspec.ValidationError as error:
        raise Refusal(ProblemKind.BAD_BODY, f"{error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(ProblemKind.BAD_REQUEST, f"The body is not JSON: {error}.") from error


async def _read_octets(request: web.BaseRequest) -> bytes:
    too_large = Refusal(ProblemKind.TOO_LARGE, f"The body has more than {_MOST_BODY} bytes.")
    if (request.content_length or 0) > _MOST_BODY:
        raise too_large
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # it is not yet the answer
    octets = bytearray()
    async for piece in request.content.iter_any():
        octets += piece
        if len(octets) > _MOST_BODY:
            raise too_large
    return bytes(octets)


async def _logged(call: Call, route: Route) -> web.StreamResponse:
    """Do what changes something, and log who asked, before and after."""
    facts = {name: value for name, value in msgspec.structs.asdict(call.body).items() if value is not None}
    facts.pop("confirm", None)
    if call.name:
        facts["campaign"] = call.name
    facts |= {"command": route.name, "uid": call.by.uid, "user": call.by.user, "pid": call.caller.peer.pid}
    log.info("control_command_asked", **facts)
    try:
        response = await route.handle(call)
    except Exception as error:
        log.warning("control_command_refused", why=str(error), **facts)
        raise
    log.info("control_command_done", **facts)
    return response
