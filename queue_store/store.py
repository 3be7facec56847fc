"""The interface of the queue store: a durable queue of mail recipients with exact books.

What it guarantees, and by what means, is on the page README.md beside this file. In short: operations are made
durable in the order in which they were submitted (claims and chunked walks let all else go first);
an operation's future resolves after the fsync of the commit that
holds it; the counts, the outcomes, the halts and the queue change in the same transaction.

All methods are called from the event loop's thread. Those that return a future submit synchronously, in the tick in
which they are called, and need not be awaited to take effect.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import apsw

from queue_store import index_drops, index_halts
from queue_store.attempts import AttemptLog
from queue_store.committer import Committer
from queue_store.errors import StoreClosed, StoreCorrupt, StoreDamaged
from queue_store.fresh_bodies import FreshBodies
from queue_store.index import Index, mapped
from queue_store.index_reads import IndexReader
from queue_store.mending import NOTED, note_damage, set_aside, set_body_aside
from queue_store.operations import Append, Call, Claiming, Close, Settle, Unclaim, Walk
from queue_store.records import (
    AnalysisPage,
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
from queue_store.recovery import Opened, open_store

__all__ = ["AttemptLog", "QueueStore"]

T = TypeVar("T")

_CHUNK = 500  # recipients of one step of a walk: some 10 ms, which a halt that comes in may have to wait for
_OUTCOMES_IN_PAGE = 1_000
_MOVES = 8  # a body may be copied forward while it is being looked for


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
        loop = asyncio.get_running_loop()
        clock = now if now is not None else _now
        opening = loop.run_in_executor(
            None, partial(open_store, path, reserve=reserve, segment_size=segment_size, now=clock)
        )
        try:
            opened = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_abandon)
            raise
        return cls(path, opened, loop, on_commit=on_commit, on_failed=on_failed)

    def __init__(
        self,
        path: Path,
        opened: Opened,
        loop: asyncio.AbstractEventLoop,
        *,
        on_commit: Callable[[float, int], None] | None,
        on_failed: Callable[[BaseException], None] | None,
    ) -> None:
        self.recovery = opened.recovery
        self.attempts = opened.attempts
        self._loop = loop
        self._opened = opened
        self._index_path = path / "queue.db"
        self._reader: IndexReader | None = None
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="queue-store-reader")
        self._loading = ThreadPoolExecutor(2, thread_name_prefix="queue-store-bodies")
        self._closing: asyncio.Future[None] | None = None
        self._fresh = FreshBodies()
        self._committer = Committer(
            index=opened.index,
            segments=opened.segments,
            room=opened.room,
            attempts=opened.attempts,
            fresh=self._fresh,
            loop=loop,
            on_commit=on_commit,
            on_failed=on_failed,
        )
        self._committer.start()

    async def close(self) -> None:
        """Commit what was submitted, return the claimed recipients to READY, mark the store clean, let go of it."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    # -- the way of a message -------------------------------------------------------------------------------------

    def append(self, message: NewMessage) -> asyncio.Future[Appended]:
        """Store a message with its recipients (all or none). Raises CampaignHalted, StoreFull, StoreFailed."""
        future: asyncio.Future[Appended] = self._loop.create_future()
        self._committer.submit(Append(future, message))
        return future

    def claim(self, lane: str, *, limit: int, cursor: int = 0) -> asyncio.Future[ClaimPage]:
        """Claim up to about `limit` READY recipients of a lane: first those of no campaign, then fairly over its
        campaigns from `cursor` on; none of a halted or held one. Recipients of one message come as one claim
        (at most 100 recipients a claim, RFC 5321 §4.5.3.1.8).
        """
        future: asyncio.Future[ClaimPage] = self._loop.create_future()
        self._committer.submit(Claiming(future, lane, limit, cursor))
        return future

    def unclaim(self, claims: Sequence[tuple[str, int]]) -> asyncio.Future[None]:
        """Put claimed recipients, as (campaign, recipient id), back to READY: no attempt was made."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._committer.submit(Unclaim(future, claims))
        return future

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[Outcome | None]]:
        """Record what became of claimed recipients; gives what was stored of each (None: it waits again).

        When the disk is full the settlement waits for room (the attempt log has it); it never fails with StoreFull.
        """
        future: asyncio.Future[Sequence[Outcome | None]] = self._loop.create_future()
        self._committer.submit(Settle(future, settlements))
        return future

    def promote(self, now: int, *, limit: int = _CHUNK) -> asyncio.Future[Promoted]:
        """Make DEFERRED and SCHEDULED recipients that are due READY, the earliest first."""
        return self._walk(lambda index: index_drops.promote(index, now, limit))

    def recall(self, due_after: int, *, limit: int = _CHUNK) -> asyncio.Future[Promoted]:
        """Make DEFERRED recipients that are due later than that READY: the clock was wrong when they were deferred."""
        return self._walk(lambda index: index_drops.recall(index, due_after, limit))

    def expire(self, received_before: int, *, limit: int = _CHUNK) -> asyncio.Future[Dropped]:
        """Settle as EXPIRED what is not claimed and was received before; held campaigns too, halted ones not."""
        return self._walk(lambda index: index_drops.expire(index, received_before, limit))

    def read_body_nowait(self, message: Message) -> bytes | None:
        """Give the body in wire form if it can be had without waiting for the disk, else None.

        Of mail that came in just now it is in memory still, for the first who asks.

        Raises StoreCorrupt when the record's checksum does not fit.
        """
        body = self._fresh.take(message.id)
        if body is not None:
            return body
        return self._opened.segments.read_nowait(message.segment, message.offset, message.size, message.id)

    async def load_body(self, message: Message) -> bytes:
        """Read the body from the disk, in a thread. Raises StoreCorrupt."""
        return await self._loop.run_in_executor(self._loading, self._load_body, message)

    # -- campaigns ------------------------------------------------------------------------------------------------

    def record_halt(self, request: HaltRequest) -> asyncio.Future[HaltRecord]:
        """Make a halt durable. Works on a full disk, by spending the reserve. From this operation on, appends of the
        campaign raise CampaignHalted. Halting again gives the first record, with `already` set.
        """
        return self._call(lambda index: index_halts.record_halt(index, request), essential=True)

    def drop_campaign(self, campaign: str, *, limit: int = _CHUNK) -> asyncio.Future[Dropped]:
        """Settle as DROPPED up to `limit` recipients of a halted campaign that are not claimed."""
        return self._walk(lambda index: index_drops.drop_campaign(index, campaign, limit), essential=True)

    def record_halt_step(self, campaign: str, step: str, at: int) -> asyncio.Future[HaltRecord]:
        """Record "queue_dropped", "in_flight_finished" or "completed" of a halt."""
        return self._call(lambda index: index_halts.record_halt_step(index, campaign, step, at), essential=True)

    def record_hold(self, campaign: str, *, held: bool, uid: int | None, user: str) -> asyncio.Future[None]:
        """Hold or release a campaign, known or not. Raises CampaignHalted."""
        return self._call(
            lambda index: index_halts.record_hold(index, campaign, held=held, uid=uid, user=user), essential=True
        )

    def count_refused(self, campaign: str, recipients: int, *, discarded: bool = False) -> asyncio.Future[None]:
        """Count recipients that were refused (or discarded) at injection because the campaign is halted."""
        return self._call(lambda index: index_halts.count_refused(index, campaign, recipients, discarded=discarded))

    # -- the administrator ----------------------------------------------------------------------------------------

    def retry(self, which: QueueFilter, *, limit: int = _CHUNK) -> asyncio.Future[Promoted]:
        """Make DEFERRED recipients READY now (`which.state` is not asked; SCHEDULED ones stay)."""
        return self._walk(lambda index: index_drops.retry(index, which, limit))

    def drop(self, which: QueueFilter, *, limit: int = _CHUNK) -> asyncio.Future[Dropped]:
        """Settle as DROPPED what fits and is not claimed."""
        return self._walk(lambda index: index_drops.drop(index, which, limit), essential=True)

    async def queue(self, which: QueueFilter, *, limit: int) -> Sequence[QueueRow]:
        """List queued recipients, the oldest first, from a snapshot of its own (a reader thread)."""
        return await self._read(lambda reader: reader.queue(which, limit))

    def recipients(
        self, campaign: str, *, outcomes: Collection[Outcome] | None = None, after_stop: bool = False
    ) -> AsyncGenerator[Sequence[OutcomeRow], None]:
        """Stream the outcomes of a campaign, in pages, in the order of arrival, from a snapshot of its own."""
        return self._stream(campaign, outcomes, after_stop)

    async def _stream(
        self, campaign: str, outcomes: Collection[Outcome] | None, after_stop: bool
    ) -> AsyncGenerator[Sequence[OutcomeRow], None]:
        above = 0
        while True:
            page = await self._read(
                partial(
                    IndexReader.outcomes,
                    campaign=campaign,
                    outcomes=outcomes,
                    after_stop=after_stop,
                    above=above,
                    limit=_OUTCOMES_IN_PAGE,
                )
            )
            if page:
                yield page
            if len(page) < _OUTCOMES_IN_PAGE:
                return
            above = page[-1].recipient_id

    async def analyse(
        self, campaign: str, one_in: Mapping[Outcome | None, int], *, above: int, limit: int
    ) -> AnalysisPage:
        """Count about `limit` recipients of a campaign, behind recipient `above`, from a snapshot of its own.

        `one_in` says of each outcome (None: of those deferred) that the replies of one recipient in so many are wanted.
        """
        return await self._read(
            partial(IndexReader.analyse, campaign=campaign, one_in=one_in, above=above, limit=limit)
        )

    async def message_outcomes(self, message_id: int) -> Sequence[OutcomeRow]:
        """Outcomes of the recipients of one message (those that still wait are in `queue`)."""
        return await self._read(lambda reader: reader.message_outcomes(message_id))

    def free_bytes(self) -> int:
        """Bytes that are free on the store's file system for mail: less the reserve where it is not on disk yet."""
        return self._opened.room.free()

    def notices(self) -> list[str]:
        """Give what a person should see to, though mail goes on: a sentence each. Looks into the store's folder."""
        folder = self._index_path.parent
        told = [f"damaged files lie in {each}: look at them, and remove it" for each in set_aside(folder)]
        if (folder / NOTED).exists():
            told.append("the index is damaged; the next start makes it anew from what is sound of it: restart soon")
        return told

    def size_bytes(self) -> int:
        """Bytes of the store's whole file system."""
        return self._opened.room.size()

    def silence(self) -> float:
        """Seconds since the committer last came round, idle or not. Many of them: the disk does not answer."""
        return self._committer.silence()

    def prune(self, before: int, *, limit: int = 2_000) -> asyncio.Future[bool]:
        """Forget outcomes (not counts, not halts) older than `before`; gives whether there is more to forget."""
        return self._walk(lambda index: index_drops.prune(index, before, limit))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _call(self, work: Callable[[Index], T], *, essential: bool = False) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        self._committer.submit(Call(future, work, essential=essential))
        return future

    def _walk(self, work: Callable[[Index], T], *, essential: bool = False) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        self._committer.submit(Walk(future, work, essential=essential))
        return future

    async def _read(self, work: Callable[[IndexReader], T]) -> T:
        if self._closing is not None:
            raise StoreClosed("the store is closed")
        return await self._loop.run_in_executor(self._reading, self._read_here, work)

    def _read_here(self, work: Callable[[IndexReader], T]) -> T:
        try:
            if self._reader is None:
                self._reader = IndexReader(self._index_path)
            return work(self._reader)
        except apsw.Error as error:
            known = mapped(error, str(self._index_path), 0)
            if isinstance(known, StoreDamaged):
                note_damage(self._index_path.parent, str(known))
            raise known from error

    def _load_body(self, message: Message) -> bytes:
        """Read a body; where it was copied forward since the message was claimed, at its new place."""
        segments = self._opened.segments
        place = message.segment, message.offset, message.size
        for _ in range(_MOVES):
            try:
                return segments.read(*place, message.id)
            except StoreCorrupt:
                now = self._reading.submit(self._read_here, lambda reader: reader.locate(message.id)).result()
                if now is None:
                    raise
                if now == place:
                    with suppress(OSError):
                        set_body_aside(self._index_path.parent, message.id, segments.read_raw(*place))
                    raise
                place = now
        return segments.read(*place, message.id)

    async def _close(self) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._committer.submit(Close(future))
        try:
            await future
        finally:
            self._committer.join()
            await self._loop.run_in_executor(self._reading, self._close_reader)
            self._reading.shutdown()
            self._loading.shutdown()
            self._opened.attempts.close()
            self._opened.lock.close()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _now() -> int:
    return time.time_ns() // 1000


def _abandon(opening: asyncio.Future[Opened]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abandon()
