"""The races that matter, each set up by hand: a real store, the real core, a relay that answers when the test says."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
import structlog

from mtactl.campaign.state import CampaignEvent, CampaignState
from mtactl.core import Core
from mtactl.errors import PermanentFailure
from mtactl.message.reply import Reply
from mtactl.schedule.lane import LaneState
from mtactl.schedule.ports import Ending
from mtactl.settings import DeliverySettings, LaneSettings, Settings
from queue_store.errors import StoreCorrupt, StoreFailed
from queue_store.records import NewMessage, NewRecipient, Outcome
from queue_store.store import QueueStore
from tests.world.scripted_relay import ScriptedRelay

BODY = b"Subject: x\r\n\r\nhello\r\n.\r\n"


class Bench:
    """A running core with its relay and its clock."""

    def __init__(self, tmp_path):
        self.path = tmp_path / "store"
        self.clock = 1_800_000_000_000_000
        self.began: list[str] = []

    async def wait(self, condition, *, seconds=5.0):
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.002)

    async def inject(self, campaign="c", lane="one.test", recipients=1, *, claimed=None):
        fresh = self.core.claim_for(lane, campaign, recipients) if claimed is None else claimed
        message = NewMessage(
            campaign=campaign,
            reverse_path="s@x.test",
            received_at=self.clock,
            body=[BODY],
            recipients=[NewRecipient(address=f"r{k}@{lane}", lane=lane, claimed=fresh) for k in range(recipients)],
        )
        appended = await self.store.append(message)
        self.core.enter(appended, message)
        return appended

    def account(self, campaign="c"):
        return self.core.ledger.account(campaign)

    async def rows(self, campaign="c"):
        await self.core.settler.drain()  # the books move at the reply, the rows with the commit
        return [row async for page in self.store.recipients(campaign) for row in page]


@contextlib.asynccontextmanager
async def running(bench, **settings):
    lane = LaneSettings(**{"max_connections": 2, "backoff": (0.05,), **settings.pop("lane", {})})
    delivery = DeliverySettings(
        **{"retry": (60.0,), "expire_after": 3600.0, "idle_connection": 0.2, "shutdown_timeout": 0.0, **settings}
    )
    bench.store = await QueueStore.open(bench.path, reserve=1 << 20, now=lambda: bench.clock)
    bench.relay = ScriptedRelay(lambda d: bench.began.extend(r.address for r in d.recipients))
    bench.core = Core(
        store=bench.store,
        relay=bench.relay,
        settings=Settings(delivery=delivery, lane={"*": lane}),
        now=lambda: bench.clock,
        monotonic=lambda: bench.clock / 1e6,
    )
    try:
        async with bench.core:
            yield bench
    finally:
        await bench.store.close()


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


async def test_a_halt_while_the_body_is_read_begins_nothing(bench, monkeypatch):
    """A sleeper that holds a message through a halt is the leak that other servers have."""
    async with running(bench):
        reading, go_on = asyncio.Event(), asyncio.Event()
        load = bench.store.load_body

        async def slow(message):
            reading.set()
            await go_on.wait()
            return await load(message)

        monkeypatch.setattr(bench.store, "read_body_nowait", lambda _message: None)
        monkeypatch.setattr(bench.store, "load_body", slow)
        await bench.inject()
        await reading.wait()
        halt = await bench.core.halter.halt("c", reason=None, uid=0, user="root")
        go_on.set()
        await bench.wait(lambda: bench.core.gate.state("c") is CampaignState.HALTED)
        assert bench.began == [] and halt.kind == "cancel" and halt.queued_at_stop == 1
        assert bench.account().dropped == 1


async def test_a_body_that_is_gone_with_its_halted_campaign_is_not_damaged(bench, monkeypatch):
    """A halt whose space comes back at once would fill the log with messages that look damaged."""
    async with running(bench):
        reading, go_on = asyncio.Event(), asyncio.Event()

        async def gone(_message):
            reading.set()
            await go_on.wait()
            raise StoreCorrupt("segment 1", "no such file")

        monkeypatch.setattr(bench.store, "read_body_nowait", lambda _message: None)
        monkeypatch.setattr(bench.store, "load_body", gone)
        with structlog.testing.capture_logs() as logged:
            await bench.inject()
            await reading.wait()
            await bench.core.halter.halt("c", reason=None, uid=0, user="root")
            await bench.wait(lambda: bench.core.gate.state("c") is CampaignState.HALTED)
            go_on.set()
            await asyncio.sleep(0.05)
        assert not [line for line in logged if line["log_level"] == "error"]
        assert bench.account().dropped == 1


async def test_a_body_that_is_not_in_memory_is_read_and_sent(bench, monkeypatch):
    """A file system without RWF_NOWAIT would deliver nothing at all."""
    async with running(bench):
        monkeypatch.setattr(bench.store, "read_body_nowait", lambda _message: None)
        await bench.inject(recipients=2)
        await bench.wait(lambda: len(bench.began) == 2)
        session = next(iter(bench.relay.open))
        assert session.delivery.body.endswith(BODY)
        session.answer(Ending.DELIVERED)
        await bench.wait(lambda: bench.account().delivered == 2)


async def test_a_lane_that_is_limited_holds_no_message_while_it_waits(bench):
    """A rate limiter that sleeps with a message in hand sends it after the stop."""
    async with running(bench, lane={"rate": 2.0, "max_connections": 1}):
        for _ in range(3):
            await bench.inject()
        await bench.wait(lambda: bench.relay.open)
        next(iter(bench.relay.open)).answer(Ending.DELIVERED)
        await bench.wait(lambda: bench.account().delivered == 1)
        assert bench.core.lanes.find("one.test").state(time.monotonic()) is LaneState.THROTTLED
        await bench.core.halter.halt("c", reason=None, uid=0, user="root")
        await bench.wait(lambda: bench.core.gate.state("c") is CampaignState.HALTED)
        await asyncio.sleep(0.7)
        assert len(bench.began) == 1 and bench.account().dropped == 2


async def test_a_limited_lane_goes_on_by_itself(bench):
    """A lane whose pause is longer than its idle connections live would never be woken."""
    async with running(bench, idle_connection=0.01, lane={"rate": 5.0, "max_connections": 1}):
        for _ in range(3):
            await bench.inject()
        for count in (1, 2, 3):
            await bench.wait(lambda: bench.relay.open)
            next(iter(bench.relay.open)).answer(Ending.DELIVERED)
            await bench.wait(lambda count=count: bench.account().delivered == count)


async def test_a_lane_in_back_off_holds_nothing_and_recovers(bench):
    """What a dead destination holds in memory is lost to other lanes; what it forgets is never sent."""
    async with running(bench, lane={"backoff": (0.3,)}):
        bench.relay.dead.add("one.test")
        await bench.inject(recipients=3)
        lane = bench.core.lanes.find("one.test")
        await bench.wait(lambda: lane.backoff_until_wall is not None)
        assert lane.window.recipients == 0 and "refused" in lane.last_reply
        assert bench.account().queued == 3 and bench.account().deferrals == 0
        await bench.wait(lambda: bench.core.lanes.in_backoff() == 1)
        bench.relay.dead.clear()
        await bench.wait(lambda: bench.relay.open)
        assert bench.core.lanes.in_backoff() == 0
        next(iter(bench.relay.open)).answer(Ending.DELIVERED)
        await bench.wait(lambda: bench.account().delivered == 3)


async def test_outcomes_that_arrive_after_the_gate_closed_are_marked(bench):
    """delivered_after_stop is the figure that no one else reports."""
    async with running(bench, lane={"max_connections": 5}):
        for _ in range(5):
            await bench.inject()
        await bench.wait(lambda: len(bench.relay.open) == 5)
        endings = [Ending.DELIVERED, Ending.PERMANENT, Ending.TRANSIENT, Ending.LOST, Ending.LOST]
        sessions = list(bench.relay.open)
        sessions[4].end_message()
        halt = await bench.core.halter.halt("c", reason="typo", uid=7, user="eve")
        assert (halt.kind, halt.in_flight_at_stop, halt.queued_at_stop) == ("stop", 5, 0)
        for session, ending in zip(sessions, endings, strict=True):
            session.answer(ending)
        await bench.wait(lambda: bench.core.gate.state("c") is CampaignState.HALTED)
        account = bench.account()
        assert (account.delivered, account.delivered_after_stop) == (1, 1)
        assert (account.bounced, account.dropped, account.unknown, account.queued) == (1, 2, 1, 0)
        rows = await bench.rows()
        assert all(row.after_stop for row in rows)
        assert sorted(row.outcome.name for row in rows) == ["BOUNCED", "DELIVERED", "DROPPED", "DROPPED", "UNKNOWN"]


async def test_a_halt_completes_while_others_keep_settling(bench):
    """On a busy node there is always a settlement under way: a halt that waits for none would never be complete."""
    async with running(bench, lane={"max_connections": 5}):
        await bench.inject()
        await bench.wait(lambda: bench.relay.open)
        others = asyncio.get_running_loop().create_future()
        bench.core.settler._pending.add(others)  # a commit that does not end
        waiting = asyncio.ensure_future(bench.core.settler.drain())
        await asyncio.sleep(0)
        bench.core.settler._pending.add(asyncio.get_running_loop().create_future())  # another's, from later
        others.set_result([])
        await asyncio.wait_for(waiting, 5.0)
        bench.core.settler._pending.clear()
        next(iter(bench.relay.open)).answer(Ending.DELIVERED)
        await bench.wait(lambda: bench.account().delivered == 1)


async def test_halting_again_gives_the_first_halts_facts(bench):
    """A second stop that overwrote the first would falsify who stopped it and when."""
    async with running(bench):
        first, same = await asyncio.gather(
            bench.core.halter.halt("c", reason="one", uid=1, user="a"),
            bench.core.halter.halt("c", reason="two", uid=2, user="b"),
        )
        bench.clock += 1_000_000
        later = await bench.core.halter.halt("c", reason="three", uid=3, user="c")
        assert first is same is later and (later.reason, later.requested_user) == ("one", "a")


async def test_what_is_lost_behind_a_halt_that_is_not_on_record_is_tried_again(bench, monkeypatch):
    """A recipient would never get the mail of a campaign that was not halted: the daemon died before the record."""
    async with running(bench):
        never = asyncio.get_running_loop().create_future()
        monkeypatch.setattr(bench.store, "record_halt", lambda _request: never)
        await bench.inject()
        await bench.wait(lambda: bench.relay.open)
        (session,) = bench.relay.open
        session.end_message()
        halting = asyncio.ensure_future(bench.core.halter.halt("c", reason=None, uid=0, user="root"))
        await bench.wait(lambda: bench.core.gate.is_closed("c"))
        session.answer(Ending.LOST)
        await bench.wait(lambda: not bench.account().in_flight)
        assert await bench.rows() == []
        assert (bench.account().queued, bench.account().in_flight, bench.account().unknown) == (1, 0, 0)
        halting.cancel()
        await asyncio.wait([halting])
        never.cancel()
    async with running(bench):
        halt = await bench.core.halter.halt("c", reason=None, uid=0, user="root")
        await bench.wait(lambda: bench.core.gate.state("c") is CampaignState.HALTED)
        assert (halt.kind, [row.outcome for row in await bench.rows()]) == ("stop", [Outcome.UNKNOWN])


async def test_a_halt_that_cannot_be_recorded_says_so_and_the_gate_stays_closed(bench, monkeypatch):
    """An operator who is told 'halted' while nothing is on disk would be wrong after the next restart."""
    async with running(bench):

        def fail(_request):
            future = asyncio.get_running_loop().create_future()
            future.set_exception(StoreFailed("disk I/O error"))
            return future

        monkeypatch.setattr(bench.store, "record_halt", fail)
        with pytest.raises(StoreFailed):
            await bench.core.halter.halt("c", reason=None, uid=0, user="root")
        await bench.inject()
        await asyncio.sleep(0.1)
        assert bench.began == [] and not bench.core.gate.lets_begin("c") and bench.account().queued == 1


async def test_no_such_domain_bounces_what_waits_without_a_transaction(bench, monkeypatch):
    """Mail for a domain that does not exist would wait for days, or count as begun."""
    async with running(bench):

        async def connect(lane, domain):
            raise PermanentFailure(Reply(550, "5.1.2", "no such domain"))

        monkeypatch.setattr(bench.relay, "connect", connect)
        await bench.inject(recipients=3)
        await bench.wait(lambda: bench.account().bounced == 3)
        halt = await bench.core.halter.halt("c", reason=None, uid=0, user="root")
        assert halt.kind == "cancel"  # nothing of it ever began
        assert {row.code for row in await bench.rows()} == {550}


async def test_a_damaged_message_is_reported_and_never_sent(bench, monkeypatch):
    """Half a newsletter with another customer's text in it."""
    async with running(bench):

        def damaged(_message):
            raise StoreCorrupt("segment 1", "checksum")

        async def damaged_too(_message):
            raise StoreCorrupt("segment 1", "checksum")

        monkeypatch.setattr(bench.store, "read_body_nowait", damaged)
        monkeypatch.setattr(bench.store, "load_body", damaged_too)
        await bench.inject(recipients=2)
        await bench.wait(lambda: bench.account().bounced == 2)
        assert bench.began == [] and {row.outcome for row in await bench.rows()} == {Outcome.BOUNCED}


