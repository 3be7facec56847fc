"""The daemon as its operators see it: what the control API asks, answered from the parts that app built."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from importlib.metadata import version
from typing import Any, Literal, cast

from mtactl.campaign.halt import Halt, HaltStep
from mtactl.campaign.ledger import Account
from mtactl.campaign.state import CampaignEvent, CampaignState
from mtactl.control import types
from mtactl.core import Core
from mtactl.errors import IllegalMove, UnknownCampaign
from mtactl.message import queue_id
from mtactl.observe.events import EventBus
from mtactl.observe.log import timestamp
from mtactl.schedule.lane import Lane, LaneState
from mtactl.settings import Settings
from queue_store.errors import CampaignHalted
from queue_store.records import Claim, Outcome, OutcomeRow, QueuedState, QueueFilter, QueueRow

__all__ = ["LocalNode"]

_ASKED = {
    "deferred": (QueuedState.DEFERRED,),
    "scheduled": (QueuedState.SCHEDULED,),
    "ready": (QueuedState.CLAIMED, QueuedState.READY),
    "in_flight": (QueuedState.CLAIMED,),
    "held": (None,),
    None: (None,),
}


def _maybe(at: int | None) -> str | None:
    return None if at is None else timestamp(at)


class LocalNode:
    """Implements mtactl.control.node.Node."""

    def __init__(
        self,
        core: Core,
        events: EventBus,
        *,
        settings: Callable[[], Settings],
        problems: Callable[[], Sequence[str]],
        reload: Callable[[], types.ReloadReport],
    ) -> None:
        self._core = core
        self._events = events
        self._settings = settings
        self._problems = problems
        self._reload = reload
        self._started = time.monotonic()
        self._version = version("mtactl")

    # -- the node and its campaigns -------------------------------------------------------------------------------

    def status(self) -> types.Status:
        """Give the node at a glance."""
        core = self._core
        total = core.ledger.total
        problems = tuple(self._problems())
        states = core.gate.counts()
        named = sum(1 for name in core.ledger if name)
        states[CampaignState.ACTIVE] = named - sum(states.values())
        now = time.monotonic()
        return types.Status(
            node=self._settings().node.name,
            version=self._version,
            uptime_seconds=round(now - self._started, 3),
            health="degraded" if problems else "ok",
            problems=problems,
            totals=_counts(total),
            campaigns={state.value: count for state, count in states.items()},
            queue=core.queue_states(),
            connections=core.dispatcher.connections,
            in_flight_transactions=core.dispatcher.transactions,
            store_free_bytes=core.store.free_bytes(),
            lanes=len(core.lanes),
            lanes_in_backoff=tuple(_lane_row(lane, now) for lane in core.lanes if lane.in_backoff(now)),
        )

    def campaigns(self, state: types.CampaignState | None) -> Sequence[types.CampaignReport]:
        """Give a report for each campaign, by name."""
        names = sorted(name for name in self._core.ledger if name)
        return [self._report(name) for name in names if state is None or self._core.gate.state(name).value == state]

    def report(self, campaign: str) -> types.CampaignReport:
        """Give a campaign's report. Raises UnknownCampaign."""
        self._known(campaign)
        return self._report(campaign)

    def _known(self, campaign: str) -> None:
        if not campaign or campaign not in self._core.ledger:
            raise UnknownCampaign(campaign)

    def _report(self, campaign: str) -> types.CampaignReport:
        account = self._core.ledger.account(campaign)
        halt = self._core.halter.halts.get(campaign)
        return types.CampaignReport(
            campaign=campaign,
            node=self._settings().node.name,
            state=self._core.gate.state(campaign).value,
            counts=_counts(account),
            stop=None if halt is None else _stop(halt),
            steps=() if halt is None else _steps(halt, account),
        )

    async def halt(self, campaign: str, *, reason: str | None, by: types.RequestedBy) -> types.CampaignReport:
        """Halt a campaign, known or not; return when the halt is durable. Raises StoreError when it can't be."""
        await self._core.halter.halt(campaign, reason=reason, uid=by.uid, user=by.user)
        return self._report(campaign)

    async def hold(self, campaign: str, *, by: types.RequestedBy) -> types.CampaignReport:
        """Hold a campaign, known or not. Raises IllegalMove when it is halted."""
        core = self._core
        core.gate.move(campaign, CampaignEvent.HOLD)
        core.ledger.account(campaign)
        recorded = core.store.record_hold(campaign, held=True, uid=by.uid, user=by.user)
        core.lanes.evict_campaign(campaign)
        await self._recorded(campaign, CampaignEvent.HOLD, recorded)
        self._events.publish("hold", {"campaign": campaign, "by": by.user})
        return self._report(campaign)

    async def release(self, campaign: str, *, by: types.RequestedBy) -> types.CampaignReport:
        """Release a held campaign. Raises UnknownCampaign, and IllegalMove when it is halted."""
        core = self._core
        self._known(campaign)
        state = core.gate.state(campaign)
        if state in (CampaignState.HALTING, CampaignState.HALTED):
            raise IllegalMove(campaign, state.value, CampaignEvent.RELEASE.value)
        await self._recorded(
            campaign,
            CampaignEvent.RELEASE,
            core.store.record_hold(campaign, held=False, uid=by.uid, user=by.user),
        )
        core.gate.move(campaign, CampaignEvent.RELEASE)
        core.lanes.wake_held_back()
        self._events.publish("release", {"campaign": campaign, "by": by.user})
        return self._report(campaign)

    async def _recorded(self, campaign: str, event: CampaignEvent, recorded: Any) -> None:
        """Wait for a record; a halt that came in between is what the campaign then is."""
        try:
            await recorded
        except CampaignHalted:
            raise IllegalMove(campaign, self._core.gate.state(campaign).value, event.value) from None

    # -- recipients and the queue -----------------------------------------------------------------------------------

    def recipients(
        self, campaign: str, *, outcomes: Collection[str] | None, after_stop: bool
    ) -> AsyncIterator[Sequence[types.RecipientRow]]:
        """Stream the outcomes of a campaign in pages. Raises UnknownCampaign at the call."""
        self._known(campaign)
        wanted = None if outcomes is None else [Outcome[name.upper()] for name in outcomes]

        async def pages() -> AsyncIterator[Sequence[types.RecipientRow]]:
            async for page in self._core.store.recipients(campaign, outcomes=wanted, after_stop=after_stop):
                yield [_recipient_row(row) for row in page]

        return pages()

    async def queue(
        self, *, campaign: str | None, domain: str | None, state: str | None, limit: int
    ) -> Sequence[types.QueueRecipient]:
        """List queued and in-flight recipients, the oldest first."""
        found: list[types.QueueRecipient] = []
        campaigns: Sequence[str | None] = [campaign]
        if state == "held":
            campaigns = [name for name in self._core.gate.held() if campaign in (None, name)]
        for name in campaigns:
            for stored in _ASKED[state]:
                which = QueueFilter(campaign=name, lane=None if domain is None else domain.lower(), state=stored)
                rows = await self._core.store.queue(which, limit=limit)
                found.extend(self._queue_row(row, flying) for flying in (self._flying(),) for row in rows)
        if state is not None:
            found = [row for row in found if row.state == state]
        return sorted(found, key=lambda row: (row.message, row.recipient))[:limit]

    async def message(self, message: str) -> types.QueueMessage | None:
        """Show one message by its queue id, or None if it was never here (or is forgotten)."""
        try:
            message_id = queue_id.decode(message)
        except ValueError:
            return None
        waiting = await self._core.store.queue(QueueFilter(message_id=message_id), limit=100_000)
        settled = await self._core.store.message_outcomes(message_id)
        if not waiting and not settled:
            return None
        flying = self._flying()
        return types.QueueMessage(
            message=queue_id.encode(message_id),
            waiting=tuple(self._queue_row(row, flying) for row in waiting),
            settled=tuple(_recipient_row(row) for row in settled),
        )

    def _flying(self) -> set[int]:
        return self._core.dispatcher.in_flight_ids()

    def _queue_row(self, row: QueueRow, flying: set[int]) -> types.QueueRecipient:
        state: types.QueueState
        if row.recipient.id in flying:
            state = "in_flight"
        elif self._core.gate.state(row.message.campaign) is CampaignState.HELD:
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
            due_at=_maybe(row.due) if row.state in (QueuedState.DEFERRED, QueuedState.SCHEDULED) else None,
            last_reply=reply,
        )

    async def retry(self, selection: types.QueueSelection, *, by: types.RequestedBy) -> types.QueueChanged:
        """Make deferred recipients ready now, and end the back-off of the lanes meant."""
        core = self._core
        which = _filter(selection)
        recipients = 0
        more = which is not None
        while more and which is not None:
            promoted = await core.store.retry(which)
            recipients += core.upkeep.enter_promoted(promoted)
            more = promoted.more
        for lane in core.lanes:
            if selection.domain in (None, lane.name):
                core.lanes.end_backoff(lane)
        self._events.publish("retry", {"recipients": recipients, "by": by.user, **_asked(selection)})
        return types.QueueChanged(recipients=recipients)

    async def drop(self, selection: types.QueueSelection, *, by: types.RequestedBy) -> types.QueueChanged:
        """Drop queued recipients that fit; what is in flight is not touched."""
        core = self._core
        which = _filter(selection)
        recipients = 0
        more = which is not None
        while more and which is not None:
            core.lanes.evict(lambda claim: _fits(claim, which))
            dropped = await core.store.drop(which)
            core.halter.enter_dropped(dropped)
            recipients += sum(delta.total for delta in dropped.by_campaign.values())
            more = dropped.more
        core.lanes.pump_all()
        self._events.publish("drop", {"recipients": recipients, "by": by.user, **_asked(selection)})
        return types.QueueChanged(recipients=recipients)

    # -- lanes, events, configuration -------------------------------------------------------------------------------

    def lanes(self, lane: str | None) -> Sequence[types.LaneRow]:
        """Give the destinations that are in memory, by name."""
        now = time.monotonic()
        if lane is not None:
            found = self._core.lanes.find(lane.lower())
            return [] if found is None else [_lane_row(found, now)]
        return sorted((_lane_row(each, now) for each in self._core.lanes), key=lambda row: row.lane)

    def recent_events(self) -> Sequence[types.Event]:
        """Give the latest events, the oldest first."""
        return [
            types.Event(id=event.id, at=timestamp(event.at), kind=event.kind, data=dict(event.data))
            for event in self._events.recent()
        ]

    async def follow_events(self, after: int | None) -> AsyncIterator[types.Event]:
        """Stream events from now on, or from behind the given id."""
        async for event in self._events.follow(after):
            yield types.Event(id=event.id, at=timestamp(event.at), kind=event.kind, data=dict(event.data))

    async def reload(self, *, by: types.RequestedBy) -> types.ReloadReport:
        """Read the configuration again. Raises ConfigError; then nothing was changed."""
        report = self._reload()
        self._events.publish("reload", {"applied": list(report.applied), "by": by.user})
        return report


