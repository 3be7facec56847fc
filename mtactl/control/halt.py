"""POST /v1/campaigns/{campaign}/halt: nothing of the campaign begins on this node again, ever.

Between the request and `Node.halt` nothing is awaited but the octets of the request itself.
"""

from __future__ import annotations

from aiohttp import web

from mtactl.control.answers import answer
from mtactl.control.problems import ProblemKind, Refusal
from mtactl.control.route import Call, Route
from mtactl.control.types import CampaignReport, HaltBody
from queue_store.errors import StoreError

__all__ = ["ROUTES"]


async def halt_campaign(call: Call) -> web.StreamResponse:
    """Halt the campaign and answer with its report as soon as the halt is durable."""
    body = call.given(HaltBody)
    if body.confirm is None:
        raise Refusal(ProblemKind.NOT_CONFIRMED, "`confirm` is missing: it must be the campaign's id again.")
    if body.confirm != call.name:
        detail = f"`confirm` is {body.confirm!r}, but the campaign is {call.name!r}. Nothing was halted."
        raise Refusal(ProblemKind.NOT_CONFIRMED, detail)
    try:
        report = await call.node.halt(call.name, reason=body.reason, by=call.by)
    except StoreError as error:
        detail = (
            f"The halt of {call.name} could not be made durable: {error}. The gate is closed: nothing of the campaign "
            "begins until the daemon stops. A restart would forget it, so halt again once the store has recovered."
        )
        raise Refusal(ProblemKind.NOT_DURABLE, detail) from error
    return answer(report)


ROUTES = (
    Route(
        name="halt",
        method="POST",
        path="/v1/campaigns/{campaign}/halt",
        summary="Halt a campaign, known or not, for ever. Answers as soon as the halt is durable.",
        handle=halt_campaign,
        body=HaltBody,
        body_rule={"required": ["confirm"], "properties": {"confirm": {"type": "string"}}},
        answer=CampaignReport,
        problems=(ProblemKind.BAD_CAMPAIGN, ProblemKind.NOT_CONFIRMED, ProblemKind.NOT_DURABLE),
    ),
)