async def test_a_connection_that_fails_in_an_unforeseen_way_stops_no_other(bench, monkeypatch):
    """A defect that one peer brings out would take the daemon down with it."""
    async with running(bench):
        connect = bench.relay.connect

        async def sometimes(lane, domain):
            if lane == "odd.test":
                raise ZeroDivisionError
            return await connect(lane, domain)

        monkeypatch.setattr(bench.relay, "connect", sometimes)
        await bench.inject(lane="odd.test")
        await bench.wait(lambda: bench.core.lanes.find("odd.test").backoff_until_wall is not None)
        await bench.inject(lane="one.test")
        await bench.wait(lambda: bench.began == ["r0@one.test"])
        assert "internal error" in bench.core.lanes.find("odd.test").last_reply


async def test_shutdown_cuts_what_does_not_finish_and_the_books_balance_after_the_restart(bench):
    """A transaction that was cut off must be neither lost nor counted twice."""
    async with running(bench):
        await bench.inject()
        await bench.inject()
        await bench.wait(lambda: len(bench.relay.open) == 2)
        next(iter(bench.relay.open)).end_message()
    assert bench.account().in_flight == 0 and bench.account().deferrals == 2
    async with running(bench):
        assert bench.account().balanced and bench.account().queued == 2 and bench.account().deferred == 2


