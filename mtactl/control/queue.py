"""GET /v1/queue, GET /v1/queue/{message}, POST /v1/queue/retry and POST /v1/queue/drop: the queue itself."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from aiohttp import web

from mtactl.control.answers import answer, answer_rows
from mtactl.control.parameters import CAMPAIGN_PATTERN, Choice, Number, Text, is_campaign
from mtactl.control.problems import ProblemKind, Refusal
from mtactl.control.route import Call, Route
from mtactl.control.types import QueueChanged, QueueList, QueueMessage, QueueSelection, QueueState
from mtactl.message.queue_id import QUEUE_ID_PATTERN, decode, encode

__all__ = ["ROUTES"]

_LIMIT = 1000
_MOST = 100_000

# What `_check` asks of a selection, and `drop_queue`, in JSON Schema.
_SELECTION_RULE: dict[str, Any] = {
    "properties": {
        "campaign": {"pattern": f"^{CAMPAIGN_PATTERN}$"},
        "domain": {"minLength": 1},
        "id": {"pattern": f"^{QUEUE_ID_PATTERN}$"},
    }
}
_ONE_OF_THEM = [
    {"required": [name], "properties": {name: {"type": "string"}}} for name in QueueSelection.__struct_fields__
]


async def list_queue(call: Call) -> web.StreamResponse:
    """Answer with recipients that wait or are in flight, the oldest first."""
    query = call.query
    limit: int = query["limit"]
    rows = await call.node.queue(
        campaign=query["campaign"], domain=query["domain"], state=query["state"], limit=limit + 1
    )
    return await answer_rows(call.request, "recipients", rows[:limit], truncated=len(rows) > limit)


async def show_message(call: Call) -> web.StreamResponse:
    """Answer with one message."""
    message = None
    if (queue_id := _canonical(call.name)) is not None:
        message = await call.node.message(queue_id)
    if message is None:
        raise Refusal(ProblemKind.UNKNOWN_MESSAGE, f"No message {call.name!r} is in the queue or remembered.")
    return answer(message)


async def retry_queue(call: Call) -> web.StreamResponse:
    """Make the deferred recipients that are meant ready now."""
    return answer(await call.node.retry(_check(call.given(QueueSelection)), by=call.by))


async def drop_queue(call: Call) -> web.StreamResponse:
    """Drop the queued recipients that are meant."""
    selection = _check(call.given(QueueSelection))
    if selection == QueueSelection():
        detail = "A drop needs one of `campaign`, `domain`, `sender` and `id` at least."
        raise Refusal(ProblemKind.BAD_BODY, detail)
    return answer(await call.node.drop(selection, by=call.by))


def _check(selection: QueueSelection) -> QueueSelection:
    """Give the selection in its canonical form. What is empty by mistake must not come to mean everything."""
    if selection.campaign is not None and not is_campaign(selection.campaign):
        raise Refusal(ProblemKind.BAD_BODY, f"`campaign`: {selection.campaign!r} is not a campaign id.")
    if selection.domain == "":
        raise Refusal(ProblemKind.BAD_BODY, "`domain` is empty.")
    queue_id = None
    if selection.id is not None and (queue_id := _canonical(selection.id)) is None:
        raise Refusal(ProblemKind.BAD_BODY, f"`id`: {selection.id!r} is not a queue id.")
    return msgspec.structs.replace(
        selection,
        domain=None if selection.domain is None else selection.domain.lower(),
        sender="" if selection.sender == "<>" else selection.sender,  # the empty reverse-path, RFC 5321 §4.5.5
        id=queue_id,
    )


def _canonical(queue_id: str) -> str | None:
    try:
        return encode(decode(queue_id))
    except ValueError:
        return None


ROUTES = (
    Route(
        name="queue",
        method="GET",
        path="/v1/queue",
        summary="Recipients that wait or are in flight, the oldest first.",
        handle=list_queue,
        parameters=(
            Text(name="campaign", about="Only this campaign.", pattern=CAMPAIGN_PATTERN),
            Text(name="domain", about="Only this lane.", fold=True),
            Choice(name="state", about="Only this state.", words=get_args(QueueState)),
            Number(name="limit", about="How many at most.", least=1, most=_MOST, otherwise=_LIMIT),
        ),
        answer=QueueList,
    ),
    Route(
        name="message",
        method="GET",
        path="/v1/queue/{message}",
        summary="One message: its recipients that wait and those that have an outcome.",
        handle=show_message,
        answer=QueueMessage,
        problems=(ProblemKind.UNKNOWN_MESSAGE,),
    ),
    Route(
        name="retry",
        method="POST",
        path="/v1/queue/retry",
        summary="Make deferred recipients ready now, all of them or those that fit.",
        handle=retry_queue,
        body=QueueSelection,
        body_rule=_SELECTION_RULE,
        answer=QueueChanged,
    ),
    Route(
        name="drop",
        method="POST",
        path="/v1/queue/drop",
        summary="Drop queued recipients that fit. What is in flight is not touched.",
        handle=drop_queue,
        body=QueueSelection,
        body_rule={**_SELECTION_RULE, "anyOf": _ONE_OF_THEM},
        answer=QueueChanged,
    ),
)
