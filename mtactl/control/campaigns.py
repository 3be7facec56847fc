"""GET /v1/campaigns and GET /v1/campaigns/{campaign}: the reports."""

from __future__ import annotations

from typing import get_args

from aiohttp import web

from mtactl.control.answers import answer, answer_rows
from mtactl.control.parameters import MOST_ROWS, Choice, Number, Text
from mtactl.control.problems import ProblemKind
from mtactl.control.route import Call, Route
from mtactl.control.types import CampaignList, CampaignOrder, CampaignReport, CampaignState

__all__ = ["ROUTES"]


async def list_campaigns(call: Call) -> web.StreamResponse:
    """Answer with the reports of the campaigns that fit."""
    asked = call.query
    reports, total = await call.node.campaigns(
        asked["state"], match=asked["match"] or "", sort=asked["sort"], limit=asked["limit"]
    )
    return await answer_rows(call.request, "campaigns", reports, total=total)


async def show_campaign(call: Call) -> web.StreamResponse:
    """Answer with one campaign's report."""
    return answer(call.node.report(call.name))


ROUTES = (
    Route(
        name="campaigns",
        method="GET",
        path="/v1/campaigns",
        summary="A report for each campaign that fits.",
        handle=list_campaigns,
        parameters=(
            Choice(name="state", about="Only campaigns in this state.", words=get_args(CampaignState)),
            Text(name="match", about="Only campaigns that have this in their id, in whatever case."),
            Choice(
                name="sort",
                about="By name, or those with most of this count first.",
                words=get_args(CampaignOrder),
                otherwise="name",
            ),
            Number(name="limit", about="So many rows at most.", least=1, most=MOST_ROWS, otherwise=MOST_ROWS),
        ),
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
