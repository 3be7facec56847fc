"""The core: store, gate, ledger, scheduler and halts, assembled and brought to where the last run left them.

It has no sockets: app adds the edge, the relay, the control API and the instruments; tests drive it as it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

from mtactl.campaign.gate import Gate
from mtactl.campaign.ledger import Account, Ledger
from mtactl.campaign.state import CampaignEvent
from mtactl.schedule.clock import ClockWatch
from mtactl.schedule.dispatcher import Dispatcher
from mtactl.schedule.halter import Halter
from mtactl.schedule.lanes import Lanes
from mtactl.schedule.ports import Relay
from mtactl.schedule.settler import Settler
from mtactl.schedule.upkeep import Upkeep
from mtactl.settings import Settings
from queue_store.errors import StoreError
from queue_store.records import Appended, CampaignRecord, NewMessage
from queue_store.store import QueueStore

__all__ = ["Core"]

_log = structlog.get_logger("core")


class Core:
    """The parts between the edge and the relay. Halts are known, and their gates closed, before anything can begin."""

    def __init__(
        self,
        *,
        store: QueueStore,
        relay: Relay,
        settings: Settings,
        now: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.settings = settings
        self.gate = Gate()
        self.ledger = Ledger()
        self.settler = Settler(store, self.ledger)
        self.lanes = Lanes(store=store, gate=self.gate, settings=settings, now=now)
        self.dispatcher = Dispatcher(
            lanes=self.lanes,
            store=store,
            gate=self.gate,
            ledger=self.ledger,
            settler=self.settler,
            relay=relay,
            settings=settings,
            now=now,
        )
        self.halter = Halter(
            store=store, gate=self.gate, ledger=self.ledger, settler=self.settler, lanes=self.lanes, now=now
        )
        clock = ClockWatch(now, monotonic)
        self.dispatcher.lets_expire = clock.lets_expire
        self.upkeep = Upkeep(
            store=store,
            ledger=self.ledger,
            lanes=self.lanes,
            settings=lambda: self.settings,
            now=now,
            lets_expire=clock.lets_expire,
        )
        self.settler.on_after_stop = self.halter.notice
        self.settler.on_due = self.upkeep.note_due
        self._restore()
        self._group: asyncio.TaskGroup | None = None
        self._upkeep: asyncio.Task[None] | None = None

    def _restore(self) -> None:
        recovery = self.store.recovery
        for record in recovery.campaigns:
            self.ledger.restore(record.name, _account(record))
            if record.held and record.halt is None:
                self.gate.move(record.name, CampaignEvent.HOLD)
        halts = [record.halt for record in recovery.campaigns if record.halt is not None]
        for halt in sorted(halts, key=lambda halt: halt.requested_at):
            self.halter.restore(halt)
        for lane in recovery.ready_lanes:
            self.lanes.lane(lane).backlog = True

    def queue_states(self) -> dict[str, int]:
        """Give how many recipients wait, by sub-state; what belongs to a held campaign is `held`, whatever else."""
        total = self.ledger.total
        held = [self.ledger.account(campaign) for campaign in self.gate.held()]
        deferred = total.deferred - sum(account.deferred for account in held)
        scheduled = total.scheduled - sum(account.scheduled for account in held)
        stopped = sum(account.queued for account in held)
        return {
            "ready": total.queued - stopped - deferred - scheduled,
            "deferred": deferred,
            "scheduled": scheduled,
            "held": stopped,
        }

    # -- running ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        self._group.create_task(self.dispatcher.run(), name="dispatcher")
        self._group.create_task(self.halter.run(), name="halter")
        self._upkeep = self._group.create_task(self._run_upkeep(), name="upkeep")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop: begin nothing more, let what is in flight finish within the limit, settle it."""
        if self._group is None or self._upkeep is None:
            return
        self._upkeep.cancel()
        self.halter.stop()
        await self.dispatcher.stop(self.settings.delivery.shutdown_timeout)
        if isinstance(error, asyncio.CancelledError):
            await self._group.__aexit__(kind, error, traceback)  # a task of the group failed, and it cancelled us
        else:
            # All tasks have ended. Why we stop is the caller's, and goes on as it is: the group would wrap it.
            await self._group.__aexit__(None, None, None)

    async def _run_upkeep(self) -> None:
        try:
            await self.upkeep.run()
        except* StoreError as failed:
            _log.error("the queue's clockwork has stopped", why=str(failed.exceptions[0]))

    def change(self, settings: Settings) -> None:
        """Apply other settings."""
        self.settings = settings
        self.dispatcher.change(settings)
        self.upkeep.change()

    # -- what comes in ----------------------------------------------------------------------------------------------

    def claim_for(self, lane: str, campaign: str, recipients: int) -> bool:
        """Whether a recipient that arrives may be stored as claimed: it goes straight into its lane's window."""
        return self.lanes.has_room(lane, campaign, recipients)

    def enter(self, appended: Appended, message: NewMessage) -> None:
        """Take a message that became durable into the books and the lanes."""
        waiting = [recipient for recipient in message.recipients if not recipient.claimed]
        scheduled = [recipient.due for recipient in waiting if recipient.due is not None]
        self.ledger.accept(message.campaign, len(message.recipients), scheduled=len(scheduled))
        if scheduled:
            self.upkeep.note_due(min(scheduled))
        for claim in appended.claims:
            self.lanes.push(claim)
        if self.gate.is_closed(message.campaign):
            self.halter.notice(message.campaign)
        for lane in {recipient.lane for recipient in waiting if recipient.due is None}:
            self.lanes.wake(lane)

    def refuse(self, campaign: str, recipients: int, discarded: bool) -> None:
        """Count recipients that came for a halted campaign."""
        self.ledger.refuse(campaign, recipients, discarded=discarded)
        self.store.count_refused(campaign, recipients, discarded=discarded).add_done_callback(_look)


def _look(done: asyncio.Future[None]) -> None:
    """Look at a result that nobody waits for; a failed store has said so through on_failed."""
    if not done.cancelled():
        done.exception()


def _account(record: CampaignRecord) -> Account:
    tally = record.tally
    return Account(
        accepted=tally.accepted,
        queued=tally.live,
        deferred=record.deferred,
        scheduled=record.scheduled,
        delivered=tally.delivered,
        delivered_after_stop=tally.delivered_after_stop,
        bounced=tally.bounced,
        expired=tally.expired,
        dropped=tally.dropped,
        unknown=tally.unknown,
        refused=tally.refused,
        discarded=tally.discarded,
        began=record.began,
    )
