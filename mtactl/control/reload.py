"""POST /v1/reload: read the configuration again. A bad file changes nothing and says why."""

from __future__ import annotations

from aiohttp import web

from mtactl.control.answers import answer
from mtactl.control.problems import ProblemKind
from mtactl.control.route import Call, Route
from mtactl.control.types import ReloadReport

__all__ = ["ROUTES"]


async def reload_configuration(call: Call) -> web.StreamResponse:
    """Answer with what was applied and what needs a restart."""
    return answer(await call.node.reload(by=call.by))


ROUTES = (
    Route(
        name="reload",
        method="POST",
        path="/v1/reload",
        summary="Read the configuration again.",
        handle=reload_configuration,
        answer=ReloadReport,
        problems=(ProblemKind.BAD_CONFIGURATION,),
    ),
)
