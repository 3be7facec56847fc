"""GET /v1/lanes: the destinations."""

from __future__ import annotations

from typing import get_args

from aiohttp import web

from mtactl.control.answers import answer_rows
from mtactl.control.parameters import MOST_ROWS, Choice, Number, Text
from mtactl.control.route import Call, Route
from mtactl.control.types import LaneList, LaneOrder

__all__ = ["ROUTES"]


async def list_lanes(call: Call) -> web.StreamResponse:
    """Answer with the destinations in memory that fit."""
    asked = call.query
    rows, total = call.node.lanes(asked["lane"], match=asked["match"] or "", sort=asked["sort"], limit=asked["limit"])
    return await answer_rows(call.request, "lanes", rows, total=total)


ROUTES = (
    Route(
        name="lanes",
        method="GET",
        path="/v1/lanes",
        summary="Destinations: connections, rate, back-off, last replies.",
        handle=list_lanes,
        parameters=(
            Text(name="lane", about="Only this one.", fold=True),
            Text(name="match", about="Only lanes that have this in their name.", fold=True),
            Choice(
                name="sort",
                about="By name, or those with most of this first; `backoff`: those that are left alone for longest.",
                words=get_args(LaneOrder),
                otherwise="name",
            ),
            Number(name="limit", about="So many rows at most.", least=1, most=MOST_ROWS, otherwise=MOST_ROWS),
        ),
        answer=LaneList,
    ),
)
