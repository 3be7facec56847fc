"""A process that does with a queue store what a daemon does, once, in order, on a disk that may fail at any call.

Run as `python -m tests.world.disk_child FOLDER PLAN`. It tells what it was told, a line of JSON each: "opened",
"appended" ids, "settled" ids, "halted" name, "full" and "failed" with what met it, "waits" where room is waited for (it
then mends the disk), "closed". Bodies, and what is compacted, are large enough to seal segments.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from queue_store import committer, upkeep
from queue_store.errors import StoreClosed, StoreError, StoreFailed, StoreFull
from queue_store.records import Claim, HaltRequest, NewMessage, NewRecipient, Outcome, Settlement
from queue_store.store import QueueStore
from tests.world.failing_disk import FailingDisk

LANE = "one.example"
PATIENCE = 0.5  # seconds
MAY_WAIT = ("claim", "settle", "promote")  # for room; anything else is answered


def tell(event: str, *facts: object) -> None:
    os.write(1, (json.dumps([event, *facts]) + "\n").encode())


class Child:
    """The work, told as it goes."""

    def __init__(self, store: QueueStore, disk: FailingDisk) -> None:
        self.store = store
        self.disk = disk
        self.waiting: list[tuple[str, asyncio.Future]] = []
        self.later: dict[asyncio.Future, list[int]] = {}  # settlements that were not durable yet, and whose they are

    async def get(self, what: str, future: asyncio.Future):
        """Wait for a result; None where it failed as it may, or waits for room, and then it is looked at in the end."""
        done, _ = await asyncio.wait([future], timeout=PATIENCE if what in MAY_WAIT else 60)
        if not done:
            tell("waits", what)
            self.waiting.append((what, future))
            return None
        try:
            return await future
        except StoreFull:
            tell("full", what)
        except StoreFailed:
            tell("failed", what)
        except StoreClosed:
            tell("closed early", what)
        return None

    async def append(self, campaign: str, messages: int, size: int) -> None:
        async def one() -> None:
            recipients = [NewRecipient(address=f"u{number}@{LANE}", lane=LANE) for number in range(3)]
            body = [b"Subject: x\r\n\r\n", b"x" * size, b"\r\n.\r\n"]
            new = NewMessage(campaign=campaign, reverse_path="", received_at=1, body=body, recipients=recipients)
            appended = await self.get("append", self.store.append(new))
            if appended is not None:
                tell("appended", campaign, *appended.recipient_ids)

        await asyncio.gather(*(one() for _ in range(messages)))

    async def send(self, limit: int, outcome: Outcome | None) -> None:
        page = await self.get("claim", self.store.claim(LANE, limit=limit))
        if page is not None:
            await asyncio.gather(*(self.settle(claim, outcome) for claim in page.claims))

    async def settle(self, claim: Claim, outcome: Outcome | None) -> None:
        settlements = []
        for recipient in claim.recipients:
            slot = self.store.attempts.begin(recipient.id, recipient.attempts)
            settlement = Settlement(
                recipient_id=recipient.id,
                message_id=claim.message.id,
                campaign=claim.message.campaign,
                outcome=outcome,
                at=2,
                due=3,
                slot=slot,
            )
            self.store.attempts.outcome(slot, settlement)
            settlements.append(settlement)
        future = self.store.settle(settlements)
        if outcome is not None:
            self.later[future] = [settlement.recipient_id for settlement in settlements]
        if await self.get("settle", future) is not None and outcome is not None:
            tell("settled", *self.later.pop(future))

    async def halt(self, campaign: str) -> None:
        request = HaltRequest(campaign=campaign, closed_at=4, in_flight=0)
        if await self.get("halt", self.store.record_halt(request)) is None:
            return
        tell("halted", campaign)
        more = True
        while more:
            dropped = await self.get("drop", self.store.drop_campaign(campaign, limit=40))
            more = dropped is not None and dropped.more
        for step in ("queue_dropped", "in_flight_finished", "completed"):
            await self.get("step", self.store.record_halt_step(campaign, step, 5))

    async def work(self) -> None:
        await self.append("kept", 15, 3_000)
        await self.append("gone", 25, 40_000)
        await self.send(24, Outcome.DELIVERED)
        await self.send(9, None)
        await self.get("promote", self.store.promote(10))
        await self.halt("gone")
        await self.append("kept", 10, 30_000)
        await self.halt("never-seen")
        await asyncio.sleep(0.4)  # upkeep: checkpoints, what the drop left
        await self.append("kept", 2, 10)

    async def get_what_waited(self) -> None:
        for what, future in self.waiting:
            try:
                await asyncio.wait_for(future, 30)
            except StoreError as error:
                tell("failed late", what, str(error))
            else:
                tell("settled", *self.later.pop(future, []))


async def main(folder: Path, plan: Path) -> None:
    committer._STALL = committer._REST = 0.05
    upkeep._PUT_OFF = upkeep._LOOK = 0.2
    upkeep._LOG_IDLE = 8
    upkeep._COPY_LEAST = 1 << 12
    disk = FailingDisk(folder, plan)
    told: list[str] = []
    try:
        store = await QueueStore.open(
            folder, reserve=1 << 20, segment_size=1 << 18, on_failed=lambda error: told.append(str(error))
        )
    except (StoreError, OSError) as error:
        tell("refused", f"{type(error).__name__}: {error}")
        return
    reserve = folder / "reserve"
    tell("opened", reserve.exists() and reserve.stat().st_size == 1 << 20)
    child = Child(store, disk)
    await child.work()
    if told:
        tell("store failed", told[0])
    disk.mend()
    if not told:
        await child.get_what_waited()
        for _ in range(100):  # all by itself: the reserve too
            if (folder / "reserve").exists() and (folder / "reserve").stat().st_size == 1 << 20:
                break
            await asyncio.sleep(0.05)
        else:
            tell("no reserve")
        await Child(store, disk).append("after", 2, 100)
    try:
        await asyncio.wait_for(store.close(), 30)
    except StoreError as error:
        tell("not closed in order", str(error))
    else:
        tell("closed")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
