"""The load that store_child.py puts on a store: all that a daemon does with one, and a full disk at the end."""

import asyncio
import contextlib
import random
from collections.abc import Callable

from queue_store import upkeep
from queue_store.errors import CampaignHalted, StoreFull
from queue_store.index import Index
from queue_store.records import Claim, HaltRequest, NewMessage, NewRecipient, Outcome, QueueFilter, Settlement
from queue_store.store import QueueStore
from tests.crash.store_child import CAMPAIGNS, LANES, PIECES, POISON, make_body, now, tell

OUTCOMES = [Outcome.DELIVERED, Outcome.DELIVERED, Outcome.BOUNCED, None]
FREEING = 5.0  # seconds
FULL = 40  # halts that are asked for on the full disk: some of them do not fit
STEPS = ("queue_dropped", "in_flight_finished", "completed")


class Worker:
    def __init__(self, store: QueueStore, chance: random.Random, seed: int) -> None:
        self.store = store
        self.chance = chance
        self.seed = seed
        self.closed = {record.name for record in store.recovery.campaigns if record.halt is not None}
        self.open: dict[str, set[str]] = {}
        self.number = 0
        self.messages: int | None = None

    async def work(self, messages: int | None) -> None:
        """Work until so many messages were injected; without a number, until the process is killed."""
        self.messages = messages
        work = [self.inject() for _ in range(3)] + [self.send(lane) for lane in LANES * 2]
        async with asyncio.TaskGroup() as group:
            for each in (*work, self.halt(), self.hold(), self.administer()):
                group.create_task(each)
        await self.free_pages()
        await self.fill_disk()

    def is_at_work(self) -> bool:
        return self.messages is None or self.number < self.messages

    async def inject(self) -> None:
        while self.is_at_work():
            self.number += 1
            number = self.number
            campaign = f"c{self.chance.randrange(CAMPAIGNS)}"
            claimed = self.chance.random() < 0.3
            due = now() + 30_000 if not claimed and self.chance.random() < 0.2 else None
            lanes = self.chance.choices(LANES, k=self.chance.randrange(1, 5))
            recipients = [
                NewRecipient(address=f"{self.seed}.{number}.{n}@{lane}", lane=lane, claimed=claimed, due=due)
                for n, lane in enumerate(lanes)
            ]
            body = make_body(b"x" * self.chance.randrange(3000), 1)
            if number % 23 == 0:
                body = make_body(b"yz", PIECES)
            message = NewMessage(
                campaign=campaign,
                reverse_path=POISON if number % 31 == 0 else "",
                received_at=now(),
                body=body,
                recipients=recipients,
            )
            addresses = [recipient.address for recipient in recipients]
            tell("a", *addresses)
            try:
                appended = await self.store.append(message)
            except CampaignHalted:
                assert campaign in self.closed
                tell("R", *addresses)
            except UnicodeEncodeError:
                assert message.reverse_path
                tell("R", *addresses)
            else:
                tell("A", *addresses)
                for claim in appended.claims:
                    await self.transact(claim)

    async def send(self, lane: str) -> None:
        cursor = 0
        while self.is_at_work():
            page = await self.store.claim(lane, limit=20, cursor=cursor)
            cursor = page.cursor
            if not page.claims:
                await self.store.promote(now())
                await asyncio.sleep(0.002)
            for claim in page.claims:
                await self.transact(claim)

    async def transact(self, claim: Claim) -> None:
        campaign = claim.message.campaign
        if campaign in self.closed:
            await self.store.unclaim([(campaign, recipient.id) for recipient in claim.recipients])
            return
        slots = {}
        in_flight = self.open.setdefault(campaign, set())
        for recipient in claim.recipients:
            tell("B", recipient.address)
            slots[recipient.id] = self.store.attempts.begin(recipient.id, recipient.attempts)
            in_flight.add(recipient.address)
        assert await self.store.load_body(claim.message)
        await asyncio.sleep(self.chance.choice([0, 0.001, 0.003]))
        for recipient in claim.recipients:
            tell("E", recipient.address)
            self.store.attempts.ending(slots[recipient.id])
        await asyncio.sleep(self.chance.choice([0, 0.001, 0.003]))
        settlements = []
        for recipient in claim.recipients:
            outcome = self.chance.choice(OUTCOMES)
            settlement = Settlement(
                recipient_id=recipient.id,
                message_id=claim.message.id,
                campaign=campaign,
                outcome=outcome,
                at=now(),
                due=now() + 20_000 if outcome is None else 0,
                after_stop=campaign in self.closed,
                uncertain=recipient.uncertain,
                code=250,
                reply="2.0.0 Ok",
                peer="peer.example",
                slot=slots[recipient.id],
            )
            tell("o", recipient.address, _name(outcome))
            self.store.attempts.outcome(slots[recipient.id], settlement)
            tell("O", recipient.address, _name(outcome))
            settlements.append(settlement)
        future = self.store.settle(settlements)
        in_flight.difference_update(recipient.address for recipient in claim.recipients)
        for recipient, outcome in zip(claim.recipients, await future, strict=True):
            tell("S", recipient.address, _name(outcome))

    async def halt(self) -> None:
        while self.is_at_work():
            await asyncio.sleep(self.chance.uniform(0.01, 0.08))
            campaign = f"c{self.chance.randrange(CAMPAIGNS)}"
            in_flight = self.open.get(campaign, set())
            self.closed.add(campaign)
            tell("h", campaign)
            request = HaltRequest(campaign=campaign, closed_at=now(), in_flight=len(in_flight))
            record = await self.store.record_halt(request)
            tell("H", campaign, record.kind)
            while (await self.store.drop_campaign(campaign, limit=7)).more:
                pass
            while in_flight:
                await asyncio.sleep(0.001)
            if record.completed_at is None and not (await self.store.queue(_of(campaign), limit=1)):
                for step in STEPS:
                    await self.store.record_halt_step(campaign, step, now())

    async def hold(self) -> None:
        while self.is_at_work():
            campaign = f"c{self.chance.randrange(CAMPAIGNS)}"
            for held in (True, False):
                await asyncio.sleep(self.chance.uniform(0.0, 0.05))
                tell("l", campaign)
                with contextlib.suppress(CampaignHalted):
                    await self.store.record_hold(campaign, held=held, uid=0, user="root")
                    tell("L", campaign, int(held))

    async def administer(self) -> None:
        while self.is_at_work():
            await asyncio.sleep(0.03)
            await self.store.retry(_of(f"c{self.chance.randrange(CAMPAIGNS)}"))
            await self.store.drop(_of(f"c{self.chance.randrange(CAMPAIGNS)}"), limit=3)
            await self.store.expire(now() - 400_000, limit=3)

    async def free_pages(self) -> None:
        """Leave many free pages in the index, and wait until upkeep has given them back."""

        def free(index: Index) -> None:
            index.db.execute("CREATE TABLE scratch AS SELECT zeroblob(200000)").fetchall()
            index.db.execute("DROP TABLE scratch").fetchall()

        def is_freed(index: Index) -> bool:
            return index.db.pragma("freelist_count") < upkeep._FREE_PAGES

        await self.store._walk(free)
        deadline = asyncio.get_running_loop().time() + FREEING
        while not await self.store._walk(is_freed) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)

    async def fill_disk(self) -> None:
        """Ask for halts while the index can't grow, until one is not answered: the reserve is spent for it."""
        await self._limit(lambda pages: pages)
        try:
            for number in range(FULL):
                campaign = f"full-{self.seed}-{number}"
                tell("h", campaign)
                record = await self.store.record_halt(
                    HaltRequest(campaign=campaign, closed_at=now(), in_flight=0, reason="x" * 3000)
                )
                tell("H", campaign, record.kind)
        except StoreFull:
            pass
        await self._limit(lambda _: 1 << 30)
        await asyncio.sleep(0.05)  # the reserve comes back

    async def _limit(self, pages: Callable[[int], int]) -> None:
        def limit(index: Index) -> None:
            index.db.execute(f"PRAGMA max_page_count = {pages(index.db.pragma('page_count'))}").fetchall()

        await self.store._walk(limit)


def _of(campaign: str) -> QueueFilter:
    return QueueFilter(campaign=campaign)


def _name(outcome: Outcome | None) -> str:
    return "none" if outcome is None else outcome.name.lower()
