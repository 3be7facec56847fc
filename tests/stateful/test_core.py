"""Store, campaign and schedule together, in arbitrary orders, against a model of a few sets.

The real store in a folder, the real dispatcher and halter; only the relay is scripted. A crash is a copy of the folder
as it is at that moment (the attempt log's memory is in the page cache, as after kill -9), opened anew.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import threading
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mtactl.campaign.state import CampaignEvent, CampaignState
from mtactl.core import Core
from mtactl.errors import IllegalMove
from mtactl.schedule.ports import Ending
from mtactl.settings import DeliverySettings, LaneSettings, Settings
from queue_store.errors import CampaignHalted
from queue_store.records import NewMessage, NewRecipient, Outcome, QueueFilter
from queue_store.store import QueueStore
from tests.world.scripted_relay import ScriptedRelay

CAMPAIGNS = ["", "a", "b", "c"]
LANES = ["one.test", "two.test"]
SETTINGS = Settings(
    delivery=DeliverySettings(retry=(60.0,), expire_after=3600.0, idle_connection=0.01, shutdown_timeout=0.0),
    lane={"*": LaneSettings(max_connections=3, max_recipients_per_transaction=2, backoff=(0.001,))},
)


class CoreMachine(RuleBasedStateMachine):
    """Rules are what clients, peers, operators and fate do; the invariant is CONTRACT.md §1 and §2."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="mtactl-core-"))
        self.generation = itertools.count()
        self.clock = 1_800_000_000_000_000
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.campaign_of: dict[str, str] = {}
        self.delivered: Counter[str] = Counter()  # answered 250 by the relay, by address
        self.halted: set[str] = set()
        self.maybe: set[str] = set()  # a transaction of it was cut off after the end of the message
        self.serial = itertools.count(1)

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    async def settled_down(self) -> None:
        """Let everything that can happen without the outside world happen."""
        for _ in range(4):
            await asyncio.sleep(0)
            await self.core.settler.drain()
            await self.core.store.unclaim([])
        await asyncio.sleep(0.002)

    def began(self, delivery) -> None:
        for recipient in delivery.recipients:
            campaign = self.campaign_of[recipient.address]
            assert campaign not in self.halted, f"{recipient.address} of the halted {campaign} began"
            assert self.core.gate.lets_begin(campaign)

    async def _open(self, folder: Path) -> None:
        self.path = folder
        self.store = await QueueStore.open(folder, reserve=1 << 20, segment_size=1 << 16, now=lambda: self.clock)
        self.relay = ScriptedRelay(self.began)
        self.core = Core(
            store=self.store,
            relay=self.relay,
            settings=SETTINGS,
            now=lambda: self.clock,
            monotonic=lambda: self.clock / 1e6,
        )
        self.opened, self.leave = asyncio.Event(), asyncio.Event()
        self.task = asyncio.ensure_future(self._live())
        await self.opened.wait()
        await self.settled_down()

    async def _live(self) -> None:
        async with self.core:
            self.opened.set()
            await self.leave.wait()

    async def _close(self) -> None:
        self.leave.set()
        await self.task
        await self.store.close()

    @initialize()
    def start(self):
        self.run(self._open(self.folder / str(next(self.generation))))

    def teardown(self):
        if hasattr(self, "task"):
            self.run(self._close())
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- clients --------------------------------------------------------------------------------------------------

    @rule(
        campaign=st.sampled_from(CAMPAIGNS),
        lanes=st.lists(st.sampled_from(LANES), min_size=1, max_size=4),
        scheduled=st.booleans(),
    )
    def inject(self, campaign, lanes, scheduled):
        recipients = [
            NewRecipient(
                address=f"r{next(self.serial)}@{lane}",
                lane=lane,
                due=self.clock + 30_000_000 if scheduled else None,
                claimed=not scheduled and self.core.claim_for(lane, campaign, 1),
            )
            for lane in lanes
        ]
        message = NewMessage(
            campaign=campaign,
            reverse_path="s@x.test",
            received_at=self.clock,
            body=[b"Subject: x\r\n\r\nhello\r\n.\r\n"],
            recipients=recipients,
        )

        async def append():
            self.campaign_of |= {recipient.address: campaign for recipient in recipients}
            try:
                appended = await self.store.append(message)
            except CampaignHalted:
                assert campaign in self.halted
                self.core.refuse(campaign, len(recipients), discarded=False)
                self.refused[campaign] += len(recipients)
            else:
                assert campaign not in self.halted
                self.core.enter(appended, message)
                self.accepted[campaign] += len(recipients)
            await self.settled_down()

        self.run(append())

    # -- peers ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.relay.open)
    @rule(pick=st.integers(0, 50), ending=st.sampled_from([e for e in Ending if e is not Ending.LOST_AFTER_END]))
    def answer(self, pick, ending):
        session = sorted(self.relay.open, key=lambda s: s.delivery.recipients[0].address)[pick % len(self.relay.open)]
        addresses = [recipient.address for recipient in session.delivery.recipients]

        async def reply():
            if ending is Ending.LOST and session.ending_noted:
                self.maybe.update(addresses)
            session.answer(ending)
            if ending is Ending.DELIVERED:
                self.delivered.update(addresses)
            await self.settled_down()

        self.run(reply())

    @precondition(lambda self: self.relay.open)
    @rule(pick=st.integers(0, 50))
    def write_the_dot(self, pick):
        sessions = sorted(self.relay.open, key=lambda s: s.delivery.recipients[0].address)
        sessions[pick % len(sessions)].end_message()

    @rule(lane=st.sampled_from(LANES))
    def toggle_reachable(self, lane):
        async def toggle():
            self.relay.dead ^= {lane}
            for each in self.core.lanes:
                self.core.lanes.end_backoff(each)
            await self.settled_down()

        self.run(toggle())

    # -- operators ------------------------------------------------------------------------------------------------

    @rule(campaign=st.sampled_from(CAMPAIGNS[1:]))
    def halt(self, campaign):
        async def halt():
            before = self.core.ledger.account(campaign)
            in_flight, queued, began = before.in_flight, before.queued, before.began
            again = campaign in self.halted
            stopped = self.core.halter.halt(campaign, reason="test", uid=1, user="u")
            self.halted.add(campaign)
            halt = await stopped
            if not again:
                assert (halt.in_flight_at_stop, halt.queued_at_stop) == (in_flight, queued)
                assert halt.kind == ("stop" if began else "cancel")
            await self.settled_down()

        self.run(halt())

    @rule(campaign=st.sampled_from(CAMPAIGNS[1:]), release=st.booleans())
    def hold_or_release(self, campaign, release):
        core = self.core
        event = CampaignEvent.RELEASE if release else CampaignEvent.HOLD

        async def change():
            try:
                core.gate.move(campaign, event)
            except IllegalMove:
                assert campaign in self.halted
                return
            core.ledger.account(campaign)
            recorded = core.store.record_hold(campaign, held=not release, uid=0, user="u")
            if release:
                core.lanes.wake_held_back()
            else:
                core.lanes.evict_campaign(campaign)
            await recorded
            await self.settled_down()

        self.run(change())

    @rule(lane=st.sampled_from(LANES))
    def drop_lane(self, lane):
        async def drop():
            self.core.lanes.evict(lambda claim: claim.lane == lane)
            self.core.halter.enter_dropped(await self.store.drop(QueueFilter(lane=lane)))
            self.core.lanes.pump_all()
            await self.settled_down()

        self.run(drop())

    @rule()
    def retry_all(self):
        async def retry():
            self.core.upkeep.enter_promoted(await self.store.retry(QueueFilter()))
            await self.settled_down()

        self.run(retry())

    # -- time and fate --------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 31, 70, 3601]))
    def pass_time(self, seconds):
        async def elapse():
            self.clock += seconds * 1_000_000
            while not await self.core.upkeep.promote_due():
                pass
            while not await self.core.upkeep.expire_old():
                pass
            await self.settled_down()

        self.run(elapse())

    @rule(clean=st.booleans())
    def restart(self, clean):
        before = {name: self._final(name) for name in self.accepted}
        self.maybe |= {
            recipient.address
            for session, delivery in self.relay.open.items()
            if session.ending_noted
            for recipient in delivery.recipients
        }
        held = set(self.core.gate.held())

        async def again():
            folder = self.folder / str(next(self.generation))
            if not clean:
                await self._copy_as_it_is(folder)
            await self._close()
            if clean:
                shutil.copytree(self.path, folder)
            shutil.rmtree(self.path)
            await self._open(folder)

        self.run(again())
        assert set(self.core.gate.held()) == held
        for name, final in before.items():
            account = self.core.ledger.account(name)
            assert self._final(name) >= final  # what was settled stays settled
            assert account.refused == self.refused[name]

    async def _copy_as_it_is(self, folder: Path) -> None:
        """Copy the store's folder while its committer stands still, in the middle of a transaction."""
        reached, go_on = threading.Event(), threading.Event()

        def stand_still(_index):
            reached.set()
            go_on.wait()

        standing = self.store._call(stand_still)
        await asyncio.to_thread(reached.wait)
        shutil.copytree(self.path, folder)
        go_on.set()
        await standing

    def _final(self, name):
        account = self.core.ledger.account(name)
        return account.delivered + account.bounced + account.expired + account.dropped + account.unknown

    # -- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def the_law(self):
        if not hasattr(self, "core"):
            return
        ledger = self.core.ledger
        assert ledger.total.balanced
        for name in CAMPAIGNS:
            account = ledger.account(name)
            assert account.balanced, account
            assert account.accepted == self.accepted[name]
        flying = sum(len(delivery.recipients) for delivery in self.relay.open.values())
        assert ledger.total.in_flight == flying
        # What the alert on leaks looks at.
        assert ledger.total.begun_after_stop == 0
        for halt in self.core.halter.halts.values():
            assert ledger.account(halt.campaign).delivered_after_stop <= halt.in_flight_at_stop
        completed = {name for name, halt in self.core.halter.halts.items() if halt.completed_at is not None}
        assert not completed & self.core.halter.in_progress.keys()
        assert completed | self.core.halter.in_progress.keys() >= self.core.halter.halts.keys()

    @invariant()
    def the_outcomes_are_the_counts(self):
        if not hasattr(self, "core"):
            return

        async def read(name):
            return [row async for page in self.store.recipients(name) for row in page]

        for name in CAMPAIGNS:
            rows = self.run(read(name))
            account = self.core.ledger.account(name)
            by_outcome = Counter(row.outcome for row in rows)
            assert {outcome: by_outcome[outcome] for outcome in Outcome} == {
                outcome: getattr(account, outcome.name.lower()) for outcome in Outcome
            }
            assert sum(1 for row in rows if row.after_stop and row.outcome is Outcome.DELIVERED) == (
                account.delivered_after_stop
            )
            for row in rows:
                if row.outcome is Outcome.DELIVERED:
                    assert self.delivered[row.address] >= 1
                assert self.campaign_of[row.address] == name
                if name in self.halted and row.outcome in (Outcome.DROPPED, Outcome.UNKNOWN) and row.after_stop:
                    # What may have been delivered is never said to be dropped, and nothing else is unknown.
                    assert (row.outcome is Outcome.UNKNOWN) == (row.address in self.maybe)

    @invariant()
    def halts_complete(self):
        if not hasattr(self, "core"):
            return
        for name in self.halted:
            account = self.core.ledger.account(name)
            assert self.core.gate.is_closed(name)
            if account.in_flight == 0:
                for _ in range(200):
                    if self.core.gate.state(name) is CampaignState.HALTED:
                        break
                    self.run(asyncio.sleep(0.005))
                assert account.queued == 0 and self.core.gate.state(name) is CampaignState.HALTED


TestCore = CoreMachine.TestCase
TestCore.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
