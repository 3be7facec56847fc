"""The way of a message through the store: append, claim, settle, wait, and again."""

import asyncio
from pathlib import Path

import pytest

from queue_store.errors import StoreClosed, StoreCorrupt, StoreError
from queue_store.records import HaltRequest, NewMessage, NewRecipient, Outcome, QueuedState, QueueFilter
from queue_store.store import QueueStore
from tests.unit.store_books import BODY, check_books, new_message, pairs, rows, settled


@pytest.fixture
async def store(tmp_path: Path):
    store = await QueueStore.open(tmp_path, reserve=1 << 16)
    yield store
    await store.close()
    check_books(tmp_path)


async def test_append_gives_ids_in_order_and_the_body_back(store: QueueStore, tmp_path: Path) -> None:
    """A 250 would be given for mail that can't be found or read again."""
    first, second = await asyncio.gather(store.append(new_message(recipients=3)), store.append(new_message("")))
    assert first.recipient_ids == tuple(range(first.message_id + 1, first.message_id + 4))
    assert second.message_id == first.message_id + 4
    assert first.claims == ()
    check_books(tmp_path)  # durable while the store is open
    page = await store.claim("example.com", limit=10)
    for claim in page.claims:
        assert await store.load_body(claim.message) == BODY
        assert store.read_body_nowait(claim.message) in (BODY, None)


async def test_append_keeps_every_fact(store: QueueStore) -> None:
    """DSN parameters, flags or the reverse-path of a message would be lost on the way."""
    message = NewMessage(
        campaign="ü",
        reverse_path="",
        received_at=17,
        body=(bytearray(BODY),),
        recipients=[NewRecipient(address="jörg@example.com", lane="example.com", notify="NEVER", orcpt="rfc822;x")],
        eight_bit=True,
        smtputf8=True,
        ret="HDRS",
        envid="a+2Bb",
    )
    appended = await store.append(message)
    (claim,) = (await store.claim("example.com", limit=1)).claims
    stored = claim.message
    assert (stored.id, stored.campaign, stored.reverse_path, stored.received_at) == (appended.message_id, "ü", "", 17)
    assert (stored.eight_bit, stored.smtputf8, stored.ret, stored.envid) == (True, True, "HDRS", "a+2Bb")
    assert stored.size == len(BODY)
    (recipient,) = claim.recipients
    assert (recipient.address, recipient.notify, recipient.orcpt) == ("jörg@example.com", "NEVER", "rfc822;x")
    assert recipient.attempts == 0


async def test_append_as_claimed_gives_a_claim_for_each_lane(store: QueueStore) -> None:
    """A window with room would be told of other recipients than are marked as its own, and mail would be sent twice."""
    appended = await store.append(new_message(lanes=["a.org", "b.org"], recipients=120, claimed=True))
    assert [(claim.lane, len(claim.recipients)) for claim in appended.claims] == [
        ("a.org", 100),
        ("a.org", 20),
        ("b.org", 100),
        ("b.org", 20),
    ]
    assert (await store.claim("a.org", limit=10)).claims == ()
    assert await store.load_body(appended.claims[0].message) == BODY
    assert len(await store.queue(QueueFilter(state=QueuedState.CLAIMED), limit=1000)) == 240


async def test_settlement_moves_recipients_to_outcomes(store: QueueStore, tmp_path: Path) -> None:
    """The books would not balance, or a body would be let go while a recipient still waits for it."""
    await store.append(new_message(recipients=2))
    (claim,) = (await store.claim("example.com", limit=2)).claims
    one, two = settled(claim, Outcome.DELIVERED)
    assert await store.settle([one]) == [Outcome.DELIVERED]
    check_books(tmp_path)
    assert rows(tmp_path, "SELECT live FROM messages") == [(1,)]
    assert await store.settle([two]) == [Outcome.DELIVERED]
    assert rows(tmp_path, "SELECT count(*) FROM messages") == [(0,)]
    (outcomes,) = [page async for page in store.recipients("c1")]
    assert [(row.outcome, row.attempts, row.code, row.peer) for row in outcomes] == [
        (Outcome.DELIVERED, 1, 250, "mx[192.0.2.1]:25")
    ] * 2
    assert await store.message_outcomes(claim.message.id) == outcomes
    assert rows(tmp_path, "SELECT accepted, delivered, began FROM campaigns WHERE name = 'c1'") == [(2, 2, 1)]


