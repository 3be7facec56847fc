"""GET /v1/campaigns, GET /v1/campaigns/{campaign}, its analysis, and GET /v1/campaign-ids: the reports."""

from __future__ import annotations

from heapq import nsmallest
from typing import get_args

from aiohttp import web

from mtactl.control.answers import answer, answer_rows
from mtactl.control.parameters import CAMPAIGN_PATTERN, MOST_ROWS, Choice, Choices, Number, Text
from mtactl.control.problems import ProblemKind, Refusal
from mtactl.control.route import Call, Route
from mtactl.control.types import (
    CampaignAnalysis,
    CampaignIds,
    CampaignList,
    CampaignOrder,
    CampaignReport,
    CampaignState,
)

__all__ = ["ROUTES"]

_IDS = 1000
_MOST_IDS = 10_000


async def list_campaigns(call: Call) -> web.StreamResponse:
    """Answer with the reports of the campaigns that fit."""
    asked = call.query
    reports, total = await call.node.campaigns(
        asked["state"], match=asked["match"] or "", sort=asked["sort"], limit=asked["limit"]
    )
    return await answer_rows(call.request, "campaigns", reports, total=total)


async def list_ids(call: Call) -> web.StreamResponse:
    """Answer with ids of campaigns: what a shell completes, and what a mistyped one may have meant."""
    limit: int = call.query["limit"]
    start: str = call.query["prefix"] or ""
    found = nsmallest(
        limit + 1, (name for name in call.node.campaign_ids(call.query["state"]) if name.startswith(start))
    )
    return answer(CampaignIds(campaigns=tuple(found[:limit]), truncated=len(found) > limit))


async def show_campaign(call: Call) -> web.StreamResponse:
    """Answer with one campaign's report."""
    return answer(call.node.report(call.name))


async def analyse_campaign(call: Call) -> web.StreamResponse:
    """Answer with what became of one campaign. For one who has hung up, nothing is counted to the end."""
    transport = call.request.transport
    made = await call.node.analysis(call.name, wanted=lambda: transport is not None and not transport.is_closing())
    if made is None:
        raise Refusal(ProblemKind.BUSY, "Nobody waits for the answer any more.")
    return answer(made)


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
    Route(
        name="analysis",
        method="GET",
        path="/v1/campaigns/{campaign}/analysis",
        summary="What became of a campaign: when, where to, and with which replies. It may take a while: half a minute "
        "for some millions of recipients.",
        handle=analyse_campaign,
        answer=CampaignAnalysis,
        problems=(ProblemKind.BAD_CAMPAIGN, ProblemKind.UNKNOWN_CAMPAIGN),
    ),
    Route(
        name="campaign_ids",
        method="GET",
        path="/v1/campaign-ids",
        summary="The ids of campaigns alone, by name.",
        handle=list_ids,
        parameters=(
            Text(name="prefix", about="Only ids that begin so.", pattern=CAMPAIGN_PATTERN),
            Choices(
                name="state",
                about="Only campaigns in these states; repeated, or with commas between them.",
                words=get_args(CampaignState),
            ),
            Number(name="limit", about="How many at most.", least=1, most=_MOST_IDS, otherwise=_IDS),
        ),
        answer=CampaignIds,
    ),
)
