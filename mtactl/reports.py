"""The core's values as the control API's wire types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

from mtactl.analyst import CampaignAnalysis
from mtactl.campaign.analysis import LaneTally, Timeline
from mtactl.campaign.halt import Halt, HaltStep
from mtactl.campaign.ledger import Account, Final
from mtactl.campaign.state import CampaignState
from mtactl.control import types
from mtactl.core import Core
from mtactl.message import queue_id
from mtactl.observe.log import timestamp
from mtactl.schedule.lane import Lane, LaneState
from queue_store.records import OutcomeRow, QueuedState, QueueRow

__all__ = [
    "campaign_analysis",
    "counts",
    "lane_order",
    "lane_row",
    "maybe_timestamp",
    "queue_recipient",
    "recipient_row",
    "status_line",
    "steps",
    "stop_facts",
]

_LANES = 50  # of an analysis
_REPLIES = 10  # of an outcome


def maybe_timestamp(at: int | None) -> str | None:
    """Give µs since the epoch as RFC 3339, or None for None."""
    return None if at is None else timestamp(at)


def counts(account: Account) -> types.Counts:
    """Give the counts of an account."""
    return types.Counts(**{name: getattr(account, name) for name in types.Counts.__struct_fields__})


def stop_facts(halt: Halt) -> types.StopFacts:
    """Give the facts of a halt."""
    return types.StopFacts(
        kind=cast('Literal["stop", "cancel"]', halt.kind),
        reason=halt.reason,
        requested_by=types.RequestedBy(uid=halt.requested_uid, user=halt.requested_user),
        requested_at=timestamp(halt.requested_at),
        queued_at_stop=halt.queued_at_stop,
        in_flight_at_stop=halt.in_flight_at_stop,
        completed_at=maybe_timestamp(halt.completed_at),
    )


def steps(halt: Halt, account: Account) -> tuple[types.Step, ...]:
    """Give the panel of steps, with the progress that the account tells of."""
    progress = {
        HaltStep.QUEUE_DROPPED: halt.queue_dropped(account.queued),
        HaltStep.IN_FLIGHT_FINISHED: halt.in_flight_finished(account.in_flight),
    }
    steps = []
    for step in HaltStep:
        at = maybe_timestamp(halt.steps.get(step))
        if step in progress:
            done, total = progress[step]
            steps.append(types.Step(name=step.value, at=at, done=done, total=total))
        else:
            steps.append(types.Step(name=step.value, at=at))
    return tuple(steps)


def lane_row(lane: Lane, now: float) -> types.LaneRow:
    """Give a lane as it is at `now` (monotonic seconds)."""
    state = lane.state(now)
    return types.LaneRow(
        lane=lane.name,
        state=state.value,
        connections=lane.connections,
        max_connections=lane.concurrency.limit,
        in_flight=lane.in_flight,
        window=lane.window.recipients,
        rate=lane.throttle.rate,
        delivered=lane.delivered,
        deferred=lane.deferred,
        bounced=lane.bounced,
        backoff_until=maybe_timestamp(lane.backoff_until_wall) if state is LaneState.BACKOFF else None,
        last_reply=lane.last_reply,
        last_peer=lane.last_peer,
    )


def lane_order(sort: types.LaneOrder, now: float) -> Callable[[Lane], tuple[float, str]]:
    """Give the key that puts lanes in this order; those with the same by name."""
    match sort:
        case "name":
            return lambda lane: (0, lane.name)
        case "window":
            return lambda lane: (-lane.window.recipients, lane.name)
        case "backoff":
            return lambda lane: (min(0.0, now - lane.backoff_until), lane.name)
        case "connections" | "in_flight" | "delivered" | "deferred" | "bounced":
            return lambda lane: (-getattr(lane, sort), lane.name)


def recipient_row(row: OutcomeRow) -> types.RecipientRow:
    """Give what became of a recipient."""
    return types.RecipientRow(
        recipient=row.address,
        outcome=cast("types.OutcomeName", row.outcome.name.lower()),
        after_stop=row.after_stop,
        at=timestamp(row.at),
        message=queue_id.encode(row.message_id),
        attempts=row.attempts,
        code=row.code,
        reply=row.reply,
        peer=row.peer,
        lane=row.lane,
    )


def queue_recipient(row: QueueRow, *, in_flight: bool, held: bool) -> types.QueueRecipient:
    """Give a recipient that has no outcome; memory knows whether it is in flight, and its campaign held."""
    state: types.QueueState
    if in_flight:
        state = "in_flight"
    elif held:
        state = "held"
    elif row.state is QueuedState.CLAIMED:
        state = "ready"
    else:
        state = cast("types.QueueState", row.state.name.lower())
    reply = f"{row.last_code or ''} {row.last_reply}".strip()
    return types.QueueRecipient(
        message=queue_id.encode(row.message.id),
        campaign=row.message.campaign or None,
        sender=row.message.reverse_path,
        recipient=row.recipient.address,
        lane=row.lane,
        state=state,
        attempts=row.recipient.attempts,
        size=row.message.size,
        arrived_at=timestamp(row.message.received_at),
        due_at=maybe_timestamp(row.due) if row.state in (QueuedState.DEFERRED, QueuedState.SCHEDULED) else None,
        last_reply=reply,
    )


def campaign_analysis(campaign: str, made: CampaignAnalysis, in_flight: Mapping[str, int]) -> types.CampaignAnalysis:
    """Give what became of a campaign; memory knows what is in flight, by lane."""
    analysis, account = made.analysis, made.account
    top, others, rest = analysis.top_lanes(_LANES)
    shown = {name for name, _ in top}
    flying = sum(number for lane, number in in_flight.items() if lane not in shown)
    settled = sum(getattr(account, final.value) for final in Final)
    seen = sum(analysis.totals[final.value] for final in Final)
    return types.CampaignAnalysis(
        campaign=campaign,
        timeline=_timeline(analysis.timeline()),
        around_stop=_timeline(analysis.around_stop()),
        lanes=tuple(_lane_counts(name, tally, in_flight.get(name, 0)) for name, tally in top),
        other_lanes=others,
        others=_lane_counts("", rest, flying) if rest.recipients else None,
        replies=tuple(
            types.ReplyCount(
                outcome=cast('types.OutcomeName | Literal["deferred"]', outcome),
                code=code,
                text=text,
                example=seen_reply.example,
                recipients=seen_reply.seen * made.one_in[outcome],
                exact=made.one_in[outcome] == 1,
            )
            for outcome, code, text, seen_reply in analysis.top_replies(_REPLIES)
        ),
        forgotten=max(0, settled - seen),
    )


def _timeline(line: Timeline | None) -> types.Timeline | None:
    if line is None:
        return None
    series = {name: tuple(numbers) for name, numbers in line.series.items()}
    return types.Timeline(start=timestamp(line.start * 1_000_000), step_seconds=line.step, **series)


def _lane_counts(lane: str, tally: LaneTally, in_flight: int) -> types.LaneCounts:
    """Give a destination's counts. What is in flight was counted a little later than what waits."""
    flying = min(in_flight, tally.waiting)
    return types.LaneCounts(
        lane=lane,
        queued=tally.waiting - flying,
        in_flight=flying,
        deferred=min(tally.deferred, tally.waiting - flying),
        delivered=tally.delivered,
        bounced=tally.bounced,
        expired=tally.expired,
        dropped=tally.dropped,
        unknown=tally.unknown,
    )


def status_line(core: Core, problems: Sequence[str], now: float) -> str:
    """Give the node in one line, for `systemctl status`: what is wrong first. `now` is of time.monotonic."""
    total = core.ledger.total
    states = core.gate.counts()
    parts = [
        *problems,
        f"{total.queued:,} queued, {total.in_flight:,} in flight, {total.delivered:,} delivered",
        *(
            f"{states[state]:,} campaign{'s' * (states[state] > 1)} {state.value}"
            for state in (CampaignState.HALTING, CampaignState.HELD)
            if states[state]
        ),
    ]
    resting = sum(lane.in_backoff(now) for lane in core.lanes)
    if resting:
        parts.append(f"{resting:,} destination{'s' * (resting > 1)} in back-off")
    return "; ".join(parts)
