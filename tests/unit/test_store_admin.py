"""What an administrator sees and does: listings, retries, drops, expiry, and the forgetting of old outcomes."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from queue_store import index_drops, index_reads
from queue_store.records import HaltRequest, Outcome, OutcomeRow, QueuedState, QueueFilter
from queue_store.store import QueueStore
from tests.unit.store_books import check_books, new_message, rows, settled


@pytest.fixture
async def store(tmp_path: Path):
    store = await QueueStore.open(tmp_path, reserve=0, now=lambda: 5_000)
    yield store
    await store.close()
    check_books(tmp_path)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let walks take many chunks over a small queue."""
    monkeypatch.setattr(index_drops, "_ROWS_IN_CHUNK", 7)
    monkeypatch.setattr(index_drops, "_MESSAGES_IN_CHUNK", 5)
    monkeypatch.setattr(index_reads, "_MESSAGES_IN_PAGE", 3)
    monkeypatch.setattr(index_reads, "_RECIPIENTS_IN_PAGE", 4)


async def defer_all(store: QueueStore, lane: str) -> None:
    page = await store.claim(lane, limit=1000)
    await store.settle([one for claim in page.claims for one in settled(claim, None, due=9_000)])


@pytest.mark.usefixtures("small_chunks")
async def test_listing_is_by_age_and_filtered(store: QueueStore) -> None:
    """The administrator would be shown other mail than asked for, or not the oldest."""
    for number in range(12):
        sender = "boss@example.org" if number % 4 == 0 else "bounces@example.org"
        lanes = ["a.org", "b.org"] if number % 3 == 0 else "a.org"
        await store.append(new_message(f"c{number % 2}", lanes=lanes, sender=sender))
    await defer_all(store, "b.org")
    everything = await store.queue(QueueFilter(), limit=100)
    numbers = [row.recipient.id for row in everything]
    assert len(numbers) == 16
    assert numbers == sorted(numbers)
    assert [row.recipient.id for row in await store.queue(QueueFilter(), limit=5)] == numbers[:5]

    async def listed(**facts) -> list[int]:
        return [row.recipient.id for row in await store.queue(QueueFilter(**facts), limit=100)]

    def meant(test) -> list[int]:
        return [row.recipient.id for row in everything if test(row)]

    assert await listed(campaign="c1") == meant(lambda row: row.message.campaign == "c1")
    assert await listed(lane="b.org") == meant(lambda row: row.lane == "b.org")
    assert await listed(domain="B.org") == meant(lambda row: row.lane == "b.org")
    assert await listed(domain="%.org") == []
    assert await listed(sender="boss@example.org", campaign="c0") == meant(
        lambda row: row.message.reverse_path == "boss@example.org"
    )
    assert await listed(state=QueuedState.DEFERRED) == meant(lambda row: row.lane == "b.org")
    message = everything[3].message
    assert await listed(message_id=message.id) == meant(lambda row: row.message == message)
    assert await listed(message_id=message.id, campaign="c0" if message.campaign == "c1" else "c1") == []
    assert await listed(campaign="unknown") == await listed(lane="unknown") == await listed(message_id=10**9) == []
    await store.claim("a.org", limit=3)
    for facts in (
        {},
        {"campaign": "c0"},
        {"lane": "a.org"},
        {"lane": "b.org"},
        {"message_id": everything[0].message.id},
    ):
        claimed = await store.queue(QueueFilter(state=QueuedState.CLAIMED, **facts), limit=100)
        same = [row for row in await store.queue(QueueFilter(**facts), limit=100) if row.state is QueuedState.CLAIMED]
        assert claimed == same


@pytest.mark.usefixtures("small_chunks")
async def test_retry_makes_deferred_mail_ready(store: QueueStore) -> None:
    """`queue retry` would miss some, or let scheduled mail out before its time."""
    await asyncio.gather(*(store.append(new_message(f"c{n % 3}", lanes=["a.org", "b.org"])) for n in range(20)))
    await store.append(new_message("c1", lanes="a.org", due=9_000))
    await defer_all(store, "a.org")
    await defer_all(store, "b.org")
    moved, lanes, more = 0, set(), True
    while more:
        page = await store.retry(QueueFilter(domain="a.org"), limit=5)
        moved += sum(delta.deferred for delta in page.by_campaign.values())
        lanes |= page.lanes
        more = page.more
        assert page.next_due == 9_000
    assert (moved, lanes) == (20, {"a.org"})
    assert len(await store.queue(QueueFilter(state=QueuedState.DEFERRED), limit=100)) == 20
    assert len(await store.queue(QueueFilter(state=QueuedState.SCHEDULED), limit=100)) == 1
    page = await store.retry(QueueFilter(campaign="c0", lane="b.org"), limit=500)
    while page.more:
        page = await store.retry(QueueFilter(campaign="c0", lane="b.org"), limit=500)
    left = await store.queue(QueueFilter(state=QueuedState.DEFERRED), limit=100)
    assert len(left) == 13
    assert all(row.message.campaign != "c0" for row in left)