def _counts(account: Account) -> types.Counts:
    return types.Counts(**{name: getattr(account, name) for name in types.Counts.__struct_fields__})


def _stop(halt: Halt) -> types.StopFacts:
    return types.StopFacts(
        kind=cast('Literal["stop", "cancel"]', halt.kind),
        reason=halt.reason,
        requested_by=types.RequestedBy(uid=halt.requested_uid, user=halt.requested_user),
        requested_at=timestamp(halt.requested_at),
        queued_at_stop=halt.queued_at_stop,
        in_flight_at_stop=halt.in_flight_at_stop,
        completed_at=_maybe(halt.completed_at),
    )


def _steps(halt: Halt, account: Account) -> tuple[types.Step, ...]:
    progress = {
        HaltStep.QUEUE_DROPPED: halt.queue_dropped(account.queued),
        HaltStep.IN_FLIGHT_FINISHED: halt.in_flight_finished(account.in_flight),
    }
    steps = []
    for step in HaltStep:
        at = _maybe(halt.steps.get(step))
        if step in progress:
            done, total = progress[step]
            steps.append(types.Step(name=step.value, at=at, done=done, total=total))
        else:
            steps.append(types.Step(name=step.value, at=at))
    return tuple(steps)


def _lane_row(lane: Lane, now: float) -> types.LaneRow:
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
        backoff_until=_maybe(lane.backoff_until_wall) if state is LaneState.BACKOFF else None,
        last_reply=lane.last_reply,
        last_peer=lane.last_peer,
    )


def _recipient_row(row: OutcomeRow) -> types.RecipientRow:
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


def _filter(selection: types.QueueSelection) -> QueueFilter | None:
    """Give the store's filter, or None when the id can't be one: nothing fits."""
    message_id = None
    if selection.id is not None:
        try:
            message_id = queue_id.decode(selection.id)
        except ValueError:
            return None
    return QueueFilter(
        campaign=selection.campaign,
        lane=None if selection.domain is None else selection.domain.lower(),
        sender=selection.sender,
        message_id=message_id,
    )


def _fits(claim: Claim, which: QueueFilter) -> bool:
    message = claim.message
    return (
        which.campaign in (None, message.campaign)
        and which.lane in (None, claim.lane)
        and which.sender in (None, message.reverse_path)
        and which.message_id in (None, message.id)
    )


def _asked(selection: types.QueueSelection) -> dict[str, str]:
    asked = {name: getattr(selection, name) for name in selection.__struct_fields__}
    return {name: value for name, value in asked.items() if value is not None}
