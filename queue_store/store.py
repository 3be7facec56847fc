"""The interface of the queue store: a durable queue of mail recipients with exact books.

What it guarantees, and by what means, is on the page README.md beside this file. In short: operations are made
durable in the order in which they were submitted; an operation's future resolves after the fsync of the commit that
holds it; the counts, the outcomes, the halts and the queue change in the same transaction.

All methods are called from the event loop's thread. Those that return a future submit synchronously, in the tick in
which they are called, and need not be awaited to take effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import Self

from queue_store.records import (
    Appended,
    ClaimPage,
    Dropped,
    HaltRecord,
    HaltRequest,
    Message,
    NewMessage,
    Outcome,
    OutcomeRow,
    Promoted,
    QueueFilter,
    QueueRow,
    Recovery,
    Settlement,
)

__all__ = ["AttemptLog", "QueueStore"]


class AttemptLog:
    """Which transactions are open, in a memory-mapped table of slots that survives a killed process.

    Pure memory writes, under a microsecond or two each; called in the tick of the write that they speak of.
    """

    def begin(self, recipient_id: int, attempt: int) -> int:
        """Note that a transaction for the recipient begins now; return its slot. Raises StoreFull if it can't grow."""
        raise NotImplementedError

    def ending(self, slot: int) -> None:
        """Note that the end of the message is about to be written: from here on a lost connection means unknown."""
        raise NotImplementedError

    def outcome(self, slot: int, settlement: Settlement) -> None:
        """Note how the transaction ended, before it is settled in a commit."""
        raise NotImplementedError


class QueueStore:
    """The queue of one node, in one folder."""

    recovery: Recovery
    attempts: AttemptLog

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        reserve: int = 64 << 20,
        segment_size: int = 64 << 20,
        now: Callable[[], int] | None = None,
        on_commit: Callable[[float, int], None] | None = None,
        on_failed: Callable[[BaseException], None] | None = None,
    ) -> Self:
        """Open or create the store, recover it, and start the committer.

        `reserve` and `segment_size` are in bytes; `now` gives µs since the epoch; `on_commit(seconds, operations)` and
        `on_failed(error)` are called in the loop's thread. Raises StoreLocked, StoreCorrupt, StoreFull, OSError.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Commit what was submitted, return the claimed recipients to READY, mark the store clean, let go of it."""
        raise NotImplementedError

    # -- the way of a message -------------------------------------------------------------------------------------

    def append(self, message: NewMessage) -> asyncio.Future[Appended]:
        """Store a message with its recipients (all or none). Raises CampaignHalted, StoreFull, StoreFailed."""
        raise NotImplementedError

    def claim(self, lane: str, *, limit: int, cursor: int = 0) -> asyncio.Future[ClaimPage]:
        """Claim up to about `limit` READY recipients of a lane: first those of no campaign, then fairly over its
        campaigns from `cursor` on; none of a halted or held one. Recipients of one message come as one claim
        (at most 100 recipients a claim, RFC 5321 §4.5.3.1.8).
        """
        raise NotImplementedError

    def unclaim(self, claims: Sequence[tuple[str, int]]) -> asyncio.Future[None]:
        """Put claimed recipients, as (campaign, recipient id), back to READY: no attempt was made."""
        raise NotImplementedError

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[Outcome | None]]:
        """Record what became of claimed recipients; gives what was stored of each (None: it waits again).

        When the disk is full the settlement waits for room (the attempt log has it); it never fails with StoreFull.
        """
        raise NotImplementedError

    def promote(self, now: int, *, limit: int = 5000) -> asyncio.Future[Promoted]:
        """Make DEFERRED and SCHEDULED recipients that are due READY, the earliest first."""
        raise NotImplementedError

    def expire(self, received_before: int, *, limit: int = 2000) -> asyncio.Future[Dropped]:
        """Settle as EXPIRED what is not claimed and was received before; held campaigns too, halted ones not."""
        raise NotImplementedError

    def read_body_nowait(self, message: Message) -> bytes | None:
        """Give the body in wire form if it can be had without waiting for the disk, else None.

        Raises StoreCorrupt when the record's checksum does not fit.
        """
        raise NotImplementedError

    async def load_body(self, message: Message) -> bytes:
        """Read the body from the disk, in a thread. Raises StoreCorrupt."""
        raise NotImplementedError

    # -- campaigns ------------------------------------------------------------------------------------------------

    def record_halt(self, request: HaltRequest) -> asyncio.Future[HaltRecord]:
        """Make a halt durable. Works on a full disk, by spending the reserve. From this operation on, appends of the
        campaign raise CampaignHalted. Halting again gives the first record, with `already` set.
        """
        raise NotImplementedError

    def drop_campaign(self, campaign: str, *, limit: int = 2000) -> asyncio.Future[Dropped]:
        """Settle as DROPPED up to `limit` recipients of a halted campaign that are not claimed."""
        raise NotImplementedError

    def record_halt_step(self, campaign: str, step: str, at: int) -> asyncio.Future[HaltRecord]:
        """Record "queue_dropped", "in_flight_finished" or "completed" of a halt."""
        raise NotImplementedError

    def record_hold(self, campaign: str, *, held: bool, uid: int | None, user: str) -> asyncio.Future[None]:
        """Hold or release a campaign, known or not. Raises CampaignHalted."""
        raise NotImplementedError

    def count_refused(self, campaign: str, recipients: int, *, discarded: bool = False) -> asyncio.Future[None]:
        """Count recipients that were refused (or discarded) at injection because the campaign is halted."""
        raise NotImplementedError

    # -- the administrator ----------------------------------------------------------------------------------------

    def retry(self, which: QueueFilter, *, limit: int = 5000) -> asyncio.Future[Promoted]:
        """Make DEFERRED recipients READY now (`which.state` is not asked; SCHEDULED ones stay)."""
        raise NotImplementedError

    def drop(self, which: QueueFilter, *, limit: int = 2000) -> asyncio.Future[Dropped]:
        """Settle as DROPPED what fits and is not claimed."""
        raise NotImplementedError

    async def queue(self, which: QueueFilter, *, limit: int) -> Sequence[QueueRow]:
        """List queued recipients, the oldest first, from a snapshot of its own (a reader thread)."""
        raise NotImplementedError

    def recipients(
        self, campaign: str, *, outcomes: Collection[Outcome] | None = None, after_stop: bool = False
    ) -> AsyncIterator[Sequence[OutcomeRow]]:
        """Stream the outcomes of a campaign, in pages, in the order of arrival, from a snapshot of its own."""
        raise NotImplementedError

    async def message_outcomes(self, message_id: int) -> Sequence[OutcomeRow]:
        """Outcomes of the recipients of one message (those that still wait are in `queue`)."""
        raise NotImplementedError

    def free_bytes(self) -> int:
        """Bytes that are free on the store's file system for mail: less the reserve where it is not on disk yet."""
        raise NotImplementedError

    def prune(self, before: int, *, limit: int = 5000) -> asyncio.Future[bool]:
        """Forget outcomes (not counts, not halts) older than `before`; gives whether there is more to forget."""
        raise NotImplementedError