async def test_deferral_waits_for_its_time(store: QueueStore, tmp_path: Path) -> None:
    """A deferred recipient would be tried too soon, never again, or without its count of attempts."""
    await store.append(new_message())
    (claim,) = (await store.claim("example.com", limit=1)).claims
    assert await store.settle(settled(claim, None, due=500, code=451, reply="4.7.1 later")) == [None]
    check_books(tmp_path)
    assert (await store.claim("example.com", limit=1)).claims == ()
    (row,) = await store.queue(QueueFilter(), limit=10)
    assert (row.state, row.due, row.last_code, row.last_reply) == (QueuedState.DEFERRED, 500, 451, "4.7.1 later")
    early = await store.promote(499)
    assert (early.by_campaign, early.lanes, early.next_due, early.more) == ({}, frozenset(), 500, False)
    due = await store.promote(500)
    assert due.by_campaign["c1"].deferred == 1
    assert (due.lanes, due.next_due, due.more) == ({"example.com"}, None, False)
    (claim,) = (await store.claim("example.com", limit=1)).claims
    assert claim.recipients[0].attempts == 1


async def test_scheduled_recipients_wait(store: QueueStore, tmp_path: Path) -> None:
    """Mail with FUTURERELEASE would go out at once (RFC 4865)."""
    await asyncio.gather(*(store.append(new_message(due=due)) for due in (30, 10, 20)))
    assert not (await store.claim("example.com", limit=9)).claims
    page = await store.promote(25, limit=1)
    assert (page.by_campaign["c1"].scheduled, page.more, page.next_due) == (1, True, 20)
    check_books(tmp_path)
    page = await store.promote(25)
    assert (page.more, page.next_due) == (False, 30)
    assert len((await store.claim("example.com", limit=9)).claims) == 2


async def test_unclaim_puts_back_without_an_attempt(store: QueueStore) -> None:
    """A lane that backs off would lose its window, or charge it an attempt."""
    appended = await store.append(new_message(recipients=2, claimed=True))
    await store.unclaim(pairs(appended.claims))
    await store.unclaim([*pairs(appended.claims), ("nobody", 5)])  # once more, and unknown: nothing
    (claim,) = (await store.claim("example.com", limit=9)).claims
    assert claim == appended.claims[0]


async def test_one_bad_operation_spoils_no_other(store: QueueStore, tmp_path: Path) -> None:
    """One caller's mistake would fail or lose the mail of all that share its commit."""
    appended = await store.append(new_message(claimed=True))
    (claim,) = appended.claims
    (good,) = settled(claim, Outcome.DELIVERED)
    bad = settled(claim, Outcome.BOUNCED)
    results = await asyncio.gather(
        store.append(new_message("before")),
        store.settle([good]),
        store.settle(bad),
        store.append(new_message("\udc80")),
        store.append(new_message("empty", recipients=0)),
        store.append(new_message("both", claimed=True, due=3)),
        store.append(new_message("after")),
        store.drop_campaign("after"),
        return_exceptions=True,
    )
    kinds = [type(result).__name__ for result in results]
    assert kinds == [
        "Appended",
        "list",
        "StoreError",
        "UnicodeEncodeError",
        "StoreError",
        "StoreError",
        "Appended",
        "StoreError",
    ]
    check_books(tmp_path)
    assert rows(tmp_path, "SELECT delivered, bounced FROM campaigns WHERE name = 'c1'") == [(1, 0)]
    assert rows(tmp_path, "SELECT name FROM campaigns ORDER BY id") == [("",), ("c1",), ("before",), ("after",)]


async def test_a_settlement_of_what_is_not_claimed_is_refused(store: QueueStore, tmp_path: Path) -> None:
    """A recipient could get two outcomes, or one while it still waits to be sent."""
    appended = await store.append(new_message(claimed=True))
    (claim,) = appended.claims
    await store.unclaim(pairs([claim]))
    for outcome in (Outcome.DELIVERED, None):
        with pytest.raises(StoreError):
            await store.settle(settled(claim, outcome, due=9))
    check_books(tmp_path)


async def test_futures_resolve_in_order_of_submission(store: QueueStore) -> None:
    """The ledger in memory would see a recipient leave before it came. Claims have an order of their own."""
    seen: list[int] = []
    futures: list[asyncio.Future] = []
    for number in range(300):
        future: asyncio.Future
        if number % 3 == 0:
            future = store.append(new_message(f"c{number % 7}"))
        elif number % 3 == 1:
            future = store.claim("example.com", limit=2)
        else:
            future = store.count_refused("x", 1)
        future.add_done_callback(lambda _, number=number: seen.append(number))
        futures.append(future)
    await asyncio.gather(*futures)
    assert [number for number in seen if number % 3 != 1] == [number for number in range(300) if number % 3 != 1]
    assert [number for number in seen if number % 3 == 1] == list(range(1, 300, 3))


