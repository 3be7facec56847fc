"""GET /v1/campaigns and GET /v1/campaigns/{campaign}: the reports."""

from __future__ import annotations

from typing import get_args

from aiohttp import web

from mtactl.control.answers import answer, answer_rows
from mtactl.control.parameters import Choice
from mtactl.control.problems import ProblemKind
from mtactl.control.route import Call, Route
from mtactl.control.types import CampaignList, CampaignReport, CampaignState

__all__ = ["ROUTES"]


async def list_campaigns(call: Call) -> web.StreamResponse:
    """Answer with a report for each campaign."""
    return await answer_rows(call.request, "campaigns", call.node.campaigns(call.query["state"]))


async def show_campaign(call: Call) -> web.StreamResponse:
    """Answer with one campaign's report."""
    return answer(call.node.report(call.name))


ROUTES = (
    Route(
        name="campaigns",
        method="GET",
        path="/v1/campaigns",
        summary="A report for each campaign, by name.",
        handle=list_campaigns,
        parameters=(Choice(name="state", about="Only campaigns in this state.", words=get_args(CampaignState)),),
        answer=CampaignList,
    ),
    Route(
        name="campaign",
        method="GET",
        path="/v1/campaigns/{campaign}",
        summary="The report of a campaign: its counts, and the facts and steps of its halt.",
        handle=show_campaign,
        answer=CampaignReport,
        problems=(ProblemKind.BAD_CAMPAIGN, ProblemKind.UNKNOWN_CAMPAIGN),
    ),
)
