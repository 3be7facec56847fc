"""The daemon as its operators see it: what the control API asks, answered from the parts that app built."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import aclosing
from importlib.metadata import version
from typing import Any, overload

from mtactl.analyst import Analyst
from mtactl.campaign.ledger import Account
from mtactl.campaign.ranking import Ranking
from mtactl.campaign.state import CampaignEvent, CampaignState
from mtactl.control import types
from mtactl.core import Core
from mtactl.errors import IllegalMove, UnknownCampaign
from mtactl.message import queue_id
from mtactl.observe.events import EventBus
from mtactl.observe.log import timestamp
from mtactl.reports import (
    campaign_analysis,
    counts,
    lane_order,
    lane_row,
    queue_recipient,
    recipient_row,
    steps,
    stop_facts,
)
from mtactl.settings import Settings
from queue_store.errors import CampaignHalted
from queue_store.records import Claim, Outcome, QueuedState, QueueFilter, QueueRow

__all__ = ["LocalNode"]

_STRIDE = 4000  # campaigns looked at in one go, a millisecond or so

_ASKED = {
    "deferred": (QueuedState.DEFERRED,),
    "scheduled": (QueuedState.SCHEDULED,),
    "ready": (QueuedState.CLAIMED, QueuedState.READY),
    "in_flight": (QueuedState.CLAIMED,),
    "held": (None,),
    None: (None,),
}


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
        self._analyst = Analyst(core)
        self._started = time.monotonic()
        self._version = version("mtactl")

    # -- the node and its campaigns -------------------------------------------------------------------------------

    def status(self) -> types.Status:
        """Give the node at a glance."""
        core = self._core
        total = core.ledger.total
        problems = tuple(self._problems())
        states = core.gate.counts()
        named = len(core.ledger) - ("" in core.ledger)
        states[CampaignState.ACTIVE] = named - sum(states.values())
        now = time.monotonic()
        return types.Status(
            node=self._settings().node.name,
            version=self._version,
            uptime_seconds=round(now - self._started, 3),
            health="degraded" if problems else "ok",
            problems=problems,
            totals=counts(total),
            campaigns={state.value: count for state, count in states.items()},
            queue=core.queue_states(),
            connections=core.dispatcher.connections,
            in_flight_transactions=core.dispatcher.transactions,
            store_free_bytes=core.store.free_bytes(),
            lanes=len(core.lanes),
            lanes_in_backoff=tuple(lane_row(lane, now) for lane in core.lanes if lane.in_backoff(now)),
            deferrals=total.deferrals,
        )

    async def campaigns(
        self, state: types.CampaignState | None, *, match: str = "", sort: types.CampaignOrder = "name", limit: int
    ) -> tuple[Sequence[types.CampaignReport], int]:
        """Give the reports of the first campaigns that fit, and how many fit."""
        wanted = self._accounts_in(state)
        if sort == "name":
            names = sorted(name for name, _ in wanted if name and match.lower() in name.lower())
            return _Reports(names[:limit], self._report), len(names)
        ranking = Ranking(sort, limit, match=match)
        for start in range(0, len(wanted), _STRIDE):
            ranking.take(wanted[start : start + _STRIDE])
            await asyncio.sleep(0)  # very many campaigns must not keep the mail waiting
        return _Reports(ranking.names(), self._report), ranking.total

    def _accounts_in(self, state: types.CampaignState | None) -> Sequence[tuple[str, Account]]:
        ledger = self._core.ledger
        if state is None:
            return list(ledger.items())
        gate, wanted = self._core.gate, CampaignState(state)
        if wanted is CampaignState.ACTIVE:
            return [each for each in ledger.items() if gate.state(each[0]) is wanted]
        return [(name, ledger.account(name)) for name in gate.in_state(wanted)]

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
            counts=counts(account),
            stop=None if halt is None else stop_facts(halt),
            steps=() if halt is None else steps(halt, account),
        )

    def campaign_ids(self, states: Collection[str] | None) -> Iterable[str]:
        """Give the ids of campaigns in these states, in no order."""
        gate = self._core.gate
        return (name for name in self._core.ledger if name and (states is None or gate.state(name).value in states))

    async def analysis(self, campaign: str, *, wanted: Callable[[], bool]) -> types.CampaignAnalysis | None:
        """Give what became of a campaign, as long as it is wanted. Raises UnknownCampaign, StoreError."""
        self._known(campaign)
        made = await self._analyst.analyse(campaign, wanted=wanted)
        if made is None:
            return None
        return campaign_analysis(campaign, made, self._core.dispatcher.in_flight_by_lane(campaign))

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
            async with aclosing(
                self._core.store.recipients(campaign, outcomes=wanted, after_stop=after_stop)
            ) as stored:
                async for page in stored:
                    yield [recipient_row(row) for row in page]

        return pages()

    async def queue(
        self, *, campaign: str | None, domain: str | None, state: str | None, limit: int
    ) -> Sequence[types.QueueRecipient]:
        """List queued and in-flight recipients, the oldest first."""
        found: list[types.QueueRecipient] = []
        campaigns: Sequence[str | None] = [campaign]
        if state == "held":
            campaigns = [name for name in self._core.gate.held() if campaign in (None, name)]
        lane = None if domain is None else domain.lower()
        for name in campaigns:
            for stored in _ASKED[state]:
                found += await self._list(QueueFilter(campaign=name, lane=lane, state=stored), state, limit)
        return sorted(found, key=lambda row: (row.message, row.recipient))[:limit]

    async def _list(self, which: QueueFilter, state: str | None, limit: int) -> list[types.QueueRecipient]:
        """List so many rows of a state that the store knows only in part: what is held or in flight is in memory."""
        fetched = limit
        while True:
            rows = await self._core.store.queue(which, limit=fetched)
            flying = self._core.dispatcher.in_flight_ids()
            fitting = [self._queue_row(row, flying) for row in rows]
            if state is not None:
                fitting = [row for row in fitting if row.state == state]
            if len(fitting) >= limit or len(rows) < fetched:
                return fitting
            fetched *= 4

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
        flying = self._core.dispatcher.in_flight_ids()
        return types.QueueMessage(
            message=queue_id.encode(message_id),
            waiting=tuple(self._queue_row(row, flying) for row in waiting),
            settled=tuple(recipient_row(row) for row in settled),
        )

    def _queue_row(self, row: QueueRow, flying: set[int]) -> types.QueueRecipient:
        held = self._core.gate.state(row.message.campaign) is CampaignState.HELD
        return queue_recipient(row, in_flight=row.recipient.id in flying, held=held)

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
        rounds = 0 if which is None else 2  # a page that was on its way in the first round is evicted in the second
        while rounds and which is not None:
            evicted = core.lanes.evict(lambda claim: _fits(claim, which))
            dropped = await core.store.drop(which)
            core.halter.enter_dropped(dropped)
            recipients += sum(delta.total for delta in dropped.by_campaign.values())
            if not (dropped.more or evicted):
                rounds -= 1
        core.lanes.pump_all()
        self._events.publish("drop", {"recipients": recipients, "by": by.user, **_asked(selection)})
        return types.QueueChanged(recipients=recipients)

    # -- lanes, events, configuration -------------------------------------------------------------------------------

    def lanes(
        self, lane: str | None, *, match: str = "", sort: types.LaneOrder = "name", limit: int
    ) -> tuple[Sequence[types.LaneRow], int]:
        """Give the first destinations in memory that fit, and how many fit."""
        now = time.monotonic()
        if lane is not None:
            found = self._core.lanes.find(lane.lower())
            lanes = [] if found is None else [found]
        else:
            lanes = list(self._core.lanes)
        if match:
            lanes = [each for each in lanes if match.lower() in each.name]
        lanes.sort(key=lane_order(sort, now))
        return [lane_row(each, now) for each in lanes[:limit]], len(lanes)

    def recent_events(self) -> Sequence[types.Event]:
        """Give the latest events, the oldest first."""
        return [
            types.Event(id=event.id, at=timestamp(event.at), kind=event.kind, data=dict(event.data))
            for event in self._events.recent()
        ]

    async def follow_events(self, after: int | None, *, outcomes: bool = True) -> AsyncIterator[types.Event]:
        """Stream events from now on, or from behind the given id."""
        async with aclosing(self._events.follow(after, outcomes=outcomes)) as events:
            async for event in events:
                yield types.Event(id=event.id, at=timestamp(event.at), kind=event.kind, data=dict(event.data))

    async def reload(self, *, by: types.RequestedBy) -> types.ReloadReport:
        """Read the configuration again. Raises ConfigError; then nothing was changed."""
        report = self._reload()
        self._events.publish("reload", {"applied": list(report.applied), "by": by.user})
        return report


class _Reports(Sequence[types.CampaignReport]):
    """Reports that are made when they are read: there may be very many campaigns, and the loop has other work."""

    def __init__(self, names: Sequence[str], make: Callable[[str], types.CampaignReport]) -> None:
        self._names = names
        self._make = make

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> types.CampaignReport: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[types.CampaignReport]: ...
    def __getitem__(self, index: int | slice) -> types.CampaignReport | Sequence[types.CampaignReport]:
        if isinstance(index, slice):
            return [self._make(name) for name in self._names[index]]
        return self._make(self._names[index])


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
