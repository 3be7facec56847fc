"""Takes what became of recipients into the books and, in batches of one tick, into the store.

A delivery, a refusal or a deferral moves in the ledger at the reply. One exception: a deferral after the gate closed
stays in flight until the store has said whether it stored DROPPED or UNKNOWN (the halt is on record) or a deferral (the
halt could not be recorded), so that the ledger and the store never differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from mtactl.campaign.ledger import Final, Ledger
from queue_store.errors import StoreError
from queue_store.records import Message, Outcome, Recipient, Settlement
from queue_store.store import QueueStore

__all__ = ["Settled", "Settler", "final_of"]

# Recipients whose outcome is not durable yet. A halt waits for those before it, so the store must not fall behind.
_BEHIND = 40

_FINALS = {outcome: Final[outcome.name] for outcome in Outcome}


def final_of(outcome: Outcome) -> Final:
    """Give the ledger's name of a stored outcome."""
    return _FINALS[outcome]


class Settled(Struct, frozen=True, kw_only=True, gc=False):
    """What became of one recipient, for those who watch. `stored` is what the store made of it (None: deferred)."""

    settlement: Settlement
    message: Message
    recipient: Recipient
    lane: str
    stored: Outcome | None


class Settler:
    """Gathers settlements until the end of the tick and submits them as one operation."""

    def __init__(self, store: QueueStore, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self._gathered: list[Settled] = []
        self._pending: set[asyncio.Future[Sequence[Outcome | None]]] = set()
        self._unsettled = 0
        self.on_caught_up: Callable[[], None] | None = None  # `is_behind` was true, and no longer is
        self.on_settled: Callable[[Sequence[Settled]], None] | None = None  # after the commit
        self.on_after_stop: Callable[[str], None] | None = None  # a recipient of a closed campaign left the flight
        self.on_due: Callable[[int], None] | None = None  # a deferral was submitted, due then

    @property
    def is_behind(self) -> bool:
        """Whether so much is waiting for the store that nothing more should begin."""
        return self._unsettled >= _BEHIND

    def add(self, batch: Sequence[Settled], *, in_flight: bool) -> None:
        """Take the results of recipients. `in_flight` false: they were settled without a transaction."""
        attempts, ledger, gathered = self._store.attempts, self._ledger, self._gathered
        if batch and not gathered:
            asyncio.get_running_loop().call_soon(self.flush)
        for settled in batch:
            settlement = settled.settlement
            if settlement.slot is not None:
                attempts.outcome(settlement.slot, settlement)
            if settlement.outcome is not None:
                ledger.finish(
                    settlement.campaign,
                    _FINALS[settlement.outcome],
                    after_stop=settlement.after_stop,
                    in_flight=in_flight,
                )
            elif not settlement.after_stop:
                ledger.defer(settlement.campaign, in_flight=in_flight)
            gathered.append(settled)
        self._unsettled += len(batch)

    def flush(self) -> None:
        """Submit what was gathered. Called before a halt is submitted, so that order of arrival is order on record."""
        if not self._gathered:
            return
        batch, self._gathered = self._gathered, []
        future = self._store.settle([settled.settlement for settled in batch])
        self._pending.add(future)
        future.add_done_callback(lambda done: self._committed(batch, done))

    async def drain(self) -> None:
        """Wait until all that was taken before this call is durable; what others settle meanwhile is not waited for."""
        self.flush()
        if self._pending:
            await asyncio.wait(tuple(self._pending))

    def _committed(self, batch: Sequence[Settled], done: asyncio.Future[Sequence[Outcome | None]]) -> None:
        self._pending.discard(done)
        was_behind = self.is_behind
        self._unsettled -= len(batch)
        if was_behind and not self.is_behind and self.on_caught_up is not None:
            self.on_caught_up()
        if done.cancelled() or isinstance(done.exception(), StoreError):
            # The store takes no more writes and has said so through on_failed; the attempt log keeps the outcomes.
            return
        stored = []
        for given, outcome in zip(batch, done.result(), strict=True):
            settled = given if outcome is given.stored else replace(given, stored=outcome)
            stored.append(settled)
            settlement = settled.settlement
            if settlement.outcome is None:
                self._deferred(settled)
            if settlement.after_stop and self.on_after_stop is not None:
                self.on_after_stop(settlement.campaign)
        if self.on_settled is not None:
            self.on_settled(stored)

    def _deferred(self, settled: Settled) -> None:
        settlement = settled.settlement
        if settlement.after_stop:
            if settled.stored is None:
                self._ledger.defer(settlement.campaign)
            else:
                self._ledger.finish(settlement.campaign, final_of(settled.stored), after_stop=True)
        if settled.stored is None and self.on_due is not None:
            self.on_due(settlement.due)
