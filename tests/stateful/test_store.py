"""The queue store against a model of it, through arbitrary orders of what may happen to it."""

import asyncio
import itertools
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from queue_store import attempts, committer, fsck, upkeep
from queue_store.errors import CampaignHalted, StoreError
from queue_store.records import (
    HaltRequest,
    Message,
    NewMessage,
    NewRecipient,
    Outcome,
    QueuedDelta,
    QueuedState,
    QueueFilter,
    Settlement,
)
from queue_store.store import QueueStore
from tests.stateful.queue_model import CLAIMED, DEFERRED, READY, SCHEDULED, Books, Waiting

NAMES = ["", "c1", "c2", "c3", "c4", "Größe/ü", "c'7%_"]
LANES = ["one.example", "two.example", "three.example"]
SENDERS = ["", "a@sender.example", "b_c%d@sender.example"]
SECOND = 1_000_000

names = st.sampled_from(NAMES)
lanes = st.sampled_from(LANES)
texts = st.sampled_from(["", "2.0.0 Ok", '4.7.1 it\'s "later" \\ %s {0} [1,2]', "x" * 500])


class StoreMachine(RuleBasedStateMachine):
    """Drives a store in a temporary folder. What is submitted is awaited at once or left for later, a burst.

    The model learns of an operation when its result is checked, in the order of submission, which is the order in which
    the store must have done them. Claims and walks let all else go first, so each of them ends a burst.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        # What a disk does with fsync is not to be seen here: memory will do, and is faster.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="queue-store-", dir=memory))
        self.patch = pytest.MonkeyPatch()
        self.boots = itertools.count(1)
        self.runs = itertools.count(1)
        self.books = Books()
        self.clock = 1_000 * SECOND
        self.pending: list[asyncio.Future[Any]] = []
        self.done: list[tuple[asyncio.Future[Any], Callable[[Any], None]]] = []
        self.closed: set[str] = set()  # gates, in memory
        self.held: set[str] = set()
        self.cursors: Counter[str] = Counter()
        self.places: dict[int, Message] = {}  # as some claim, at some time, had it
        self.steps = 0
        # The housekeeping that a busy store puts off is to happen in these few steps, and to these small files.
        for module, name, value in [
            (committer, "_IDLE", 0.001),
            (upkeep, "_LOOK", 0.01),
            (upkeep, "_COPY_LEAST", 500),
            (upkeep, "_COPY_MESSAGES", 3),
            (upkeep, "_COPY_BYTES", 1000),
            (upkeep, "_COPY_LOOK", 5),
            (upkeep, "_LOG_IDLE", 60),
        ]:
            self.patch.setattr(module, name, value)
        self.housekeeping = threading.Lock()
        step = upkeep.Upkeep.step

        def step_unless_copied(of: upkeep.Upkeep, *, idle: bool) -> None:
            with self.housekeeping:
                step(of, idle=idle)

        self.patch.setattr(upkeep.Upkeep, "step", step_unless_copied)
        self.boot()

    # -- the machine ----------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Let the kernel be started anew: what an attempt log of the last boot says is not believed."""
        boot_id = self.folder / "boot_id"
        boot_id.write_text(f"00000000-0000-0000-0000-{next(self.boots):012}\n")
        self.patch.setattr(attempts, "_BOOT_ID", boot_id)

    def open(self) -> None:
        self.store = self.loop.run_until_complete(
            QueueStore.open(self.path, reserve=4096, segment_size=3000, now=lambda: self.clock)
        )
        self.reader = apsw.Connection(str(self.path / fsck.INDEX), flags=apsw.SQLITE_OPEN_READONLY)

    def shut(self) -> None:
        self.reader.close()
        self.loop.run_until_complete(self.store.close())

    def submit(self, future: asyncio.Future[Any], check: Callable[[Any], None]) -> None:
        self.pending.append(future)
        future.add_done_callback(lambda done: self.done.append((done, check)))

    def drain(self) -> None:
        """Wait for all that was submitted, and check it."""
        pending, self.pending = self.pending, []

        async def finish() -> None:
            async with asyncio.timeout(60):
                await asyncio.gather(*pending, return_exceptions=True)

        self.loop.run_until_complete(finish())
        done, self.done = self.done, []
        assert [future for future, _ in done] == pending, "not in order"
        for future, check in done:
            error = future.exception()
            if error is not None and not isinstance(error, StoreError):
                raise error
            check(future.result() if error is None else error)

    def now(self, future: asyncio.Future[Any]) -> Any:
        """Wait for one operation, and for those before it."""
        self.drain()
        return self.loop.run_until_complete(future)

    def teardown(self) -> None:
        try:
            if hasattr(self, "store"):
                self.drain()
                self.compare()
                self.shut()
                self.check_files(self.path)
        finally:
            self.loop.close()
            self.patch.undo()
            shutil.rmtree(self.folder)

    @initialize(sizes=st.lists(st.integers(1, 4), min_size=len(NAMES), max_size=len(NAMES)))
    def start(self, sizes: list[int]) -> None:
        """Begin with some mail of each campaign."""
        self.path = self.folder / "0"
        self.open()
        assert self.store.recovery.clean
        for campaign, size in zip(NAMES, sizes, strict=True):
            for lane in LANES:
                self.inject_one(campaign, SENDERS[size % 3], [(lane, "ready")] * size, 100 * size)
        self.drain()

    # -- mail -----------------------------------------------------------------------------------------------------

    mails = st.lists(
        st.tuples(
            names,
            st.sampled_from(SENDERS),
            st.lists(st.tuples(lanes, st.sampled_from(["ready", "claimed", "scheduled"])), min_size=1, max_size=5),
            st.integers(0, 900),
        ),
        min_size=2,
        max_size=6,
    )

    @rule(mails=mails, wait=st.booleans())
    def inject(self, mails: list[tuple[str, str, list[tuple[str, str]], int]], wait: bool) -> None:
        for mail in mails:
            self.inject_one(*mail)
        if wait:
            self.drain()

    def inject_one(self, campaign: str, sender: str, to: list[tuple[str, str]], size: int) -> None:
        self.clock += 1
        shut = self.is_shut(campaign)
        recipients = [
            NewRecipient(
                address=f"user{number}@{lane}",
                lane=lane,
                claimed=how == "claimed" and not shut,
                due=self.clock + 50 * number * SECOND if how == "scheduled" else None,
                notify="NEVER" if number % 2 else None,
                orcpt="rfc822;x" if number % 3 else None,
            )
            for number, (lane, how) in enumerate(to)
        ]
        body = (
            b"Subject: %d\r\n\r\n" % self.clock + bytes(range(256)) * (size // 256) + b"x" * (size % 256) + b"\r\n.\r\n"
        )
        received_at = self.clock
        message = NewMessage(
            campaign=campaign,
            reverse_path=sender,
            received_at=received_at,
            body=[body[:7], bytearray(body[7:20]), memoryview(body)[20:]],
            recipients=recipients,
            eight_bit=bool(size % 2),
            ret="HDRS" if size % 3 else None,
        )

        def check(result: Any) -> None:
            known = self.books.campaign(campaign)
            if known.halted:
                assert isinstance(result, CampaignHalted)
                return
            assert not isinstance(result, StoreError), result
            assert result.message_id > self.books.highest_id, "an id was given twice"
            assert result.recipient_ids == tuple(range(result.message_id + 1, result.message_id + 1 + len(recipients)))
            self.books.highest_id = result.recipient_ids[-1]
            self.books.bodies[result.message_id] = body
            self.books.received[result.message_id] = received_at
            self.books.senders[result.message_id] = sender
            self.books.recipients[result.message_id] = len(recipients)
            known.accepted += len(recipients)
            for number, recipient in zip(result.recipient_ids, recipients, strict=True):
                self.books.waiting[number] = Waiting(
                    id=number,
                    message=result.message_id,
                    campaign=campaign,
                    lane=recipient.lane,
                    address=recipient.address,
                    state=CLAIMED if recipient.claimed else READY if recipient.due is None else SCHEDULED,
                    due=recipient.due,
                )
            claimed = [number for number in result.recipient_ids if self.books.waiting[number].state is CLAIMED]
            assert sorted(r.id for claim in result.claims for r in claim.recipients) == claimed
            for claim in result.claims:
                self.check_claim(claim)

        self.submit(self.store.append(message), check)

    @rule(lane=lanes, limit=st.integers(1, 8), keep_cursor=st.booleans())
    def claim(self, lane: str, limit: int, keep_cursor: bool) -> None:
        self.claim_page(lane, limit, self.cursors[lane] if keep_cursor else 0)

    def claim_page(self, lane: str, limit: int, cursor: int) -> None:
        def check(page: Any) -> None:
            assert not isinstance(page, StoreError), page
            ready = [one for one in self.books.waiting.values() if one.lane == lane and one.state is READY]
            open_ones = [
                one
                for one in ready
                if not (self.books.campaigns[one.campaign].halted or self.books.campaigns[one.campaign].held)
            ]
            taken = [recipient.id for claim in page.claims for recipient in claim.recipients]
            assert len(taken) == len(set(taken))
            assert len(taken) == min(limit, len(open_ones)), "a page is as full as it can be"
            assert set(taken) <= {one.id for one in open_ones}, "claimed what is not ready, or held, or halted"
            without = [one.id for one in open_ones if one.campaign == ""]
            assert len(set(taken) & set(without)) == min(limit, len(without)), "mail of no campaign comes first"
            if len(taken) < len(open_ones):
                assert page.more
            if page.held:
                assert any(self.books.campaigns[one.campaign].held for one in ready)
            elif len(taken) < limit:
                assert not any(self.books.campaigns[one.campaign].held for one in ready)
            self.cursors[lane] = page.cursor
            assert page.lane == lane
            for claim in page.claims:
                assert claim.lane == lane
                for recipient in claim.recipients:
                    self.books.waiting[recipient.id].make(CLAIMED)
                self.check_claim(claim)

        self.submit(self.store.claim(lane, limit=limit, cursor=cursor), check)
        self.drain()

    def check_claim(self, claim: Any) -> None:
        message = claim.message
        assert 0 < len(claim.recipients) <= 100
        for recipient in claim.recipients:
            was = self.books.waiting[recipient.id]
            assert (was.message, was.campaign, was.lane) == (message.id, message.campaign, claim.lane)
            assert (was.address, was.attempts) == (recipient.address, recipient.attempts)
            number = recipient.id - message.id - 1
            assert recipient.notify == ("NEVER" if number % 2 else None)
            assert recipient.orcpt == ("rfc822;x" if number % 3 else None)
        assert message.reverse_path == self.books.senders[message.id]
        assert message.received_at == self.books.received[message.id]
        assert message.size == len(self.books.bodies[message.id])
        self.places.setdefault(message.id, message)

    @rule(idle=st.booleans())
    def read(self, idle: bool) -> None:
        """A body is had by the place that a claim once named, wherever it was copied since, while the message lives."""
        self.drain()
        if idle:  # let there be some housekeeping
            self.loop.run_until_complete(asyncio.sleep(0.01))
        for number in {one.message for one in self.books.waiting.values()} & self.places.keys():
            message = self.places[number]
            assert self.store.read_body_nowait(message) in (None, self.books.bodies[number])
            assert self.loop.run_until_complete(self.store.load_body(message)) == self.books.bodies[number]

    # -- transactions ---------------------------------------------------------------------------------------------

    @rule(
        lane=lanes,
        fates=st.lists(
            st.tuples(
                st.sampled_from(["settled", "ending", "logged", "open", "claimed"]),
                st.sampled_from([Outcome.DELIVERED, Outcome.BOUNCED, None]),
            ),
            min_size=1,
            max_size=5,
        ),
        wait=st.booleans(),
    )
    def send(self, lane: str, fates: list[tuple[str, Outcome | None]], wait: bool) -> None:
        """Claim a page and take its recipients through their transactions, each as far as its fate has it."""
        self.claim_page(lane, 8, self.cursors[lane])
        claimed = [
            one
            for one in self.books.waiting.values()
            if one.lane == lane and one.state is CLAIMED and one.slot is None and not self.is_shut(one.campaign)
        ]
        for one, (end, outcome) in zip(claimed, itertools.cycle(fates), strict=False):
            if end == "claimed":
                continue
            one.slot = self.store.attempts.begin(one.id, one.attempts)
            if end == "open":
                continue
            self.store.attempts.ending(one.slot)
            one.ending = True
            if end == "ending":
                continue
            self.log(one, outcome, "2.0.0 Ok")
            if end == "settled" and one.logged is not None:
                self.settle([one], [one.logged])
        if wait:
            self.drain()

    def is_shut(self, campaign: str) -> bool:
        """Whether the gate, in memory, lets nothing begin."""
        return campaign in self.closed or campaign in self.held

    def pick(self, data: st.DataObject, fits: Callable[[Waiting], bool]) -> list[Waiting]:
        fitting = [one for one in self.books.waiting.values() if one.state is CLAIMED and not one.touched and fits(one)]
        if not fitting:
            return []
        if data.draw(st.booleans(), "all"):
            return fitting
        chosen = data.draw(st.lists(st.sampled_from([one.id for one in fitting]), unique=True, min_size=1, max_size=6))
        return [self.books.waiting[number] for number in chosen]

    @precondition(lambda self: any(one.state is CLAIMED for one in self.books.waiting.values()))
    @rule(
        data=st.data(),
        how=st.sampled_from(["begin", "ending", "log", "settle logged", "settle at once", "unclaim"]),
        outcome=st.sampled_from([Outcome.DELIVERED, None, Outcome.BOUNCED, Outcome.UNKNOWN]),
        reply=texts,
        wait=st.booleans(),
    )
    def advance(self, data: st.DataObject, how: str, outcome: Outcome | None, reply: str, wait: bool) -> None:
        """Take claimed recipients a step further."""
        if how == "begin":
            for one in self.pick(data, lambda one: one.slot is None and not self.is_shut(one.campaign)):
                one.slot = self.store.attempts.begin(one.id, one.attempts)
        elif how == "ending":
            for one in self.pick(data, lambda one: one.slot is not None and one.logged is None):
                assert one.slot is not None
                self.store.attempts.ending(one.slot)
                one.ending = True
        elif how == "log":
            for one in self.pick(data, lambda one: one.slot is not None and one.logged is None):
                self.log(one, outcome, reply)
        elif how == "settle logged":
            chosen = self.pick(data, lambda one: one.logged is not None)
            self.settle(chosen, [one.logged for one in chosen if one.logged is not None])
        elif how == "settle at once":
            chosen = self.pick(data, lambda one: one.logged is None)
            if outcome in (Outcome.DELIVERED, Outcome.UNKNOWN):
                chosen = [one for one in chosen if one.slot is not None]  # the others are refusals by us
            self.settle(chosen, [self.settlement(one, outcome, reply, began=one.slot is not None) for one in chosen])
        else:
            self.unclaim(self.pick(data, lambda one: one.slot is None))
        if wait:
            self.drain()

    def log(self, one: Waiting, outcome: Outcome | None, reply: str) -> None:
        """The reply has come; its settlement is not yet submitted."""
        one.logged = self.settlement(one, outcome, reply, began=True)
        assert one.slot is not None
        self.store.attempts.outcome(one.slot, one.logged)

    def settlement(self, one: Waiting, outcome: Outcome | None, reply: str, *, began: bool) -> Settlement:
        self.clock += 1
        return Settlement(
            recipient_id=one.id,
            message_id=one.message,
            campaign=one.campaign,
            outcome=outcome,
            at=self.clock,
            due=self.clock + 30 * SECOND if outcome is None else 0,
            after_stop=one.campaign in self.closed,
            began=began,
            uncertain=one.uncertain or (began and outcome is None and one.ending and one.id % 2 == 0),
            code={Outcome.DELIVERED: 250, Outcome.BOUNCED: 550, Outcome.UNKNOWN: None}.get(outcome, 450),
            reply=reply,
            peer="mx.example[192.0.2.1]:25",
            slot=one.slot,
        )

    def settle(self, chosen: list[Waiting], settlements: list[Settlement]) -> None:
        if not chosen:
            return
        for one in chosen:
            one.touched = True

        def check(result: Any) -> None:
            assert not isinstance(result, StoreError), result
            for one in chosen:
                one.touched = False
            assert list(result) == [self.books.settle(settlement) for settlement in settlements]

        self.submit(self.store.settle(settlements), check)

    def unclaim(self, chosen: list[Waiting]) -> None:
        if not chosen:
            return
        for one in chosen:
            one.touched = True

        def check(result: Any) -> None:
            assert result is None
            for one in chosen:
                one.touched = False
                one.make(READY)

        self.submit(self.store.unclaim([(one.campaign, one.id) for one in chosen]), check)

    # -- campaigns ------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.closed) < 1 + self.steps // 12)
    @rule(
        data=st.data(),
        answers=st.lists(st.sampled_from([Outcome.DELIVERED, None, Outcome.BOUNCED, "no answer"]), max_size=4),
        wait=st.booleans(),
    )
    def halt(self, data: st.DataObject, answers: list[Any], wait: bool) -> None:
        """Halt a campaign, best one that is being sent; then some of what was in flight is answered."""
        claimed = [one for one in self.books.waiting.values() if one.state is CLAIMED and one.campaign]
        busy = {one.campaign for one in claimed if one.slot is not None} or {one.campaign for one in claimed}
        campaign = data.draw(st.sampled_from(sorted(busy - self.closed) or NAMES[1:]))
        self.clock += 1
        in_flight = [
            one
            for one in self.books.waiting.values()
            if one.campaign == campaign and one.slot is not None and not one.touched
        ]
        request = HaltRequest(
            campaign=campaign,
            closed_at=self.clock,
            in_flight=len(in_flight),
            reason="it's wrong" if len(in_flight) % 2 else None,
            requested_uid=0,
            requested_user="root",
        )

        def check(result: Any) -> None:
            assert not isinstance(result, StoreError), result
            known = self.books.campaign(campaign)
            assert result.campaign == campaign
            assert result.already == known.halted
            if not known.halted:
                if known.began is None:
                    known.began = result.kind == "stop"
                known.began = known.began or bool(in_flight)
                known.kind = "stop" if known.began else "cancel"
                assert (result.requested_at, result.in_flight_at_stop) == (request.closed_at, len(in_flight))
                assert result.queued_at_stop == self.books.live(campaign) - len(in_flight)
                assert result.completed_at is None
                known.halted = True
                known.held = False
            assert result.kind == known.kind

        self.closed.add(campaign)
        self.held.discard(campaign)
        self.submit(self.store.record_halt(request), check)
        for one, answer in zip(in_flight, answers, strict=False):
            if answer != "no answer":
                self.settle([one], [one.logged or self.settlement(one, answer, "2.0.0 Ok", began=True)])
        if wait:
            self.drain()

    @rule(campaign=names, held=st.booleans(), wait=st.booleans())
    def hold(self, campaign: str, held: bool, wait: bool) -> None:
        if campaign not in self.closed:
            (self.held.add if held else self.held.discard)(campaign)

        def check(result: Any) -> None:
            known = self.books.campaign(campaign)
            if known.halted:
                assert isinstance(result, CampaignHalted)
            else:
                assert result is None
                known.held = held

        self.submit(self.store.record_hold(campaign, held=held, uid=1000, user="someone"), check)
        if wait:
            self.drain()

    @precondition(lambda self: self.closed)
    @rule(data=st.data(), limit=st.integers(1, 6))
    def drop_chunk(self, data: st.DataObject, limit: int) -> None:
        self.drain()
        campaign = data.draw(st.sampled_from(sorted(self.closed)))
        fitting = [one for one in self.books.waiting.values() if one.campaign == campaign and one.state is not CLAIMED]
        dropped = self.now(self.store.drop_campaign(campaign, limit=limit))
        gone = self.gone()
        assert gone <= {one.id for one in fitting}
        assert len(gone) == min(limit, len(fitting))
        assert dropped.more == (len(gone) < len(fitting))
        self.end_dropped(dropped.by_campaign, gone)

    @precondition(lambda self: self.closed)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        """Take the steps of a halt that can be taken."""
        self.drain()
        campaign = data.draw(st.sampled_from(sorted(self.closed)))
        live = [one for one in self.books.waiting.values() if one.campaign == campaign]
        self.clock += 1
        steps = []
        if all(one.state is CLAIMED and one.slot is not None for one in live):
            steps.append("queue_dropped")
        if not any(one.slot is not None for one in live):
            steps.append("in_flight_finished")
        if not live:
            steps.append("completed")
        for step in steps:
            halt = self.now(self.store.record_halt_step(campaign, step, self.clock))
            assert getattr(halt, f"{step}_at") is not None
            assert not halt.already

    @precondition(lambda self: self.closed)
    @rule(data=st.data(), number=st.integers(1, 9), discarded=st.booleans())
    def refuse(self, data: st.DataObject, number: int, discarded: bool) -> None:
        campaign = data.draw(st.sampled_from(sorted(self.closed)))

        def check(result: Any) -> None:
            assert result is None
            known = self.books.campaign(campaign)
            known.discarded += number if discarded else 0
            known.refused += 0 if discarded else number

        self.submit(self.store.count_refused(campaign, number, discarded=discarded), check)

    # -- time, and the administrator ------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0, 10, 40, 100]), limit=st.integers(1, 8))
    def promote(self, seconds: int, limit: int) -> None:
        self.clock += seconds * SECOND
        self.drain()
        waiting = [one for one in self.books.waiting.values() if one.state in (DEFERRED, SCHEDULED)]
        due = sorted(one.due for one in waiting if one.due is not None and one.due <= self.clock)
        promoted = self.now(self.store.promote(self.clock, limit=limit))
        moved = self.moved_to_ready()
        assert sorted(self.books.waiting[number].due for number in moved) == due[:limit], "the earliest come first"
        assert promoted.more == (len(moved) < len(due))
        self.check_moved(promoted.by_campaign, moved)
        assert promoted.lanes == {self.books.waiting[number].lane for number in moved}
        for number in moved:
            self.books.waiting[number].make(READY)
        left = [one.due for one in waiting if one.state is not READY]
        assert promoted.next_due == min(left, default=None)

    filters = st.builds(
        QueueFilter,
        campaign=st.none() | names | st.just("never seen"),
        lane=st.none() | lanes,
        domain=st.none() | st.sampled_from(["one.example", "TWO.example", "e.example", "%.example", "other"]),
        sender=st.none() | st.sampled_from(SENDERS),
        message_id=st.none() | st.integers(1, 30),
        state=st.none() | st.sampled_from(QueuedState),
    )

    def fits(self, which: QueueFilter, one: Waiting, *, state: bool = True) -> bool:
        return (
            which.campaign in (None, one.campaign)
            and which.lane in (None, one.lane)
            and (which.domain is None or one.address.endswith(f"@{which.domain.lower()}"))
            and which.sender in (None, self.books.senders[one.message])
            and which.message_id in (None, one.message)
            and (not state or which.state in (None, one.state))
        )

    @rule(
        what=st.sampled_from(["retry", "drop", "expire", "prune"]),
        which=filters.filter(lambda which: which != QueueFilter()),
        age=st.sampled_from([0, 40, 100]),
        limit=st.integers(1, 6),
    )
    def administer(self, what: str, which: QueueFilter, age: int, limit: int) -> None:
        self.drain()
        if what == "retry":
            self.retry(which, limit)
        elif what == "drop":
            self.drop(which, limit)
        elif what == "expire":
            self.expire(max(age, 40), limit)
        else:
            self.prune(age, limit)

    def retry(self, which: QueueFilter, limit: int) -> None:
        fitting = {
            one.id
            for one in self.books.waiting.values()
            if one.state is DEFERRED and self.fits(which, one, state=False)
        }
        moved: set[int] = set()
        for _ in range(100):
            promoted = self.now(self.store.retry(which, limit=limit))
            chunk = self.moved_to_ready()
            assert len(chunk) <= limit
            self.check_moved(promoted.by_campaign, chunk)
            assert promoted.lanes == {self.books.waiting[number].lane for number in chunk}
            for number in chunk:
                self.books.waiting[number].make(READY)
            moved |= chunk
            if not promoted.more:
                break
        assert moved == fitting

    def drop(self, which: QueueFilter, limit: int) -> None:
        fitting = {one.id for one in self.books.waiting.values() if one.state is not CLAIMED and self.fits(which, one)}
        dropped: set[int] = set()
        for _ in range(100):
            result = self.now(self.store.drop(which, limit=limit))
            chunk = self.gone()
            assert len(chunk) <= limit
            self.end_dropped(result.by_campaign, chunk)
            dropped |= chunk
            if not result.more:
                break
        assert dropped == fitting

    def expire(self, age: int, limit: int) -> None:
        before = self.clock - age * SECOND
        fitting = {
            one.id
            for one in self.books.waiting.values()
            if one.state is not CLAIMED
            and self.books.received[one.message] < before
            and not self.books.campaigns[one.campaign].halted
        }
        expired: set[int] = set()
        for _ in range(100):
            result = self.now(self.store.expire(before, limit=limit))
            chunk = self.gone()
            assert len(chunk) <= limit
            self.check_moved(result.by_campaign, chunk)
            for number in chunk:
                self.books.end(number, Outcome.EXPIRED, after_stop=False)
            expired |= chunk
            if not result.more:
                break
        assert expired == fitting

    @rule(
        which=filters,
        limit=st.integers(1, 40),
        campaign=names,
        outcomes=st.none() | st.sets(st.sampled_from(Outcome)),
        after_stop=st.booleans(),
        data=st.data(),
    )
    def look(
        self,
        which: QueueFilter,
        limit: int,
        campaign: str,
        outcomes: set[Outcome] | None,
        after_stop: bool,
        data: st.DataObject,
    ) -> None:
        """Read as an administrator does."""
        self.drain()
        self.list_queue(which, limit)
        self.list_outcomes(campaign, outcomes, after_stop)
        if self.books.ended:
            self.list_message(data.draw(st.sampled_from(sorted({one.message for one in self.books.ended.values()}))))

    def list_queue(self, which: QueueFilter, limit: int) -> None:
        fitting = sorted(one.id for one in self.books.waiting.values() if self.fits(which, one))
        rows = self.loop.run_until_complete(self.store.queue(which, limit=limit))
        assert [row.recipient.id for row in rows] == fitting[:limit]
        for row in rows:
            one = self.books.waiting[row.recipient.id]
            assert (row.lane, row.state, row.message.id) == (one.lane, one.state, one.message)
            assert row.due == (one.due if one.state in (DEFERRED, SCHEDULED) else None)
            assert (row.recipient.attempts, row.message.campaign) == (one.attempts, one.campaign)

    def list_outcomes(self, campaign: str, outcomes: set[Outcome] | None, after_stop: bool) -> None:
        async def read() -> list[Any]:
            return [
                row
                async for page in self.store.recipients(campaign, outcomes=outcomes, after_stop=after_stop)
                for row in page
            ]

        expected = sorted(
            one.id
            for one in self.books.ended.values()
            if one.campaign == campaign
            and (outcomes is None or one.outcome in outcomes)
            and (one.after_stop or not after_stop)
        )
        assert [row.recipient_id for row in self.loop.run_until_complete(read())] == expected

    def list_message(self, message: int) -> None:
        rows = self.loop.run_until_complete(self.store.message_outcomes(message))
        expected = sorted(one.id for one in self.books.ended.values() if one.message == message)
        assert [row.recipient_id for row in rows] == expected

    def prune(self, age: int, limit: int) -> None:
        """Old outcomes go, those behind a young one may stay; no young one goes, and no count changes."""
        self.drain()
        before = self.clock - age * SECOND
        for _ in range(100):
            if not self.now(self.store.prune(before, limit=limit)):
                break
        else:
            pytest.fail("pruning does not end")
        kept = {number for (number,) in self.reader.execute("SELECT id FROM outcomes")}
        gone = self.books.ended.keys() - kept
        for number in gone:
            at = self.books.ended.pop(number).at
            assert at is None or at < before

    # -- ends -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: not any(one.slot is not None for one in self.books.waiting.values()))
    @rule()
    def restart(self) -> None:
        self.drain()
        self.shut()
        self.check_files(self.path)
        for one in self.books.waiting.values():
            if one.state is CLAIMED:
                one.make(READY)
        self.open()
        recovery = self.store.recovery
        assert recovery.clean
        assert (recovery.returned, recovery.unknown, recovery.settled, list(recovery.repairs)) == (0, 0, 0, [])
        self.check_opened()

    @rule(
        power_cut=st.booleans(),
        torn=st.sampled_from([b"", b"\x8dMB1", bytes(50), b"x" * 3000]),
        settled_again=st.booleans(),
    )
    def crash(self, power_cut: bool, torn: bytes, settled_again: bool) -> None:
        """Go on with the files as they were, as if the process had been killed; maybe with a torn tail."""
        self.drain()
        copy = self.folder / str(next(self.runs))
        self.copy(copy)
        self.shut()
        shutil.rmtree(self.path)
        self.path = copy
        if torn:
            for segment in sorted((copy / fsck.BODIES).iterdir())[-1:]:
                with segment.open("ab") as file:
                    file.write(torn)
            (copy / fsck.BODIES / "00000777.seg").write_bytes(torn)
        self.check_files(copy, torn=bool(torn))
        if power_cut:
            self.boot()
        expected = self.books.recover(power_cut=power_cut)
        self.closed = {name for name, known in self.books.campaigns.items() if known.halted}
        self.held = {name for name, known in self.books.campaigns.items() if known.held}
        self.open()
        recovery = self.store.recovery
        assert not recovery.clean
        assert (recovery.returned, recovery.unknown, recovery.settled) == expected
        assert bool(recovery.repairs) == bool(torn)
        self.check_opened()
        if settled_again:  # a recovery that is itself cut off, once more
            self.crash(power_cut=power_cut, torn=b"", settled_again=False)

    def copy(self, to: Path) -> None:
        """Copy the files of a store whose committer has nothing to do, and is kept from its housekeeping."""
        with self.housekeeping:
            shutil.copytree(self.path, to, ignore=shutil.ignore_patterns("*-shm"))

    def check_opened(self) -> None:
        """What opening the store tells of it is so."""
        recovery = self.store.recovery
        ready = {one.lane for one in self.books.waiting.values() if one.state is READY}
        assert set(recovery.ready_lanes) == ready
        dues = [one.due for one in self.books.waiting.values() if one.state in (DEFERRED, SCHEDULED)]
        assert recovery.next_due == min(dues, default=None)
        for record in recovery.campaigns:
            known = self.books.campaigns[record.name]
            self.check_tally(known, {name: getattr(record.tally, name) for name in record.tally.__slots__})
            assert record.tally.live == self.books.live(record.name)
            assert record.held == known.held
            assert (record.halt is not None) == known.halted
            if record.halt is not None:
                assert record.halt.kind == known.kind
            if known.began is None:
                known.began = record.began
            assert record.began == known.began
        named = {record.name for record in recovery.campaigns}
        for name, known in self.books.campaigns.items():
            if known.accepted or known.refused or known.discarded or known.held or known.halted:
                assert name in named

    # -- what holds at any time -----------------------------------------------------------------------------------

    @invariant()
    def balanced(self) -> None:
        self.steps += 1
        if hasattr(self, "store") and not self.pending:
            self.compare()

    def compare(self) -> None:
        """All of the model is in the index, and nothing else is."""
        self.books.check_law()
        db = self.reader
        rows = db.execute(
            "SELECT r.id, r.message_id, c.name, l.name, r.address, r.state, r.attempts,"
            " CASE WHEN r.state IN (1, 2) THEN r.due END FROM recipients r"
            " JOIN campaigns c ON c.id = r.campaign_id JOIN lanes l ON l.id = r.lane_id ORDER BY r.id"
        ).fetchall()
        assert rows == [
            (one.id, one.message, one.campaign, one.lane, one.address, one.state, one.attempts, one.due)
            for one in sorted(self.books.waiting.values(), key=lambda one: one.id)
        ]
        rows = db.execute(
            "SELECT o.id, o.message_id, c.name, l.name, o.address, o.outcome, o.after_stop, o.attempts, o.at, o.code,"
            " o.reply FROM outcomes o JOIN campaigns c ON c.id = o.campaign_id JOIN lanes l ON l.id = o.lane_id"
            " ORDER BY o.id"
        ).fetchall()
        expected = sorted(self.books.ended.values(), key=lambda one: one.id)
        assert [row[:8] for row in rows] == [
            (
                one.id,
                one.message,
                one.campaign,
                one.lane,
                one.address,
                one.outcome,
                one.after_stop,
                one.attempts,
            )
            for one in expected
        ]
        for row, one in zip(rows, expected, strict=True):
            if one.at is not None:
                assert (row[8], row[9]) == (one.at, one.code)
                assert one.reply is not None
                assert row[10] in (one.reply, one.reply[: attempts.REPLY_LIMIT])
        cursor = db.execute("SELECT * FROM campaigns")
        columns = [column[0] for column in cursor.description]
        found = {row["name"]: row for row in (dict(zip(columns, values, strict=True)) for values in cursor)}
        for name, known in self.books.campaigns.items():
            row = found.get(name, Counter())
            self.check_tally(known, row)
            assert bool(row["held"]) == known.held
            for state in (DEFERRED, SCHEDULED):
                count = sum(one.campaign == name and one.state is state for one in self.books.waiting.values())
                assert row[state.name.lower()] == count
        slots = {attempt.slot: attempt for attempt in self.store.attempts.recover()}
        open_ones = {one.slot: one for one in self.books.waiting.values() if one.slot is not None}
        assert slots.keys() == open_ones.keys(), "a slot is free when its outcome is durable, and not before"

    @staticmethod
    def check_tally(known: Any, row: Any) -> None:
        assert row["accepted"] == known.accepted
        for outcome in Outcome:
            assert row[outcome.name.lower()] == known.ended[outcome]
        assert row["delivered_after_stop"] == known.after_stop
        assert (row["refused"], row["discarded"]) == (known.refused, known.discarded)

    def check_files(self, path: Path, *, torn: bool = False) -> None:
        findings = fsck.check(path)
        assert [str(found) for found in findings if found.severity is fsck.Severity.ERROR] == []
        if not torn:
            assert findings == []

    def gone(self) -> set[int]:
        """Recipients that the model has and the index no longer."""
        there = {number for (number,) in self.reader.execute("SELECT id FROM recipients")}
        return self.books.waiting.keys() - there

    def moved_to_ready(self) -> set[int]:
        ready = {number for (number,) in self.reader.execute("SELECT id FROM recipients WHERE state = 0")}
        return {number for number in ready if self.books.waiting[number].state is not READY}

    def check_moved(self, by_campaign: Any, moved: set[int], unknown: AbstractSet[int] = frozenset()) -> None:
        """The chunk's own account of it is the difference that it made."""
        counts: dict[str, Counter[Any]] = {}
        for number in moved:
            one = self.books.waiting[number]
            count = counts.setdefault(one.campaign, Counter())
            count[one.state] += 1
            count["unknown"] += number in unknown
        assert dict(by_campaign) == {
            name: QueuedDelta(
                ready=count[READY], deferred=count[DEFERRED], scheduled=count[SCHEDULED], unknown=count["unknown"]
            )
            for name, count in counts.items()
        }

    def end_dropped(self, by_campaign: Any, gone: set[int]) -> None:
        """Drop recipients from the model. Of a halted campaign, what may have been delivered before is unknown."""
        halted = {number for number in gone if self.books.campaigns[self.books.waiting[number].campaign].halted}
        unknown = {number for number in halted if self.books.waiting[number].uncertain}
        self.check_moved(by_campaign, gone, unknown)
        for number in gone:
            outcome = Outcome.UNKNOWN if number in unknown else Outcome.DROPPED
            self.books.end(number, outcome, after_stop=number in halted)


StoreMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=40)
TestStore = StoreMachine.TestCase


def test_the_model_is_compared_with_something(tmp_path: Path):
    """If the comparison read an empty index by mistake, everything above would pass for nothing."""

    async def run() -> None:
        store = await QueueStore.open(tmp_path / "store", reserve=4096)
        recipient = NewRecipient(address="a@one.example", lane="one.example")
        message = NewMessage(
            campaign="c1", reverse_path="", received_at=1, body=[b"x\r\n.\r\n"], recipients=[recipient]
        )
        await store.append(message)
        await store.close()

    asyncio.run(run())
    with closing(apsw.Connection(str(tmp_path / "store" / fsck.INDEX))) as db:
        assert db.execute("SELECT count(*) FROM recipients").fetchone() == (1,)
        db.execute("UPDATE campaigns SET accepted = 2 WHERE name = 'c1'")
    assert [str(found) for found in fsck.check(tmp_path / "store")] == [
        "error: queue.db, campaign c1: 2 were accepted, but 1 wait and 0 have an outcome"
    ]
