"""The committer: one thread that makes operations durable, in the order of their submission, many in one commit.

Whatever gathered while the last commit ran is the next batch. Claims, and chunked walks (drops, promotions, expiry),
let all else go first: what came in, what went out and above all a halt never wait for more than the commit under way
and the mail before them. Behind each batch, unless a halt has come in by then, follows a commit of claims or of a chunk
of a walk, in turn and each in order. What a drop left behind is copied together likewise, as if it were the last walk.
After a chunk the store rests from walks in proportion to the CPU that it took, unless there is nothing else to do. So
neither can starve the other, however slow the disk or busy the loop.

Within a batch, appends are written together and settlements are written together; any other operation waits for those
before it. The bodies are synced first, then the index is committed, then all results go to the event loop in one
call. An operation that can't be done has its error as its result; if it spoils the transaction, the batch is rolled
back and its operations are done one by one, so that no other suffers. On a full disk appends fail with StoreFull, the
others wait for room, and one that is essential (a halt) spends the reserve. After a failed write or fsync nothing is
tried again: what is on disk then is not known.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import apsw

from queue_store.attempts import AttemptLog
from queue_store.batch import Batch, Result
from queue_store.errors import StoreClosed, StoreCorrupt, StoreDamaged, StoreError, StoreFailed, StoreFull
from queue_store.failpoints import ARMED, reach
from queue_store.fresh_bodies import FreshBodies
from queue_store.index import Index, mapped, may_be_durable
from queue_store.mending import note_damage
from queue_store.operations import Append, Call, Claiming, Close, Operation, Settle, Unclaim, Walk
from queue_store.recovery import mark_clean
from queue_store.room import Room
from queue_store.segments import Segments
from queue_store.upkeep import Upkeep

__all__ = ["Committer"]

_WEIGHT_OF_BATCH = 100  # recipients; some 10 ms, which a halt may have to wait
_WEIGHT_OF_CLAIMS = 40  # recipients of claims after which a commit takes no more of them
_WALK_REST = 4.0  # seconds for each second of CPU that a walk took
_BODIES_IN_BATCH = 32 << 20  # bytes
_ROOM_BESIDE = 16 << 20  # bytes that appends leave for settlements, claims and the write-ahead log
_ROOM_PER_APPEND = 4096  # bytes of rows and log
_IDLE = 0.05  # seconds without an operation, before upkeep
_REST = 0.5  # seconds between looks at whether there is upkeep to do
_STALL = 0.25  # seconds between tries on a full disk


class Committer:
    """Owns the index, the segments and the reserve from `start` to the end of its thread."""

    def __init__(
        self,
        *,
        index: Index,
        segments: Segments,
        room: Room,
        attempts: AttemptLog,
        fresh: FreshBodies,
        loop: asyncio.AbstractEventLoop,
        on_commit: Callable[[float, int], None] | None,
        on_failed: Callable[[BaseException], None] | None,
    ) -> None:
        self._index = index
        self._segments = segments
        self._room = room
        self._attempts = attempts
        self._fresh = fresh
        self._loop = loop
        self._on_commit = on_commit
        self._on_failed = on_failed
        self._upkeep = Upkeep(index, segments, room)
        self._operations: queue.SimpleQueue[Operation] = queue.SimpleQueue()
        self._stalled: list[Operation] = []
        self._claims: deque[Claiming] = deque()
        self._walks: deque[Walk] = deque()
        self._urgent_in = 0  # urgent operations that were submitted; written by the loop's thread
        self._urgent_out = 0  # of these, taken; written by the committer's
        self._rested = 0.0  # time.monotonic: when walks may go on
        self._walked = False  # the last time that there were claims or walks to do
        self._has_worked = False  # since the last walk
        self._failure: StoreFailed | None = None
        self._closed = False
        self._turned = time.monotonic()  # when the thread last came round; idle, it does so each _REST
        self._thread = threading.Thread(target=self._run, name="queue-store-committer", daemon=True)

    def start(self) -> None:
        """Begin to take operations."""
        self._thread.start()

    def submit(self, operation: Operation) -> None:
        """Take an operation; it is done after all of its kind that were submitted before. For the loop's thread."""
        if self._closed:
            operation.future.set_exception(StoreClosed("the store is closed"))
            return
        if isinstance(operation, Close):
            self._closed = True
        elif isinstance(operation, Call) and operation.is_urgent:
            self._urgent_in += 1
        self._operations.put(operation)

    def silence(self) -> float:
        """Give the seconds since the thread last came round: long ones if a write, an fsync or a walk does not end."""
        return time.monotonic() - self._turned

    def join(self) -> None:
        """Wait for the thread's end, which follows at once on the result of Close."""
        self._thread.join()

    # -- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        closing: Close | None = None
        while closing is None:
            self._turned = time.monotonic()
            batch, closing = self._gather()
            if batch:
                self._has_worked = True
                self._commit_or_fail(batch)
            if closing is None and self._urgent_in == self._urgent_out:
                idle = not self._follow() and not batch
                if idle or self._upkeep.overdue():
                    self._keep_up(partial(self._upkeep.step, idle=idle))
        self._finish(closing)

    def _follow(self) -> bool:
        """Do some claims, or a chunk of a walk if it is its time: whichever was not done last. Give whether any was."""
        if self._stalled:
            return False
        may_walk = self._until_walk() <= 0.0
        if self._claims and (self._walked or not may_walk):
            self._walked = False
            self._has_worked = True
            self._commit_or_fail(self._next_claims())
            if ARMED:
                reach("claims-committed")
            return True
        if not may_walk:
            return False
        began = time.thread_time()
        if self._walks:
            walk = self._walks.popleft()
            self._commit_or_fail([walk])
            if ARMED:
                reach("walk-committed")
            if walk.essential:  # a drop
                self._upkeep.note_dropped()
        else:
            self._keep_up(self._upkeep.compact)
        self._walked = True
        rest = (time.thread_time() - began) * _WALK_REST if self._has_worked else 0.0
        self._rested = time.monotonic() + rest
        self._has_worked = False
        return True

    def _until_walk(self) -> float:
        """Give the seconds until a walk, or else what follows a drop, may go on; infinity when there is none."""
        at = self._rested if self._walks else max(self._rested, self._upkeep.compact_at)
        return at - time.monotonic()

    def _next_claims(self) -> Sequence[Operation]:
        claims: list[Claiming] = []
        weight = 0
        while self._claims and weight < _WEIGHT_OF_CLAIMS:
            claims.append(self._claims.popleft())
            weight += claims[-1].weight
        return claims

    def _commit_or_fail(self, batch: Sequence[Operation]) -> None:
        """Do a batch; whatever goes wrong in the handling of what went wrong ends the store, not the thread."""
        try:
            self._commit_all(batch)
        except Exception as error:  # noqa: BLE001 - those who wait must be answered
            self._fail(error)
            self._stalled = []
            self._tell([(operation, None, self._failure) for operation in batch], 0.0)

    def _gather(self) -> tuple[list[Operation], Close | None]:
        """Wait for operations; give those that are there, up to a batch, and Close if it has come."""
        batch, self._stalled = self._stalled, []
        timeout = _STALL if batch else 0.0 if self._claims else _IDLE if self._upkeep.wanted() else _REST
        if not batch:
            timeout = min(timeout, max(0.0, self._until_walk()))
        closing = self._take(batch, timeout)
        if closing is not None:
            batch += [*self._claims, *self._walks]
        return batch, closing

    def _take(self, batch: list[Operation], timeout: float) -> Close | None:
        """Take operations, waiting for the first: claims and walks where they wait, others into a batch until it is
        full or a halt's record is in it.
        """
        weight = size = 0
        with contextlib.suppress(queue.Empty):
            operation = self._operations.get(timeout=timeout) if timeout else self._operations.get_nowait()
            while not isinstance(operation, Close):
                if isinstance(operation, Claiming):
                    self._claims.append(operation)
                elif isinstance(operation, Walk):
                    self._walks.append(operation)
                else:
                    batch.append(operation)
                    weight += operation.weight
                    if isinstance(operation, Append):
                        size += sum(map(len, operation.message.body))
                    urgent = isinstance(operation, Call) and operation.is_urgent
                    self._urgent_out += urgent
                    if urgent or weight >= _WEIGHT_OF_BATCH or size >= _BODIES_IN_BATCH:
                        return None
                operation = self._operations.get_nowait()
            return operation
        return None

    def _commit_all(self, batch: Sequence[Operation], *, closing: bool = False) -> None:
        """Do a batch, as one transaction if it can be, and tell the results. What must wait for room is kept."""
        results: list[Result] = []
        began = time.perf_counter()
        waiting = self._refuse_without_room(batch, results)
        while waiting and self._failure is None:
            try:
                results += self._attempt(waiting)
                waiting = ()
            except (apsw.FullError, StoreFull) as error:
                waiting = self._make_room(waiting, error, results, closing=closing)
            except (StoreFailed, apsw.Error, OSError) as error:
                known = error if isinstance(error, StoreError) else mapped(error, str(self._index.path), 0)
                if isinstance(known, (StoreFailed, StoreCorrupt)):
                    self._fail(known)
                else:
                    waiting = self._blame(waiting, known, results)
            except Exception as error:  # noqa: BLE001 - whatever a value causes is its own operation's result
                waiting = self._blame(waiting, error, results)
        results += [(operation, None, self._failure) for operation in waiting]
        if results:
            self._tell(results, time.perf_counter() - began)
        self._copy_promises()

    def _copy_promises(self, *, closing: bool = False) -> None:
        """Write halts and holds that are durable and answered to their second copy (halt_journal.py)."""
        journal = self._index.journal
        if journal is None or not (journal.unsynced or closing) or self._failure is not None:
            return
        try:
            journal.sync()
        except OSError as error:
            self._fail(error)

    def _make_room(
        self, batch: Sequence[Operation], error: Exception, results: list[Result], *, closing: bool
    ) -> Sequence[Operation]:
        """Fail the appends of a batch that met a full disk, or else spend the reserve; give what may be tried now."""
        full = error if isinstance(error, StoreFull) else StoreFull(str(self._index.path.parent), self._room.free())
        results += [(operation, None, full) for operation in batch if isinstance(operation, Append)]
        left: list[Operation] = [operation for operation in batch if not isinstance(operation, Append)]
        if len(left) < len(batch) or self._upkeep.relieve():
            return left
        essential = [operation for operation in left if isinstance(operation, Call) and operation.essential]
        if (essential or closing) and self._room.spend():
            return left
        # Who asks for a halt must hear that it is not durable; the rest waits, and nothing of it is lost.
        results += [(operation, None, full) for operation in essential]
        self._stalled = [operation for operation in left if operation not in essential]
        return ()

    def _blame(self, batch: Sequence[Operation], error: Exception, results: list[Result]) -> Sequence[Operation]:
        """Give an error to the one operation of a batch, or find in a larger one whose it is."""
        if len(batch) == 1:
            results.append((batch[0], None, error))
        else:
            self._one_by_one(batch, results)
        return ()

    def _one_by_one(self, batch: Sequence[Operation], results: list[Result]) -> None:
        """Do the operations of a batch that was rolled back for one's sake, each in its own transaction."""
        if results:
            self._tell(results, 0.0)
            results.clear()
        for at, operation in enumerate(batch):
            self._commit_all([operation])
            if self._stalled:  # full: the rest waits behind it, in order
                self._stalled += batch[at + 1 :]
                return

    def _attempt(self, batch: Sequence[Operation]) -> list[Result]:
        """Do a batch in one transaction and make it durable. When it raises, nothing was done that counts."""
        index, segments = self._index, self._segments
        active, length = segments.active, segments.length(segments.active)
        try:
            work = Batch(index, segments)
            index.begin(one_write=work.is_one_write(batch))
            results = work.do(batch)
            if ARMED:
                reach("batch-written")
            index.commit()
        except BaseException as error:
            with contextlib.suppress(apsw.Error):  # what failed is told; a rollback that fails too adds nothing
                index.rollback()
            if ARMED:
                reach("batch-rolled-back")
            # Rows that may be there at the next opening need their bodies; what no row needs is cut off then.
            if segments.active == active and not may_be_durable(error):
                segments.rollback(length)
                if ARMED:
                    reach("segment-cut-back")
            raise
        if ARMED:
            reach("batch-committed")
            if any(isinstance(operation, Call) and operation.is_urgent for operation in batch):
                reach("halt-committed")
        if segments.seal_if_full() is not None:
            if ARMED:
                reach("segment-sealed")
            self._upkeep.note_sealed()
        return results

    def _refuse_without_room(self, batch: Sequence[Operation], results: list[Result]) -> Sequence[Operation]:
        """Fail the appends for which there is no room, before anything is written; give what is left."""
        sizes = [sum(map(len, item.message.body)) + _ROOM_PER_APPEND for item in batch if isinstance(item, Append)]
        if not sizes or self._failure is not None:
            return batch
        free = self._room.free()
        if free >= sum(sizes) + _ROOM_BESIDE:
            return batch
        left: list[Operation] = []
        room = free - _ROOM_BESIDE
        for operation in batch:
            if isinstance(operation, Append):
                room -= sizes.pop(0)
                if room < 0:
                    results.append((operation, None, StoreFull(str(self._index.path.parent), free)))
                    continue
            left.append(operation)
        return left

    def _keep_up(self, step: Callable[[], None]) -> None:
        if self._failure is not None:
            self._upkeep.compact_at = math.inf
            return
        try:
            step()
        except (apsw.FullError, StoreFull):
            self._upkeep.put_off()
        except (apsw.Error, OSError) as error:
            self._fail(mapped(error, str(self._index.path), 0))
        except Exception as error:  # noqa: BLE001 - the thread must live to answer those who wait for it
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Take no more writes."""
        if self._failure is not None:
            return
        failure = StoreFailed(f"the store takes no more writes: {error}")
        failure.__cause__ = error
        if isinstance(error, StoreDamaged):
            note_damage(self._index.path.parent, str(error))
        self._failure = failure
        if self._on_failed is not None:
            self._call(self._on_failed, failure)

    def _finish(self, closing: Close) -> None:
        """Do what waits for room with the reserve, return the claims, mark the store clean, let go of the files."""
        error: BaseException | None = None
        try:
            if self._stalled:
                self._commit_all(self._stalled, closing=True)
            self._upkeep.end()  # its checkpoint and the last one would be in each other's way
            if self._failure is None:
                mark_clean(self._index, self._room)
                if ARMED:
                    reach("clean-log-copied")
        except (StoreError, apsw.Error, OSError) as problem:
            error = problem if isinstance(problem, StoreError) else mapped(problem, str(self._index.path), 0)
        finally:
            self._copy_promises(closing=True)
            self._segments.close()
            if ARMED:
                reach("segments-closed")
            self._index.close()
            if self._index.journal is not None:
                self._index.journal.close()
            if ARMED:
                reach("index-closed")
            self._upkeep.close()
        results: list[Result] = [
            (operation, None, self._failure or StoreClosed("the disk is full")) for operation in self._stalled
        ]
        results.append((closing, None, error))
        self._tell(results, 0.0)

    # -- back to the loop -----------------------------------------------------------------------------------------

    def _tell(self, results: list[Result], seconds: float) -> None:
        self._call(self._resolve, results, seconds)

    def _call(self, function: Callable[..., None], *values: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed without closing the store: no one listens
            self._loop.call_soon_threadsafe(function, *values)

    def _resolve(self, results: list[Result], seconds: float) -> None:
        """Resolve the futures of a commit, in order; free the attempt slots of what is settled."""
        if self._on_commit is not None and seconds:
            self._on_commit(seconds, len(results))
        for operation, value, error in results:
            future = operation.future
            if error is None and isinstance(operation, Settle):
                for settlement in operation.settlements:
                    if settlement.slot is not None:
                        self._attempts.free(settlement.slot)
            if not future.done():
                if error is None:
                    if isinstance(operation, Append) and len(value.claims) == 1:
                        self._fresh.put(value.message_id, operation.message.body)
                    future.set_result(value)
                else:
                    future.set_exception(error)
            elif error is None and isinstance(operation, (Append, Claiming)):
                self._take_back(value.claims)

    def _take_back(self, claims: Sequence[Any]) -> None:
        """Put back claims that no one will get: the caller was cancelled while they became durable."""
        if claims and not self._closed:
            pairs = [(claim.message.campaign, recipient.id) for claim in claims for recipient in claim.recipients]
            self.submit(Unclaim(self._loop.create_future(), pairs))
