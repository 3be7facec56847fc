"""Stores to be damaged, and the truth about them: what waits, what is done, what must never go out."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from queue_store.records import HaltRequest, NewMessage, NewRecipient, Outcome, Settlement
from queue_store.store import QueueStore

SECOND = 1_000_000
CLOCK = 1_700_000_000 * SECOND
LANES = ("one.example", "two.example", "three.example")

SIZES = {"small": 30, "large": 600}  # messages


@dataclass(frozen=True, slots=True)
class Mail:
    """One recipient as it was accepted."""

    campaign: str
    message: int
    sender: str
    address: str
    body: bytes


@dataclass(slots=True)
class Truth:
    """What a store holds. `waiting` and `done` have recipients by id."""

    waiting: dict[int, Mail] = field(default_factory=dict)
    done: dict[int, Mail] = field(default_factory=dict)
    halted: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)

    @property
    def accepted(self) -> dict[str, int]:
        """How many recipients of each campaign were accepted."""
        counts: dict[str, int] = {}
        for mail in (*self.waiting.values(), *self.done.values()):
            counts[mail.campaign] = counts.get(mail.campaign, 0) + 1
        return counts

    def sendable(self) -> dict[int, Mail]:
        """Give what may go out."""
        stopped = self.halted | self.held
        return {number: mail for number, mail in self.waiting.items() if mail.campaign not in stopped}


async def _fill(store: QueueStore, truth: Truth, messages: int) -> None:
    campaigns = ["", "sale", "news", "held", "halted-first", "halted-late"]
    await store.record_halt(HaltRequest(campaign="never-seen", closed_at=CLOCK, in_flight=0, reason="a test"))
    await store.record_hold("held", held=True, uid=0, user="root")
    together = max(10, messages // 15)  # in a commit
    for first in range(0, messages, together):
        numbers = range(first, min(messages, first + together))
        await asyncio.gather(*(_append(store, truth, number, campaigns[number % len(campaigns)]) for number in numbers))
        if first <= messages // 4 < first + together:
            await _halt(store, truth, "halted-first")
            campaigns.remove("halted-first")
        await _settle_some(store, truth, LANES[first // together % 3])
    await store.record_halt(HaltRequest(campaign="halted-late", closed_at=CLOCK, in_flight=0))
    truth.halted |= {"never-seen", "halted-late"}
    truth.held.add("held")


async def _append(store: QueueStore, truth: Truth, number: int, campaign: str) -> None:
    lane = LANES[number % 5 % 3]
    sender = f"bounces+{number}@{campaign or 'plain'}.example"
    text = b"Subject: %d\r\n\r\n" % number + b"%d line of text\r\n" % number * (number % 40) + b".\r\n"
    due = CLOCK + 5 * SECOND if number % 11 == 3 else None
    recipients = [NewRecipient(address=f"user{number}.{at}@{lane}", lane=lane, due=due) for at in range(1 + number % 4)]
    new = NewMessage(campaign=campaign, reverse_path=sender, received_at=CLOCK, body=[text], recipients=recipients)
    appended = await store.append(new)
    for recipient_id, recipient in zip(appended.recipient_ids, recipients, strict=True):
        truth.waiting[recipient_id] = Mail(campaign, appended.message_id, sender, recipient.address, text)


async def _halt(store: QueueStore, truth: Truth, campaign: str) -> None:
    await store.record_halt(HaltRequest(campaign=campaign, closed_at=CLOCK, in_flight=0))
    while (await store.drop_campaign(campaign)).more:
        pass
    for step in ("queue_dropped", "in_flight_finished", "completed"):
        await store.record_halt_step(campaign, step, CLOCK)
    truth.halted.add(campaign)
    for number in [number for number, mail in truth.waiting.items() if mail.campaign == campaign]:
        truth.done[number] = truth.waiting.pop(number)


async def _settle_some(store: QueueStore, truth: Truth, lane: str) -> None:
    page = await store.claim(lane, limit=9)
    outcomes = [Outcome.DELIVERED, None, Outcome.BOUNCED, Outcome.DELIVERED]
    settlements = []
    for claim in page.claims:
        for recipient in claim.recipients:
            outcome = outcomes[recipient.id % 4]
            settlement = Settlement(
                recipient_id=recipient.id,
                message_id=claim.message.id,
                campaign=claim.message.campaign,
                outcome=outcome,
                at=CLOCK,
                due=CLOCK + 5 * SECOND,
                code=250,
                reply="2.0.0 Ok",
                peer="mx.example[192.0.2.1]:25",
            )
            settlements.append(settlement)
            if outcome is not None:
                truth.done[recipient.id] = truth.waiting.pop(recipient.id)
    await store.settle(settlements)


async def _make(folder: Path, messages: int, *, killed: Callable[[], None] | None) -> Truth:
    truth = Truth()
    store = await QueueStore.open(folder, reserve=1 << 16, segment_size=1 << 14, now=lambda: CLOCK)
    await _fill(store, truth, messages)
    if killed is not None:
        page = await store.claim(LANES[0], limit=5)  # some are claimed, and one is open
        if page.claims:
            store.attempts.begin(page.claims[0].recipients[0].id, page.claims[0].recipients[0].attempts)
        await asyncio.sleep(0.05)
        killed()
    await store.close()
    return truth


def make_stores(folder: Path, sizes: Mapping[str, int] = SIZES) -> dict[str, tuple[Path, Truth]]:
    """Make stores as an orderly end and as a kill leave them, small ones and larger ones; give each with its truth."""
    made = {}
    for size, messages in sizes.items():
        for end in ("closed", "killed"):
            path, copy = folder / f"{size}-{end}-live", folder / f"{size}-{end}"

            def keep(path: Path = path, copy: Path = copy) -> None:
                shutil.copytree(path, copy, ignore=shutil.ignore_patterns("*-shm"))

            truth = asyncio.run(_make(path, messages, killed=keep if end == "killed" else None))
            if end == "closed":
                keep()
            shutil.rmtree(path)
            made[f"{size}-{end}"] = (copy, truth)
    return made
