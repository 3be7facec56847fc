"""GET /v1/status: the node at a glance."""

from __future__ import annotations

from aiohttp import web

from mtactl.control.answers import answer
from mtactl.control.route import Call, Route
from mtactl.control.types import Status

__all__ = ["ROUTES"]


async def show_status(call: Call) -> web.StreamResponse:
    """Answer with the node's status."""
    return answer(call.node.status())


ROUTES = (
    Route(
        name="status",
        method="GET",
        path="/v1/status",
        summary="The node at a glance: totals, health, lanes in back-off.",
        handle=show_status,
        answer=Status,
    ),
)
