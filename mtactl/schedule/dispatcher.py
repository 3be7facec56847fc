"""Makes transactions: opens connections for the lanes and begins on each what its lane hands out.

What it guarantees:

- A transaction begins in one tick: pop, gate check, attempt log, `MAIL FROM` (`_begin`, which has no await in it).
- Nothing sleeps holding a message. A connection that must wait (for the rate, for work, for the disk) holds none.
- Every recipient that began comes to the settler exactly once, also when the connection or the task dies.
- Connections and transactions begin a few in each turn of the event loop, so that all else has its turn soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from mtactl.campaign.gate import Gate
from mtactl.campaign.ledger import Ledger
from mtactl.errors import LocalShortage, PermanentFailure, TransientFailure
from mtactl.message.reply import Reply
from mtactl.schedule.attempt import Attempt
from mtactl.schedule.lane import Lane
from mtactl.schedule.lanes import Lanes
from mtactl.schedule.ports import Relay, RelaySession
from mtactl.schedule.settler import Settler
from mtactl.schedule.turnstile import Turnstile
from mtactl.settings import Settings
from queue_store.errors import StoreCorrupt, StoreFull
from queue_store.records import Claim
from queue_store.store import QueueStore

__all__ = ["Dispatcher"]

_TIDY = 60.0  # seconds
_SHORT = 1.0  # seconds in which no connection is opened after this machine had no room for one
_TELL_SHORT = 60.0  # seconds between two words in the log on that
_LATELY = 5.0  # seconds for which it counts as a problem

# In a turn of the loop: a millisecond or two. A halt takes some five turns from the connection to the answer.
_TRANSACTIONS_A_TURN = 6
_CONNECTIONS_A_TURN = 1

_log = structlog.get_logger("dispatcher")


class Dispatcher:
    """The connections of the node. Called from the event loop's thread only."""

    def __init__(
        self,
        *,
        lanes: Lanes,
        store: QueueStore,
        gate: Gate,
        ledger: Ledger,
        settler: Settler,
        relay: Relay,
        settings: Settings,
        now: Callable[[], int],
    ) -> None:
        self._lanes = lanes
        self._store = store
        self._gate = gate
        self._ledger = ledger
        self._settler = settler
        self._relay = relay
        self._settings = settings
        self._now = now
        self._connections: set[asyncio.Task[None]] = set()
        self._flights: set[Attempt] = set()
        self._group: asyncio.TaskGroup | None = None
        self._stopped = asyncio.Event()
        self._short_at = float("-inf")
        self._short_told = float("-inf")
        self._shortage = ""
        self._connecting = Turnstile(_CONNECTIONS_A_TURN)
        self._beginning = Turnstile(_TRANSACTIONS_A_TURN, is_shut=lambda: settler.is_behind)
        self.lets_expire: Callable[[], bool] = lambda: True  # false while the clock is not to be believed
        settler.on_caught_up = self._beginning.reopen
        lanes.on_wanted = self._open_connection

    @property
    def connections(self) -> int:
        """Connections that are open or being opened."""
        return len(self._connections)

    @property
    def transactions(self) -> int:
        """Transactions in flight."""
        return len(self._flights)

    @property
    def shortage(self) -> str:
        """Say what this machine lacked for a connection lately, "" if nothing."""
        return self._shortage if time.monotonic() < self._short_at + _LATELY else ""

    def in_flight_ids(self) -> set[int]:
        """Give the ids of the recipients in flight."""
        return {recipient.id for attempt in self._flights for recipient in attempt.claim.recipients}

    def in_flight_by_lane(self, campaign: str) -> Mapping[str, int]:
        """Give the recipients of a campaign in flight, by lane."""
        flying: dict[str, int] = {}
        for attempt in self._flights:
            if attempt.claim.message.campaign == campaign:
                lane = attempt.claim.lane
                flying[lane] = flying.get(lane, 0) + len(attempt.claim.recipients)
        return flying

    def change(self, settings: Settings) -> None:
        """Apply other settings."""
        self._settings = settings
        self._lanes.change(settings)

    async def run(self) -> None:
        """Run until `stop`."""
        async with asyncio.TaskGroup() as self._group:
            self._lanes.start()
            while not self._stopped.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), _TIDY)
                self._lanes.forget_idle()

    async def stop(self, grace: float) -> None:
        """Begin nothing more; let transactions in flight finish within `grace` seconds, then cut their connections."""
        self._lanes.stop()
        self._stopped.set()
        flying = {attempt.task for attempt in self._flights}
        for task in self._connections - flying:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=grace)
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        await self._settler.drain()

    def _open_connection(self, lane: Lane) -> bool:
        if self._group is None or len(self._connections) >= self._settings.delivery.max_connections:
            return False
        if time.monotonic() < self._short_at + _SHORT:
            return False
        lane.connections += 1
        lane.connecting += 1
        self._connections.add(self._group.create_task(self._serve(lane), name=f"relay to {lane.name}"))
        return True

    async def _serve(self, lane: Lane) -> None:
        session: RelaySession | None = None
        connecting = True
        try:
            if not self._connecting.passes():
                await self._connecting.wait()
            session = await self._relay.connect(lane.name, lane.name)
            connecting = False
            lane.connecting -= 1
            lane.last_peer = session.peer
            await self._use(lane, session)
            if session.usable:
                await session.quit()
        except LocalShortage as failure:
            self._run_short(lane, failure.reply)
        except TransientFailure as failure:
            self._lanes.fail(lane, failure.reply, failure.peer)
        except PermanentFailure as failure:
            lane.last_said = failure.reply
            self._refuse(lane, self._lanes.remove(lane), failure.reply, peer=failure.peer)
        except Exception as error:  # noqa: BLE001  a defect that one destination brings out must not stop the others
            _log.exception("connection failed unexpectedly", lane=lane.name)
            self._lanes.fail(lane, Reply(451, "4.3.0", f"internal error: {type(error).__name__}"), "")
        finally:
            if connecting:
                lane.connecting -= 1
            lane.connections -= 1
            lane.last_active = time.monotonic()
            self._connections -= {task for task in (asyncio.current_task(),) if task is not None}
            if session is not None:
                session.abort()
            self._lanes.pump(lane)
            self._lanes.feed_starved()

    def _run_short(self, lane: Lane, reply: Reply) -> None:
        """Pause before the next connection of any lane: this one is not to blame, and they would all fail alike."""
        now = time.monotonic()
        lane.last_said = reply
        self._shortage = reply.text
        if now >= self._short_at + _SHORT:  # those that were being opened already fail in the same pause
            self._short_at = now
            asyncio.get_running_loop().call_later(_SHORT + 0.001, self._lanes.pump_starved)
        if now >= self._short_told + _TELL_SHORT:
            self._short_told = now
            _log.warning("no room for connections", lane=lane.name, why=reply.text, connections=len(self._connections))

    async def _use(self, lane: Lane, session: RelaySession) -> None:
        """Make transactions on a session while it may and there are any."""
        loaded: tuple[int, bytes] | None = None
        served = 0
        task = asyncio.current_task()
        idle = self._settings.delivery.idle_connection
        opened_under = lane.settings
        while session.usable and not self._stopped.is_set() and lane.keeps_connection(opened_under, served):
            if not self._beginning.passes():
                await self._beginning.wait()
                if not session.usable or self._stopped.is_set():
                    return
            pause = lane.throttle.wait(time.monotonic())
            if pause > idle:
                return
            if pause > 0.0:
                await asyncio.sleep(pause)
                continue
            claim = self._lanes.pop(lane)
            if claim is None:
                if not await self._lanes.wait_for_work(lane, idle):
                    return
                continue
            body = loaded[1] if loaded is not None and loaded[0] == claim.message.id else self._body(claim)
            loaded = None
            if body is None:
                # The body must come from the disk: the claim goes back while we wait, and is popped (or not) again.
                self._lanes.put_back(lane, claim)
                loaded = await self._load(lane, claim)
                continue
            attempt = Attempt(lane=lane, session=session, claim=claim, reused=served > 0, task=task)
            if self._begin(attempt, session, body):
                await self._finish(attempt, session)
                served += 1

    def _body(self, claim: Claim) -> bytes | None:
        try:
            return self._store.read_body_nowait(claim.message)
        except StoreCorrupt:
            return None  # load_body says so again, where it is dealt with

    async def _load(self, lane: Lane, claim: Claim) -> tuple[int, bytes] | None:
        try:
            return claim.message.id, await self._store.load_body(claim.message)
        except StoreCorrupt as corrupt:
            damaged = self._lanes.remove(lane, lambda other: other.message.id == claim.message.id)
            if not damaged:
                return None  # it was put back on disk while we waited; a halt may have dropped it, with its body
            _log.error("message damaged in the store", message=claim.message.id, what=corrupt.what, path=corrupt.path)
            self._refuse(lane, damaged, Reply(554, "5.3.0", "The message was damaged in our queue"), peer="")
            return None

    def _begin(self, attempt: Attempt, session: RelaySession, body: bytes) -> bool:
        """Begin the transaction of a claim that was popped in this tick; give whether it has begun.

        No await from the gate to MAIL FROM.
        """
        lane, claim = attempt.lane, attempt.claim
        delivery = attempt.make_delivery(body)
        refusal = session.refusal(delivery)
        if refusal is not None:
            self._refuse(lane, [claim], refusal, peer=session.peer)
            return False
        campaign = claim.message.campaign
        if not self._gate.lets_begin(campaign):
            self._lanes.put_on_disk(lane, [claim], stopped=True, popped=True)
            return False
        try:
            attempt.note_begin(self._store.attempts)
        except StoreFull as full:
            self._lanes.put_back(lane, claim)
            raise TransientFailure(Reply(452, "4.3.1", "No room for the attempt log"), session.peer) from full
        recipients = len(claim.recipients)
        self._ledger.begin(campaign, recipients)
        self._flights.add(attempt)
        lane.busy += 1
        lane.in_flight += recipients
        session.begin(delivery)
        lane.throttle.take(time.monotonic(), recipients)
        if lane.connections < lane.concurrency.allowance and lane.window:
            self._lanes.pump(lane)  # it may have more by now, and a full window brings no page that would open one
        return True

    async def _finish(self, attempt: Attempt, session: RelaySession) -> None:
        """Wait for the results of a transaction and settle each of its recipients, come what may."""
        lane = attempt.lane
        try:
            attempt.results = await session.finish()
        finally:
            self._flights.discard(attempt)
            lane.busy -= 1
            lane.in_flight -= len(attempt.claim.recipients)
            closed = self._gate.is_closed(attempt.claim.message.campaign)
            settled = attempt.settle(
                now=self._now(), closed=closed, delivery=self._settings.delivery, lets_expire=self.lets_expire
            )
            self._settler.add(settled, in_flight=True)
        if attempt.was_stale:
            return  # the next connection shows how the destination is
        if attempt.was_lost:
            self._lanes.fail(lane, Reply(451, "4.4.2", attempt.results[0].why or "connection lost"), session.peer)
        else:
            lane.succeed()

    def _refuse(self, lane: Lane, claims: Sequence[Claim], reply: Reply, *, peer: str) -> None:
        """Settle claims as bounced by us, without a transaction; those of campaigns that the gate stops go back."""
        stopped = []
        for claim in claims:
            if not self._gate.lets_begin(claim.message.campaign):
                stopped.append(claim)
                continue
            attempt = Attempt(lane=lane, session=None, claim=claim)
            self._settler.add(attempt.refuse(reply, peer=peer, now=self._now()), in_flight=False)
        self._lanes.put_on_disk(lane, stopped, stopped=True, popped=True)
