"""GET /v1/lanes: the destinations."""

from __future__ import annotations

from aiohttp import web

from mtactl.control.answers import answer_rows
from mtactl.control.parameters import Text
from mtactl.control.route import Call, Route
from mtactl.control.types import LaneList

__all__ = ["ROUTES"]


async def list_lanes(call: Call) -> web.StreamResponse:
    """Answer with the destinations that are in memory, by name."""
    return await answer_rows(call.request, "lanes", call.node.lanes(call.query["lane"]))


ROUTES = (
    Route(
        name="lanes",
        method="GET",
        path="/v1/lanes",
        summary="Destinations: connections, rate, back-off, last replies.",
        handle=list_lanes,
        parameters=(Text(name="lane", about="Only this one.", fold=True),),
        answer=LaneList,
    ),
)
