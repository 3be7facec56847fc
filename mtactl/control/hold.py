"""POST /v1/campaigns/{campaign}/hold and …/release: the reversible pair."""

from __future__ import annotations

from aiohttp import web

from mtactl.control.answers import answer
from mtactl.control.problems import ProblemKind
from mtactl.control.route import Call, Route
from mtactl.control.types import CampaignReport

__all__ = ["ROUTES"]


async def hold_campaign(call: Call) -> web.StreamResponse:
    """Hold the campaign and answer with its report."""
    return answer(await call.node.hold(call.name, by=call.by))


async def release_campaign(call: Call) -> web.StreamResponse:
    """Release the campaign and answer with its report."""
    return answer(await call.node.release(call.name, by=call.by))


ROUTES = (
    Route(
        name="hold",
        method="POST",
        path="/v1/campaigns/{campaign}/hold",
        summary="Hold a campaign, known or not: nothing of it begins, nothing is dropped.",
        handle=hold_campaign,
        answer=CampaignReport,
        problems=(ProblemKind.BAD_CAMPAIGN, ProblemKind.ILLEGAL_MOVE),
    ),
    Route(
        name="release",
        method="POST",
        path="/v1/campaigns/{campaign}/release",
        summary="Release a campaign that is held; one that is active stays as it is.",
        handle=release_campaign,
        answer=CampaignReport,
        problems=(ProblemKind.BAD_CAMPAIGN, ProblemKind.UNKNOWN_CAMPAIGN, ProblemKind.ILLEGAL_MOVE),
    ),
)