async def test_a_hold_puts_the_window_back_and_a_release_lets_it_go_on(bench):
    """A held campaign that kept its window would lose it at a restart, or leak it."""
    async with running(bench, lane={"max_connections": 1}):
        for _ in range(4):
            await bench.inject()
        await bench.wait(lambda: len(bench.relay.open) == 1)
        bench.core.gate.move("c", CampaignEvent.HOLD)
        recorded = bench.store.record_hold("c", held=True, uid=0, user="root")
        bench.core.lanes.evict_campaign("c")
        await recorded
        next(iter(bench.relay.open)).answer(Ending.TRANSIENT)
        await asyncio.sleep(0.1)
        assert len(bench.began) == 1 and bench.account().queued == 4 and bench.account().dropped == 0
        await bench.store.record_hold("c", held=False, uid=0, user="root")
        bench.core.gate.move("c", CampaignEvent.RELEASE)
        bench.core.lanes.wake_held_back()
        for _ in range(3):
            await bench.wait(lambda: bench.relay.open)
            next(iter(bench.relay.open)).answer(Ending.DELIVERED)
        await bench.wait(lambda: bench.account().delivered == 3)


async def test_the_windows_are_bounded_however_long_the_queue_is(bench, monkeypatch):
    """Memory would grow with the queue."""
    monkeypatch.setattr("mtactl.schedule.lanes._WINDOWS", 50)
    async with running(bench, lane={"max_connections": 1}):
        lanes = [f"d{k}.test" for k in range(10)]
        for lane in lanes:
            for _ in range(20):
                await bench.inject(lane=lane)
        held = sum(lane.window.recipients for lane in bench.core.lanes)
        assert held <= 50
        for _ in range(200):
            await bench.wait(lambda: bench.relay.open)
            next(iter(bench.relay.open)).answer(Ending.DELIVERED)
            assert sum(lane.window.recipients for lane in bench.core.lanes) <= 50
        await bench.wait(lambda: bench.account().delivered == 200)


async def test_old_mail_expires_and_an_attempt_that_comes_too_late_is_the_last(bench):
    """Mail that is never given up is never reported."""
    async with running(bench, lane={"max_connections": 1}):
        await bench.inject()
        await bench.inject()
        await bench.wait(lambda: bench.relay.open)
        bench.clock += 4_000_000_000
        next(iter(bench.relay.open)).answer(Ending.TRANSIENT)
        await bench.wait(lambda: bench.account().expired == 1)
