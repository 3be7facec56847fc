"""The store's commits: a real store in a temporary folder, its thread and its fsync included."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from queue_store.records import NewMessage, NewRecipient, Outcome, Settlement
from queue_store.store import QueueStore
from tests.bench.micro.mail import AT

ROUNDS = 100
PAGE = 100
BODY = b"Subject: hello\r\n\r\n" + (b"x" * 76 + b"\r\n") * 128 + b".\r\n"  # 10 kB
LANE = "inbox.example"

_numbers = itertools.count()


@pytest.fixture
def store(run, tmp_path):
    """Give an open store."""

    async def open_store() -> QueueStore:
        return await QueueStore.open(tmp_path / "store", reserve=1 << 20)

    opened = run(open_store())
    yield opened
    run(opened.close())


def make_message(*, claimed: bool) -> NewMessage:
    number = next(_numbers)
    return NewMessage(
        campaign=f"campaign-{number % 40}",
        reverse_path="bounce@news.example",
        received_at=AT + number,
        body=(b"Received: from somewhere\r\n", BODY),
        recipients=(NewRecipient(address=f"reader{number}@{LANE}", lane=LANE, claimed=claimed),),
    )


async def append(store: QueueStore, count: int, *, claimed: bool) -> list:
    """Submit some messages in one tick; give their claims."""
    appended = await asyncio.gather(*[store.append(make_message(claimed=claimed)) for _ in range(count)])
    return [claim for each in appended for claim in each.claims]


def delivered(claim) -> Settlement:
    return Settlement(
        recipient_id=claim.recipients[0].id,
        message_id=claim.message.id,
        campaign=claim.message.campaign,
        outcome=Outcome.DELIVERED,
        at=AT,
        code=250,
        reply="2.0.0 Ok: queued as 4WvXyZ1234",
        peer="mx.inbox.example[192.0.2.1]:25",
    )


@pytest.mark.parametrize("count", [10, 100])
def test_append(benchmark, run, store, count):
    """10 and 100 messages of 10 kB, submitted together."""
    benchmark.pedantic(lambda: run(append(store, count, claimed=True)), rounds=ROUNDS, warmup_rounds=5)


def test_claim(benchmark, run, store):
    """A page of 100 recipients of one lane, of 40 campaigns."""
    run(append(store, 20 * PAGE, claimed=False))
    cursor = 0

    def refill() -> None:
        run(append(store, PAGE, claimed=False))

    async def claim() -> None:
        nonlocal cursor
        page = await store.claim(LANE, limit=PAGE, cursor=cursor)
        assert len(page.claims) > 0
        cursor = page.cursor

    benchmark.pedantic(lambda: run(claim()), setup=refill, rounds=ROUNDS)


def test_settle(benchmark, run, store):
    """100 deliveries in one operation."""

    def prepare() -> tuple[tuple[list[Settlement]], dict]:
        return ([delivered(claim) for claim in run(append(store, PAGE, claimed=True))],), {}

    async def settle(settlements: list[Settlement]) -> None:
        assert list(await store.settle(settlements)) == [Outcome.DELIVERED] * PAGE

    benchmark.pedantic(lambda settlements: run(settle(settlements)), setup=prepare, rounds=ROUNDS)