async def test_a_halt_goes_ahead_of_claims_and_chunks_of_others(store: QueueStore) -> None:
    """On a busy node hundreds of claims wait for their commit: a halt behind them takes a second to be answered."""
    for number in range(40):
        await store.append(new_message(f"c{number}"))
    seen: list[str] = []
    for _ in range(200):
        store.claim("example.com", limit=2).add_done_callback(lambda _: seen.append("claim"))
    halted = store.record_halt(HaltRequest(campaign="c1", closed_at=1, in_flight=0))
    halted.add_done_callback(lambda _: seen.append("halt"))
    last = store.claim("example.com", limit=100)
    page = await last
    assert "halt" in seen[:150] and seen.count("claim") == 200
    assert all(claim.message.campaign != "c1" for claim in page.claims)


async def test_claims_do_not_keep_a_drop_from_its_turn(store: QueueStore) -> None:
    """On a node with hundreds of busy lanes, a halted campaign would never be dropped, nor deferred mail promoted."""
    for number in range(40):
        await store.append(new_message(f"c{number}"))
    await store.record_halt(HaltRequest(campaign="c1", closed_at=1, in_flight=0))
    seen: list[str] = []
    claims = [store.claim("example.com", limit=100) for _ in range(30)]
    for claim in claims:
        claim.add_done_callback(lambda _: seen.append("claim"))
    walks: list[asyncio.Future] = [store.drop_campaign("c1", limit=1), store.promote(1), store.expire(0)]
    for name, walk in zip(("drop", "promote", "expire"), walks, strict=True):
        walk.add_done_callback(lambda _, name=name: seen.append(name))
    await asyncio.gather(*claims, *walks)
    assert [what for what in seen if what != "claim"] == ["drop", "promote", "expire"]
    assert seen.index("drop") < 10


async def test_a_cancelled_claim_goes_back(store: QueueStore) -> None:
    """What was claimed for a caller that is gone would be stuck until the next start."""
    await store.append(new_message())
    future = store.claim("example.com", limit=1)
    future.cancel()
    cancelled = store.append(new_message(claimed=True))
    cancelled.cancel()
    await store.claim("example.org", limit=1)
    await store.count_refused("x", 1)  # done behind those two, and behind what puts them back
    assert len((await store.claim("example.com", limit=9)).claims) == 2


async def test_a_damaged_body_is_never_served(store: QueueStore, tmp_path: Path) -> None:
    """A peer would be sent something else than what was taken in."""
    appended = await store.append(new_message(claimed=True))
    (segment,) = (tmp_path / "segments").iterdir()
    with segment.open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"X")
    with pytest.raises(StoreCorrupt):
        await store.load_body(appended.claims[0].message)


async def test_reopening_keeps_all_and_closing_returns_the_claimed(tmp_path: Path) -> None:
    """An orderly restart would lose mail, reuse ids, or leave recipients that no one claims."""
    store = await QueueStore.open(tmp_path, reserve=0)
    appended = await store.append(new_message(recipients=2, claimed=True))
    await store.append(new_message("late", lanes="b.org", due=77))
    last = store.append(new_message("", lanes="c.org"))  # submitted, not awaited
    await store.close()
    await store.close()
    assert last.done()
    check_books(tmp_path)
    with pytest.raises(StoreClosed):
        await store.append(new_message())
    with pytest.raises(StoreClosed):
        await store.queue(QueueFilter(), limit=1)

    store = await QueueStore.open(tmp_path, reserve=0)
    recovery = store.recovery
    assert (recovery.clean, recovery.returned, recovery.next_due) == (True, 0, 77)
    assert set(recovery.ready_lanes) == {"example.com", "c.org"}
    tallies = {record.name: (record.tally.accepted, record.tally.live) for record in recovery.campaigns}
    assert tallies == {"": (1, 1), "c1": (2, 2), "late": (1, 1)}
    assert {record.name: record.scheduled for record in recovery.campaigns}["late"] == 1
    (claim,) = (await store.claim("example.com", limit=9)).claims
    assert claim.recipients == appended.claims[0].recipients
    assert await store.load_body(claim.message) == BODY
    assert (await store.append(new_message())).message_id > last.result().message_id
    await store.close()


async def test_ids_are_not_used_again_when_all_is_gone(tmp_path: Path) -> None:
    """A late report or a stale attempt slot would speak of another message."""
    store = await QueueStore.open(tmp_path, reserve=0)
    appended = await store.append(new_message(claimed=True))
    await store.settle(settled(appended.claims[0], Outcome.BOUNCED))
    while await store.prune(10**17):
        pass
    await store.close()
    assert rows(tmp_path, "SELECT count(*) FROM outcomes") == [(0,)]
    store = await QueueStore.open(tmp_path, reserve=0)
    assert (await store.append(new_message())).message_id > appended.recipient_ids[-1]
    await store.close()
