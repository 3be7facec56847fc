"""A process that works with a queue store as a daemon would, as fast as it can, until it is killed.

Run as `python store_child.py FOLDER SEED`. It tells what it knows, a line each, in one write, as soon as it knows it:
what was acknowledged (A appended, S settled, H halted) and what the attempt log was told (B begun, O outcome).
"""

import asyncio
import os
import random
import sys
import time
from pathlib import Path

from queue_store import committer, upkeep
from queue_store.errors import CampaignHalted
from queue_store.records import Claim, HaltRequest, NewMessage, NewRecipient, Outcome, Settlement
from queue_store.store import QueueStore

LANES = ["one.example", "two.example"]
OUTCOMES = [Outcome.DELIVERED, Outcome.DELIVERED, Outcome.BOUNCED, None]


def tell(*what: object) -> None:
    os.write(1, (" ".join(map(str, what)) + "\n").encode())


def now() -> int:
    return time.time_ns() // 1000


class Worker:
    def __init__(self, store: QueueStore, chance: random.Random) -> None:
        self.store = store
        self.chance = chance
        self.closed = {record.name for record in store.recovery.campaigns if record.halt is not None}
        self.open: dict[str, set[int]] = {}

    async def inject(self) -> None:
        while True:
            campaign = f"c{self.chance.randrange(12)}"
            recipients = [
                NewRecipient(address=f"u{n}@{lane}", lane=lane, claimed=False)
                for n, lane in enumerate(self.chance.choices(LANES, k=self.chance.randrange(1, 5)))
            ]
            body = [b"Subject: x\r\n\r\n", b"x" * self.chance.randrange(3000), b"\r\n.\r\n"]
            message = NewMessage(
                campaign=campaign, reverse_path="", received_at=now(), body=body, recipients=recipients
            )
            try:
                appended = await self.store.append(message)
            except CampaignHalted:
                assert campaign in self.closed
                continue
            tell("A", campaign, *appended.recipient_ids)

    async def send(self, lane: str) -> None:
        cursor = 0
        while True:
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
            slots[recipient.id] = self.store.attempts.begin(recipient.id, recipient.attempts)
            in_flight.add(recipient.id)
            tell("B", recipient.id, recipient.attempts)
        assert await self.store.load_body(claim.message)
        await asyncio.sleep(self.chance.choice([0, 0.001, 0.003]))
        for slot in slots.values():
            self.store.attempts.ending(slot)
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
                code=250,
                reply="2.0.0 Ok",
                peer="peer.example",
                slot=slots[recipient.id],
            )
            self.store.attempts.outcome(slots[recipient.id], settlement)
            tell("O", recipient.id, "none" if outcome is None else outcome.name)
            settlements.append(settlement)
        future = self.store.settle(settlements)
        in_flight.difference_update(slots)
        for recipient, outcome in zip(claim.recipients, await future, strict=True):
            tell("S", recipient.id, "none" if outcome is None else outcome.name)

    async def halt(self) -> None:
        while True:
            await asyncio.sleep(self.chance.uniform(0.05, 0.3))
            campaign = f"c{self.chance.randrange(12)}"
            in_flight = self.open.get(campaign, set())
            self.closed.add(campaign)
            request = HaltRequest(campaign=campaign, closed_at=now(), in_flight=len(in_flight))
            record = await self.store.record_halt(request)
            tell("H", campaign, record.kind)
            while (await self.store.drop_campaign(campaign, limit=7)).more:
                pass


async def run(path: Path, seed: int) -> None:
    store = await QueueStore.open(path, reserve=4096, segment_size=100_000)
    worker = Worker(store, random.Random(seed))
    tell("ready")
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(worker.inject())
        for lane in LANES * 2:
            group.create_task(worker.send(lane))
        group.create_task(worker.halt())


if __name__ == "__main__":
    committer._IDLE = 0.001
    upkeep._COPY_LEAST = 10_000
    upkeep._INTERVAL = 0.02
    upkeep._LOOK = 0.02
    asyncio.run(run(Path(sys.argv[1]), int(sys.argv[2])))
