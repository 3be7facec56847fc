"""GET /v1/events: what happens, as server-sent events (the WHATWG HTML standard, section "Server-sent events").

Each event has its number as `id:`, its kind as `event:`, and all of it as JSON in `data:`. A reader that comes back
with `Last-Event-ID` gets first what it missed, as far as it is remembered. A comment now and then keeps the line alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

from aiohttp import web

from mtactl.control.answers import EVENTS, Outflow, encode, end_iteration
from mtactl.control.parameters import Flag
from mtactl.control.problems import ProblemKind, Refusal
from mtactl.control.route import Call, Route
from mtactl.control.types import Event

__all__ = ["ROUTES", "frame"]

_NUMBER = "[0-9]{0,18}"
_HELLO = b"retry: 2000\n\n"
_ALIVE = b": alive\n\n"
_LOOK = 1.0  # seconds; how soon it is noticed that a reader went away while nothing happened


async def stream_events(call: Call) -> web.StreamResponse:
    """Stream events: those to come, or the latest ones and an end."""
    after = _last_seen(call)
    out = Outflow(call.request, EVENTS, headers={"Cache-Control": "no-cache"})
    if not call.query["follow"]:
        events = [event for event in call.node.recent_events() if after is None or event.id > after]
        async with out:
            await out.write(_HELLO)
            for event in events:
                await out.write(frame(event))
        return out.response
    coming = call.node.follow_events(after, outcomes=call.query["outcomes"])
    try:
        async with out, asyncio.TaskGroup() as group:
            begun = asyncio.Event()
            pump = group.create_task(_pump(coming, out, begun))
            with call.streaming(pump.cancel), contextlib.suppress(ConnectionError):
                await asyncio.sleep(0)  # it listens before the reader is told so
                await out.write(_HELLO)
                begun.set()
                await _watch(pump, out, call.keep_alive)
            pump.cancel()
    finally:
        await end_iteration(coming)
    return out.response


async def _pump(coming: AsyncIterator[Event], out: Outflow, begun: asyncio.Event) -> None:
    with contextlib.suppress(ConnectionError):
        async for event in coming:
            await begun.wait()
            await out.write(frame(event))


async def _watch(pump: asyncio.Task[None], out: Outflow, keep_alive: float) -> None:
    """Return when the stream has ended or its reader is gone; write a comment whenever `keep_alive` seconds passed."""
    loop = asyncio.get_running_loop()
    due = loop.time() + keep_alive
    while not out.gone:
        ended, _ = await asyncio.wait({pump}, timeout=min(_LOOK, keep_alive))
        if ended:
            return
        if loop.time() >= due:
            await out.write(_ALIVE)
            due = loop.time() + keep_alive


def _last_seen(call: Call) -> int | None:
    given = call.request.headers.get("Last-Event-ID", "").strip()
    if not given:
        return None
    if not re.fullmatch(_NUMBER, given):
        raise Refusal(ProblemKind.BAD_REQUEST, f"Last-Event-ID is {given!r}, which is not the id of an event.")
    return int(given)


def frame(event: Event) -> bytes:
    """Give an event as it goes over the wire."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.kind.encode(), encode(event))


ROUTES = (
    Route(
        name="events",
        method="GET",
        path="/v1/events",
        summary="What happens, as server-sent events.",
        handle=stream_events,
        parameters=(
            Flag(name="follow", about="Go on with what is to come; otherwise the latest and an end.", otherwise=True),
            Flag(name="outcomes", about="With what became of each recipient: thousands a second.", otherwise=True),
        ),
        headers=(("Last-Event-ID", "The id of the last event that was seen: those after it come first.", _NUMBER),),
        media=(EVENTS,),
        item=Event,
    ),
)
