"""A campaign counted in pages: nobody twice, nobody left out, and replies of one recipient in so many."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from queue_store.records import HaltRequest, Outcome, QueuedState
from queue_store.store import QueueStore
from tests.unit.store_books import check_books, new_message, settled


@pytest.fixture
async def store(tmp_path: Path):
    store = await QueueStore.open(tmp_path, reserve=0, now=lambda: 5_000)
    yield store
    await store.close()
    check_books(tmp_path)


async def pages(store: QueueStore, campaign: str, *, limit: int = 7, one_in=None) -> list:
    found, above = [], 0
    while above is not None:
        page = await store.analyse(campaign, one_in or {}, above=above, limit=limit)
        found.append(page)
        above = page.above
    return found


async def fill(store: QueueStore) -> None:
    for number in range(20):
        await store.append(new_message(f"c{number % 2}", lanes=["a.org", "b.org"], recipients=2))
    claims = (await store.claim("a.org", limit=30)).claims
    facts = [
        (Outcome.DELIVERED, {"at": 3_500_000, "reply": "2.0.0 Ok"}),
        (Outcome.BOUNCED, {"at": 4_000_000, "code": 550, "reply": "5.1.1 Unknown"}),
        (None, {"due": 9_000, "code": 450, "reply": "4.2.0 Later"}),
    ]
    for number, claim in enumerate(claims[:9]):
        outcome, more = facts[number % 3]
        await store.settle(settled(claim, outcome, **more))


async def test_every_recipient_is_counted_once(store: QueueStore) -> None:
    """The table of destinations would not add up to the counts of the report."""
    await fill(store)
    for campaign in ("c0", "c1"):
        found = await pages(store, campaign)
        assert len(found) > 3
        waiting, outcomes, replies = Counter(), Counter(), Counter()
        for page in found:
            for lane, state, number in page.waiting:
                waiting[lane, state] += number
            for lane, outcome, number in page.settled:
                outcomes[lane, outcome] += number
            for outcome, code, reply, number in page.replies:
                replies[outcome, code, reply] += number
            assert sum(row[-1] for row in page.times) == sum(row[-1] for row in page.settled)
        assert sum(waiting.values()) + sum(outcomes.values()) == 40
        assert waiting["b.org", QueuedState.READY] == 20
        assert {outcome for _, outcome in outcomes} <= {Outcome.DELIVERED, Outcome.BOUNCED}
        assert replies[Outcome.DELIVERED, 250, "2.0.0 Ok"] == outcomes["a.org", Outcome.DELIVERED]
        assert replies[Outcome.BOUNCED, 550, "5.1.1 Unknown"] == outcomes["a.org", Outcome.BOUNCED]
        assert replies[None, 450, "4.2.0 Later"] == waiting["a.org", QueuedState.DEFERRED] > 0
        assert (await pages(store, campaign, limit=1000))[0].above is None
    seconds = {row[0] for page in await pages(store, "c0") for row in page.times}
    assert seconds <= {3, 4}


async def test_outcomes_after_the_stop_are_told_apart(store: QueueStore) -> None:
    """The picture of a halt would not show what got out after it."""
    await store.append(new_message("c1", lanes="a.org", recipients=3))
    (claim,) = (await store.claim("a.org", limit=3)).claims
    await store.record_halt(HaltRequest(campaign="c1", closed_at=1_000, in_flight=3))
    await store.settle(settled(claim, Outcome.DELIVERED, at=2_000_000, after_stop=True))
    (page,) = await pages(store, "c1")
    assert page.times == [(2, Outcome.DELIVERED, True, 3)]


async def test_replies_of_a_part(store: QueueStore) -> None:
    """Millions of replies, each with a queue id, would all be read; or ids in a pattern would choose none."""
    await asyncio.gather(*(store.append(new_message("c1", lanes="a.org")) for _ in range(400)))
    claims = (await store.claim("a.org", limit=400)).claims
    await store.settle([one for claim in claims for one in settled(claim, Outcome.DELIVERED)])
    found = await pages(store, "c1", limit=50, one_in={Outcome.DELIVERED: 4})
    assert 50 <= sum(row[-1] for page in found for row in page.replies) <= 150
    assert sum(row[-1] for page in found for row in page.settled) == 400


async def test_a_campaign_that_is_not_there(store: QueueStore) -> None:
    """A campaign that was only ever held or halted would be an error."""
    (page,) = await pages(store, "none")
    assert (page.above, list(page.waiting), list(page.settled)) == (None, [], [])
