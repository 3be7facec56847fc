"""Carries a halt out: closes the gate, has it recorded, and sees it through to `completed`.

The order is CONTRACT.md §2.1: the gate closes in memory, and in the same tick the halt is submitted to the store, so
that the store's order of operations is the order of events; the command is answered when the halt is durable. What
follows runs in the background, also after a restart: drop what is queued, in chunks between which the store lets others
have their share (CONTRACT.md §2.4), and wait for what is in flight.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from mtactl.campaign.gate import Gate
from mtactl.campaign.halt import Halt, HaltStep
from mtactl.campaign.ledger import Final, Ledger
from mtactl.campaign.state import CampaignEvent
from mtactl.schedule.lanes import Lanes
from mtactl.schedule.settler import Settler
from queue_store.errors import StoreError
from queue_store.records import Dropped, HaltRecord, HaltRequest
from queue_store.store import QueueStore

__all__ = ["Halter", "halt_of"]

_PAUSE = 0.02  # seconds to wait for claims that are on their way back to the queue

_log = structlog.get_logger("halt")


def halt_of(record: HaltRecord) -> Halt:
    """Give the halt that a record tells of."""
    halt = Halt(
        campaign=record.campaign,
        kind=record.kind,
        reason=record.reason,
        requested_uid=record.requested_uid,
        requested_user=record.requested_user,
        requested_at=record.requested_at,
        queued_at_stop=record.queued_at_stop,
        in_flight_at_stop=record.in_flight_at_stop,
    )
    reached = {
        HaltStep.GATE_CLOSED: record.requested_at,
        HaltStep.RECORDED: record.recorded_at,
        HaltStep.QUEUE_DROPPED: record.queue_dropped_at,
        HaltStep.IN_FLIGHT_FINISHED: record.in_flight_finished_at,
        HaltStep.COMPLETED: record.completed_at,
    }
    for step, at in reached.items():
        if at is not None:
            halt.reach(step, at)
    return halt


class Halter:
    """All halts of the node, going on and done."""

    def __init__(
        self,
        *,
        store: QueueStore,
        gate: Gate,
        ledger: Ledger,
        settler: Settler,
        lanes: Lanes,
        now: Callable[[], int],
    ) -> None:
        self._store = store
        self._gate = gate
        self._ledger = ledger
        self._settler = settler
        self._lanes = lanes
        self._now = now
        self._recording: dict[str, asyncio.Future[HaltRecord]] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._unfinished: list[Halt] = []
        self._group: asyncio.TaskGroup | None = None
        self._stopped = asyncio.Event()
        self.halts: dict[str, Halt] = {}  # by campaign, in the order in which they came
        self.kinds = {"stop": 0, "cancel": 0}  # how many there are
        self.in_progress: dict[str, int] = {}  # when the gate closed (µs since the epoch), of those not completed
        self.on_recorded: Callable[[Halt, float], None] | None = None  # with the seconds that the answer took
        self.on_step: Callable[[Halt, HaltStep], None] | None = None
        self.on_completed: Callable[[Halt, float], None] | None = None

    def restore(self, record: HaltRecord) -> None:
        """Take a halt from the store at the start, before anything may begin: its gate closes now."""
        halt = halt_of(record)
        self._enter(halt)
        self._gate.move(halt.campaign, CampaignEvent.HALT)
        self._ledger.close(halt.campaign)
        if halt.completed_at is not None:
            self._gate.move(halt.campaign, CampaignEvent.COMPLETE)
        else:
            self.in_progress[halt.campaign] = halt.requested_at
            self._unfinished.append(halt)

    def _enter(self, halt: Halt) -> None:
        self.halts[halt.campaign] = halt
        self.kinds[halt.kind] += 1

    def oldest_age(self) -> float:
        """Give the seconds since the gate closed of the oldest halt that is not completed; 0.0 without one."""
        return max(0, self._now() - min(self.in_progress.values())) / 1_000_000 if self.in_progress else 0.0

    async def run(self) -> None:
        """Run the background part of halts, first of those that a restart interrupted, until `stop`."""
        async with asyncio.TaskGroup() as self._group:
            for halt in self._unfinished:
                self._group.create_task(self._complete(halt), name=f"halt of {halt.campaign}")
            self._unfinished.clear()
            await self._stopped.wait()

    def stop(self) -> None:
        """Let go; what is not completed goes on at the next start."""
        self._stopped.set()
        for changed in self._changed.values():
            changed.set()

    async def halt(self, campaign: str, *, reason: str | None, uid: int | None, user: str) -> Halt:
        """Halt a campaign, known or not, and return when that is durable.

        Halting again gives the first halt's facts. Raises StoreError when it could not be made durable: the gate stays
        closed all the same until the daemon stops. Raises CampaignError for the empty name.
        """
        if campaign in self.halts:
            return self.halts[campaign]
        recording = self._recording.get(campaign)
        if recording is None:
            recording = self._close(campaign, reason=reason, uid=uid, user=user)
        await asyncio.shield(recording)
        return self.halts[campaign]

    def _close(self, campaign: str, *, reason: str | None, uid: int | None, user: str) -> asyncio.Future[HaltRecord]:
        """Close the gate and submit the record, in this tick."""
        begun = time.monotonic()
        self._settler.flush()  # what was answered before the stop comes before it on record
        self._gate.move(campaign, CampaignEvent.HALT)
        self._ledger.close(campaign)
        closed_at = self._now()
        self.in_progress.setdefault(campaign, closed_at)
        request = HaltRequest(
            campaign=campaign,
            closed_at=closed_at,
            in_flight=self._ledger.account(campaign).in_flight,
            reason=reason,
            requested_uid=uid,
            requested_user=user,
        )
        recording = self._store.record_halt(request)
        self._recording[campaign] = recording
        recording.add_done_callback(lambda done: self._recorded(campaign, begun, done))
        return recording

    def _recorded(self, campaign: str, begun: float, done: asyncio.Future[HaltRecord]) -> None:
        del self._recording[campaign]
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            _log.error("halt not recorded; the gate stays closed until the daemon stops", campaign=campaign, why=error)
            return
        halt = halt_of(done.result())
        self._enter(halt)
        if self.on_recorded is not None:
            self.on_recorded(halt, time.monotonic() - begun)
        if self._group is not None and not self._stopped.is_set():
            self._group.create_task(self._complete(halt), name=f"halt of {campaign}")

    def notice(self, campaign: str) -> None:
        """Note that a recipient of a closed campaign left the flight, or came back to the queue."""
        changed = self._changed.get(campaign)
        if changed is not None:
            changed.set()

    async def _complete(self, halt: Halt) -> None:
        campaign = halt.campaign
        begun = time.monotonic()
        self._changed[campaign] = asyncio.Event()
        try:
            self._lanes.evict_campaign(campaign)
            # The two go on side by side, and both must have ended for the halt to be complete.
            async with asyncio.TaskGroup() as both:
                both.create_task(self._drop_queue(halt))
                both.create_task(self._await_flight(halt))
            if self._stopped.is_set():
                return
            await self._reach(halt, HaltStep.COMPLETED)
            self._gate.move(campaign, CampaignEvent.COMPLETE)
            del self.in_progress[campaign]
            if self.on_completed is not None:
                self.on_completed(halt, time.monotonic() - begun)
        except* StoreError as failed:
            _log.error("halt not completed", campaign=campaign, why=str(failed.exceptions[0]))
        finally:
            del self._changed[campaign]

    async def _drop_queue(self, halt: Halt) -> None:
        account = self._ledger.account(halt.campaign)
        while account.queued and not self._stopped.is_set():
            dropped = await self._store.drop_campaign(halt.campaign)
            self.enter_dropped(dropped)
            if not dropped.by_campaign:
                await asyncio.sleep(_PAUSE)
        if not self._stopped.is_set():
            await self._reach(halt, HaltStep.QUEUE_DROPPED)

    def enter_dropped(self, dropped: Dropped) -> None:
        """Enter a chunk that the store dropped into the books."""
        for campaign, delta in dropped.by_campaign.items():
            self._ledger.remove(
                campaign,
                Final.DROPPED,
                ready=delta.ready,
                deferred=delta.deferred,
                scheduled=delta.scheduled,
                unknown=delta.unknown,
            )

    async def _await_flight(self, halt: Halt) -> None:
        account = self._ledger.account(halt.campaign)
        changed = self._changed[halt.campaign]
        while account.in_flight and not self._stopped.is_set():
            changed.clear()
            await changed.wait()
        if not self._stopped.is_set():
            await self._settler.drain()
            await self._reach(halt, HaltStep.IN_FLIGHT_FINISHED)

    async def _reach(self, halt: Halt, step: HaltStep) -> None:
        if step in halt.steps:
            return  # before a restart, which may have put back to the queue what was in a window
        at = self._now()
        await self._store.record_halt_step(halt.campaign, step.value, at)
        halt.reach(step, at)
        if self.on_step is not None:
            self.on_step(halt, step)
