"""Claims are fair over a lane's campaigns, and pass over what may not go out."""

import asyncio
import threading
from collections import Counter
from pathlib import Path

import pytest

from queue_store import index_halts
from queue_store.records import Claim, HaltRequest
from queue_store.store import QueueStore
from tests.unit.store_books import new_message, pairs


@pytest.fixture
async def store(tmp_path: Path):
    store = await QueueStore.open(tmp_path, reserve=0)
    yield store
    await store.close()


async def fill(store: QueueStore, sizes: dict[str, int]) -> None:
    await asyncio.gather(*(store.append(new_message(name)) for name, size in sizes.items() for _ in range(size)))


def shares(claims: tuple[Claim, ...]) -> Counter[str]:
    return Counter(campaign for campaign, _ in pairs(claims))


async def test_mail_without_a_campaign_goes_first(store: QueueStore) -> None:
    """A password reset would wait behind a newsletter."""
    await fill(store, {"big": 50, "": 5})
    page = await store.claim("example.com", limit=6)
    assert shares(page.claims) == {"": 5, "big": 1}
    assert page.more


async def test_a_page_is_shared_equally_and_filled(store: QueueStore) -> None:
    """A campaign of a million would starve one of ten, or a page would go out half empty."""
    await fill(store, {"a": 200, "b": 3, "c": 200})
    page = await store.claim("example.com", limit=60)
    found = shares(page.claims)
    assert sum(found.values()) == 60
    assert found["b"] == 3
    assert abs(found["a"] - found["c"]) <= 18
    assert page.more


async def test_the_cursor_goes_round_all_campaigns(store: QueueStore) -> None:
    """Campaigns behind the first few would never get a place in a small window."""
    await fill(store, {f"c{number:03}": 3 for number in range(100)})
    cursor, seen = 0, Counter[str]()
    for _ in range(10):
        page = await store.claim("example.com", limit=10, cursor=cursor)
        cursor = page.cursor
        seen += shares(page.claims)
    assert set(seen.values()) == {1}
    assert len(seen) == 100
    while page.more:
        page = await store.claim("example.com", limit=64, cursor=page.cursor)
        seen += shares(page.claims)
    assert set(seen.values()) == {3}


async def test_order_within_a_campaign_is_by_arrival(store: QueueStore) -> None:
    """Old mail would be overtaken for ever."""
    await fill(store, {"a": 30})
    numbers: list[int] = []
    for _ in range(3):
        page = await store.claim("example.com", limit=10)
        numbers += [recipient for _, recipient in pairs(page.claims)]
    assert numbers == sorted(numbers)
    assert not page.more


async def test_held_and_halted_campaigns_are_passed_over(store: QueueStore) -> None:
    """Held or halted mail would fill the window, or go out; or a lane would not be told that held mail is left."""
    await fill(store, {"held": 5, "halted": 5, "open": 5, "": 1})
    await store.record_hold("held", held=True, uid=None, user="")
    await store.record_halt(HaltRequest(campaign="halted", closed_at=1, in_flight=0))
    page = await store.claim("example.com", limit=100)
    assert shares(page.claims) == {"": 1, "open": 5}
    assert (page.more, page.held) == (False, True)
    await store.record_hold("held", held=False, uid=None, user="")
    page = await store.claim("example.com", limit=100)
    assert shares(page.claims) == {"held": 5}
    assert (page.more, page.held) == (False, False)


async def test_many_held_campaigns_do_not_hide_the_open_one(store: QueueStore) -> None:
    """With more held campaigns than one skip passes over, the open one behind them would never be found."""
    await fill(store, {f"held{number}": 1 for number in range(600)} | {"open": 1})
    await asyncio.gather(*(store.record_hold(f"held{n}", held=True, uid=None, user="") for n in range(600)))
    for cursor in (0, 300, 10_000):
        page = await store.claim("example.com", limit=10, cursor=cursor)
        assert shares(page.claims) == {"open": 1}
        assert (page.more, page.held) == (False, True)
        await store.unclaim(pairs(page.claims))


async def test_recipients_of_one_message_come_together(store: QueueStore) -> None:
    """A message with many recipients in a lane would be sent many times over, or in one transaction of thousands."""
    await store.append(new_message("a", recipients=250))
    await store.append(new_message("a", recipients=2))
    page = await store.claim("example.com", limit=252)
    assert [len(claim.recipients) for claim in page.claims] == [100, 100, 50, 2]
    assert not page.more


async def test_lanes_are_apart(store: QueueStore) -> None:
    """One destination's window would take another's mail."""
    await store.append(new_message("a", lanes=["x.org", "y.org"]))
    page = await store.claim("x.org", limit=9)
    assert [recipient.address for claim in page.claims for recipient in claim.recipients] == ["user0@x.org"]
    assert (await store.claim("unknown.org", limit=9)).claims == ()
    assert (await store.claim("y.org", limit=0)).claims == ()


async def test_a_halt_goes_before_claims_that_wait(store: QueueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy node each halt would wait for one more commit than it must."""
    await fill(store, {"a": 3})
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def block(*_: object, **__: object) -> None:
        begun.release()
        assert go_on.acquire(timeout=30)

    monkeypatch.setattr(index_halts, "count_refused", block)
    done: list[str] = []
    first = store.count_refused("x", 1)
    assert await asyncio.to_thread(begun.acquire, timeout=30)
    claim = store.claim("example.com", limit=10)
    second = store.count_refused("x", 1)  # in one batch with the claim, which is to follow it
    go_on.release()
    assert await asyncio.to_thread(begun.acquire, timeout=30)
    halt = store.record_halt(HaltRequest(campaign="a", closed_at=1, in_flight=0))
    go_on.release()
    claim.add_done_callback(lambda _: done.append("claim"))
    halt.add_done_callback(lambda _: done.append("halt"))
    await asyncio.gather(first, second, claim, halt)
    assert done == ["halt", "claim"]
    assert not (await claim).claims
