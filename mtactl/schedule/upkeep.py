"""What time alone brings about: waiting mail becomes ready, old mail expires, old outcomes are forgotten."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from mtactl.campaign.ledger import Final, Ledger
from mtactl.schedule.lanes import Lanes
from mtactl.settings import Settings
from queue_store.records import Promoted
from queue_store.store import QueueStore

__all__ = ["Upkeep"]

_SECOND = 1_000_000
_HOUR = 3600 * _SECOND
_LATEST = 2  # times the longest retry

_log = structlog.get_logger("queue")
_EXPIRE_EVERY = 30.0
_PRUNE_EVERY = 600.0


class Upkeep:
    """The clockwork of the queue. A failure of the store ends it, and with it the daemon."""

    def __init__(
        self,
        *,
        store: QueueStore,
        ledger: Ledger,
        lanes: Lanes,
        settings: Callable[[], Settings],
        now: Callable[[], int],
        lets_expire: Callable[[], bool],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._lanes = lanes
        self._settings = settings
        self._now = now
        self._lets_expire = lets_expire
        self._next_due: int | None = store.recovery.next_due
        self._sooner = asyncio.Event()
        self._changed = {"expire": asyncio.Event(), "prune": asyncio.Event()}

    def change(self) -> None:
        """Note that the settings are other ones: look at once for what is too old by them."""
        for changed in self._changed.values():
            changed.set()

    def note_due(self, due: int) -> None:
        """Note that a recipient will be due then (µs since the epoch)."""
        if self._next_due is None or due < self._next_due:
            self._next_due = due
            self._sooner.set()

    def enter_promoted(self, promoted: Promoted) -> int:
        """Enter recipients that became ready into the books, and wake their lanes; give how many there were."""
        recipients = 0
        for campaign, delta in promoted.by_campaign.items():
            self._ledger.promote(campaign, deferred=delta.deferred, scheduled=delta.scheduled)
            recipients += delta.deferred + delta.scheduled
        for lane in promoted.lanes:
            self._lanes.wake(lane)
        return recipients

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._promote(), name="promote")
            group.create_task(self._expire(), name="expire")
            group.create_task(self._prune(), name="prune")

    async def _promote(self) -> None:
        while True:
            self._sooner.clear()
            pause = None if self._next_due is None else max(0.0, (self._next_due - self._now()) / _SECOND)
            # The wall clock may jump: a long pause is cut, so that what is due is found within a minute of a jump.
            try:
                async with asyncio.timeout(60.0 if pause is None else min(pause, 60.0)):
                    await self._sooner.wait()
                continue
            except TimeoutError:
                pass
            if await self.promote_due():
                await asyncio.sleep(0.05)  # what becomes due within the same moment is promoted in one commit

    async def promote_due(self) -> bool:
        """Make a chunk of what is due ready; give whether that was all."""
        if self._next_due is None or self._next_due > self._now():
            return True
        self._next_due = None
        promoted = await self._store.promote(self._now())
        self.enter_promoted(promoted)
        if promoted.next_due is not None:
            self.note_due(promoted.next_due)
        return not promoted.more

    async def recall(self) -> bool:
        """Make a chunk of what is due later than any retry could be ready: the clock was ahead when it was deferred.
        Give whether that was all.
        """
        latest = self._now() + int(_LATEST * max(self._settings().delivery.retry) * _SECOND) + _HOUR
        promoted = await self._store.recall(latest)
        if promoted.by_campaign:
            _log.warning("deferred mail was due beyond any retry: the clock was wrong")
        self.enter_promoted(promoted)
        return not promoted.more

    async def expire_old(self) -> bool:
        """Let a chunk of what is too old expire; give whether that was all."""
        if not self._lets_expire():
            return True
        expired = await self._store.expire(self._now() - int(self._settings().delivery.expire_after * _SECOND))
        for campaign, delta in expired.by_campaign.items():
            # Too many at once for a line each: `mtactl recipients --outcome expired` has them.
            _log.warning("expired", campaign=campaign or None, recipients=delta.total)
            self._ledger.remove(
                campaign, Final.EXPIRED, ready=delta.ready, deferred=delta.deferred, scheduled=delta.scheduled
            )
        return not expired.more

    async def _expire(self) -> None:
        while True:
            while not await self.recall():
                pass
            while not await self.expire_old():
                pass
            await self._pause("expire", _EXPIRE_EVERY)

    async def _prune(self) -> None:
        while True:
            before = self._now() - int(self._settings().store.keep_outcomes * _SECOND)
            more = await self._store.prune(before)
            await self._pause("prune", 0.1 if more else _PRUNE_EVERY)

    async def _pause(self, work: str, seconds: float) -> None:
        """Wait so long, or until the settings are changed."""
        changed = self._changed[work]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await changed.wait()
        changed.clear()