@pytest.mark.usefixtures("small_chunks")
async def test_drop_by_filter(store: QueueStore, tmp_path: Path) -> None:
    """`queue drop` would leave some behind, take what was not meant, or what is claimed."""
    appended = await asyncio.gather(
        *(store.append(new_message(f"c{n % 3}", lanes=["a.org", "b.org"], sender=f"s{n % 2}@x.org")) for n in range(20))
    )
    await store.claim("a.org", limit=1)
    which = QueueFilter(domain="a.org", sender="s0@x.org")
    dropped, more = 0, True
    while more:
        page = await store.drop(which, limit=3)
        dropped += sum(delta.total for delta in page.by_campaign.values())
        more = page.more
    assert dropped == 9
    left = await store.queue(which, limit=100)
    assert [row.state for row in left] == [QueuedState.CLAIMED]
    page = await store.drop(QueueFilter(message_id=appended[1].message_id))
    assert sum(delta.total for delta in page.by_campaign.values()) == 2
    outcomes = await store.message_outcomes(appended[1].message_id)
    assert [(row.outcome, row.after_stop) for row in outcomes] == [(Outcome.DROPPED, False)] * 2
    assert (await store.drop(QueueFilter(campaign="nothing"))).by_campaign == {}
    assert len(rows(tmp_path, "SELECT 1 FROM outcomes")) == 11


@pytest.mark.usefixtures("small_chunks")
async def test_expiry_takes_the_old_once(store: QueueStore, tmp_path: Path) -> None:
    """Mail would wait for ever, expire too soon, or expire under a transaction or a halt."""
    await store.append(new_message("held", lanes="b.org", at=0))
    for number in range(30):
        await store.append(new_message(("c", "halted")[number % 5 == 0], lanes="a.org", recipients=2, at=number))
    await store.record_hold("held", held=True, uid=None, user="")
    await store.record_halt(HaltRequest(campaign="halted", closed_at=1, in_flight=0))
    claimed = await store.claim("a.org", limit=2)

    async def expire_all() -> dict[str, int]:
        total, calls, more = Counter[str](), 0, True
        while more:
            page = await store.expire(20, limit=4)
            total.update({name: delta.total for name, delta in page.by_campaign.items()})
            more = page.more
            calls += 1
            assert calls < 20
        return total

    assert await expire_all() == {"held": 1, "c": 2 * (20 - 4) - 2}
    assert await expire_all() == {}
    left = await store.queue(QueueFilter(campaign="c"), limit=100)
    assert {row.message.received_at for row in left} == {1, *(n for n in range(20, 30) if n % 5)}
    await store.settle([one for claim in claimed.claims for one in settled(claim, None, due=1)])
    assert await expire_all() == {"c": 2}


async def test_pruning_forgets_outcomes_not_counts(store: QueueStore, tmp_path: Path) -> None:
    """The disk would fill with old outcomes, or a report would change when they go."""
    for campaign in ("a", "b"):
        for at in (10, 20, 30):
            appended = await store.append(new_message(campaign, recipients=3, claimed=True))
            await store.settle(settled(appended.claims[0], Outcome.DELIVERED, at=at))
    await store.record_halt(HaltRequest(campaign="a", closed_at=1, in_flight=0))
    while await store.prune(25, limit=4):
        pass
    assert rows(tmp_path, "SELECT at, count(*) FROM outcomes GROUP BY at") == [(30, 6)]
    assert rows(tmp_path, "SELECT accepted, delivered FROM campaigns WHERE id > 0") == [(9, 9)] * 2
    assert rows(tmp_path, "SELECT count(*) FROM halts") == [(1,)]


async def test_outcomes_are_streamed_in_order_by_pages(store: QueueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign's report of recipients would miss some or repeat them at the seams of pages."""
    monkeypatch.setattr("queue_store.store._OUTCOMES_IN_PAGE", 7)
    appended = await store.append(new_message(recipients=50, claimed=True))
    outcomes = [Outcome.DELIVERED if number % 2 else Outcome.BOUNCED for number in range(50)]
    settlements = [settled(appended.claims[0], outcome)[number] for number, outcome in enumerate(outcomes)]
    await store.settle(settlements)
    pages: list[list[OutcomeRow]] = [list(page) async for page in store.recipients("c1")]
    assert [len(page) for page in pages] == [7] * 7 + [1]
    assert [row.recipient_id for page in pages for row in page] == list(appended.recipient_ids)
    bounced = [row async for page in store.recipients("c1", outcomes=[Outcome.BOUNCED]) for row in page]
    assert len(bounced) == 25
    assert [page async for page in store.recipients("unknown")] == []
    assert [page async for page in store.recipients("c1", outcomes=[])] == []


async def test_outcomes_of_a_message_are_found_without_it(store: QueueStore) -> None:
    """`queue show` would find nothing of a message that is gone, or mix it up with its neighbours."""
    appended = [
        await store.append(new_message(campaign, recipients=2, claimed=True)) for campaign in ("a", "b", "a", "")
    ]
    for one in appended[:3]:
        await store.settle(settled(one.claims[0], Outcome.DELIVERED))
    for one in appended[:3]:
        found = await store.message_outcomes(one.message_id)
        assert [row.recipient_id for row in found] == list(one.recipient_ids)
    assert await store.message_outcomes(appended[3].message_id) == []
