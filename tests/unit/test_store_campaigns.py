"""Halts, holds and the counts of campaigns."""

import asyncio
from pathlib import Path

import pytest

from queue_store.errors import CampaignHalted, StoreError
from queue_store.records import HaltRequest, Outcome, QueuedDelta, Tally
from queue_store.store import QueueStore
from tests.unit.store_books import check_books, new_message, rows, settled


@pytest.fixture
async def store(tmp_path: Path):
    store = await QueueStore.open(tmp_path, reserve=1 << 16, now=lambda: 5_000)
    yield store
    await store.close()
    check_books(tmp_path)


def halt(campaign: str, in_flight: int = 0, **facts) -> HaltRequest:
    return HaltRequest(campaign=campaign, closed_at=4_000, in_flight=in_flight, **facts)


async def test_halt_divides_the_operations_before_from_those_behind(store: QueueStore) -> None:
    """Mail submitted after the gate closed would be stored, or what was stored before would not be counted."""
    before = [store.append(new_message(recipients=2)) for _ in range(5)]
    halting = store.record_halt(halt("c1", reason="wrong prices", requested_uid=7, requested_user="ops"))
    after = [store.append(new_message()) for _ in range(5)]
    other = store.append(new_message("other"))
    results = await asyncio.gather(*before, halting, *after, other, return_exceptions=True)
    assert all(isinstance(result, CampaignHalted) for result in results[6:11])
    assert not any(isinstance(result, BaseException) for result in (*results[:6], results[11]))
    record = halting.result()
    assert (record.kind, record.queued_at_stop, record.in_flight_at_stop) == ("cancel", 10, 0)
    assert (record.reason, record.requested_uid, record.requested_user) == ("wrong prices", 7, "ops")
    assert (record.requested_at, record.recorded_at, record.already) == (4_000, 5_000, False)


async def test_halting_again_gives_the_first_facts(store: QueueStore, tmp_path: Path) -> None:
    """The report of a halt would change under whoever reads it, also over a restart."""
    first = await store.record_halt(halt("never-seen", reason="first"))
    again = await store.record_halt(halt("never-seen", 3, reason="second"))
    assert again.already
    assert (again.reason, again.in_flight_at_stop, again.kind) == ("first", 0, "cancel")
    assert first.recorded_at == again.recorded_at
    assert rows(tmp_path, "SELECT action, detail FROM audit") == [("halt", "first")]


@pytest.mark.parametrize("how", ["in flight", "settled", "deferred"])
async def test_a_halt_is_a_stop_once_anything_began(store: QueueStore, how: str) -> None:
    """The operator would be told that nothing had gone out when something had."""
    appended = await store.append(new_message(claimed=True))
    if how == "settled":
        await store.settle(settled(appended.claims[0], Outcome.BOUNCED))
    elif how == "deferred":
        await store.settle(settled(appended.claims[0], None, due=9))
    record = await store.record_halt(halt("c1", int(how == "in flight")))
    assert record.kind == "stop"
    assert record.queued_at_stop == (1 if how == "deferred" else 0)


async def test_a_refusal_of_ours_is_no_beginning(store: QueueStore) -> None:
    """A campaign that never reached a peer would be reported as stopped, not cancelled."""
    appended = await store.append(new_message(claimed=True))
    await store.settle(settled(appended.claims[0], Outcome.BOUNCED, began=False))
    assert (await store.record_halt(halt("c1"))).kind == "cancel"


async def test_a_deferral_of_a_halted_campaign_is_dropped(store: QueueStore, tmp_path: Path) -> None:
    """A recipient of a halted campaign would be tried again."""
    appended = await store.append(new_message(claimed=True))
    other = await store.append(new_message("other", claimed=True))
    await store.record_halt(halt("c1", 1))
    deferrals = settled(appended.claims[0], None, due=9, code=451, reply="later") + settled(
        other.claims[0], None, due=9
    )
    assert await store.settle(deferrals) == [Outcome.DROPPED, None]
    (page,) = [page async for page in store.recipients("c1", after_stop=True)]
    assert [(row.outcome, row.code, row.reply, row.attempts) for row in page] == [(Outcome.DROPPED, 451, "later", 1)]


async def test_deliveries_after_the_stop_are_counted_apart(store: QueueStore, tmp_path: Path) -> None:
    """No one could say what got out after the stop."""
    appended = await store.append(new_message(recipients=3, claimed=True))
    one, two, three = settled(appended.claims[0], Outcome.DELIVERED)
    await store.settle([one])
    await store.record_halt(halt("c1", 2))
    after = settled(appended.claims[0], Outcome.DELIVERED, after_stop=True)
    await store.settle([after[1]])
    await store.settle(settled(appended.claims[0], Outcome.UNKNOWN, after_stop=True)[2:])
    assert rows(tmp_path, "SELECT delivered, delivered_after_stop, unknown FROM campaigns WHERE name = 'c1'") == [
        (2, 1, 1)
    ]
    marked = [page async for page in store.recipients("c1", outcomes={Outcome.DELIVERED}, after_stop=True)]
    assert [row.recipient_id for page in marked for row in page] == [two.recipient_id]
    assert three.recipient_id != two.recipient_id


async def test_drop_leaves_the_claimed_and_other_campaigns(store: QueueStore, tmp_path: Path) -> None:
    """A recipient in flight would get two outcomes, or a campaign that no one halted would lose mail."""
    with pytest.raises(StoreError):
        await store.drop_campaign("c1")
    claimed = await store.append(new_message(claimed=True))
    deferred = await store.append(new_message(claimed=True))
    await store.settle(settled(deferred.claims[0], None, due=9))
    await asyncio.gather(*(store.append(new_message(recipients=3)) for _ in range(5)), store.append(new_message(due=8)))
    await store.append(new_message("other"))
    await store.record_halt(halt("c1", 1))
    first = await store.drop_campaign("c1", limit=10)
    assert (first.by_campaign["c1"].total, first.more) == (10, True)
    check_books(tmp_path)
    second = await store.drop_campaign("c1", limit=10)
    total = QueuedDelta(
        ready=first.by_campaign["c1"].ready + second.by_campaign["c1"].ready,
        deferred=first.by_campaign["c1"].deferred + second.by_campaign["c1"].deferred,
        scheduled=first.by_campaign["c1"].scheduled + second.by_campaign["c1"].scheduled,
    )
    assert total == QueuedDelta(ready=15, deferred=1, scheduled=1)
    assert not second.more
    assert (await store.drop_campaign("c1")).by_campaign == {}
    await store.unclaim([("c1", claimed.recipient_ids[0])])
    last = await store.drop_campaign("c1")
    assert last.by_campaign == {"c1": QueuedDelta(ready=1)}
    assert len((await store.claim("example.com", limit=9)).claims) == 1


async def test_steps_of_a_halt_are_kept_as_first_recorded(store: QueueStore) -> None:
    """A finished report would change at the next start, when the halt is resumed."""
    await store.record_halt(halt("c1"))
    await store.record_halt_step("c1", "queue_dropped", 10)
    await store.record_halt_step("c1", "in_flight_finished", 20)
    await store.record_halt_step("c1", "completed", 30)
    record = await store.record_halt_step("c1", "completed", 40)
    assert (record.queue_dropped_at, record.in_flight_finished_at, record.completed_at) == (10, 20, 30)
    with pytest.raises(StoreError):
        await store.record_halt_step("c1", "recorded_at = 0 --", 1)
    with pytest.raises(StoreError):
        await store.record_halt_step("c2", "completed", 1)


async def test_holds_are_kept_and_end_at_a_halt(store: QueueStore, tmp_path: Path) -> None:
    """A held campaign would go out after a restart, or a halted one could be released."""
    await store.record_hold("new", held=True, uid=0, user="root")
    await store.record_hold("back", held=True, uid=0, user="root")
    await store.record_hold("back", held=False, uid=0, user="root")
    await store.record_hold("c1", held=True, uid=0, user="root")
    await store.record_halt(halt("c1"))
    for held in (True, False):
        with pytest.raises(CampaignHalted):
            await store.record_hold("c1", held=held, uid=0, user="root")
    await store.close()
    reopened = await QueueStore.open(tmp_path, reserve=0)
    records = {record.name: record for record in reopened.recovery.campaigns}
    await reopened.close()
    assert {name for name, record in records.items() if record.held} == {"new"}
    assert records["c1"].halt is not None
    assert records["c1"].halt.completed_at is None
    assert [action for (action,) in rows(tmp_path, "SELECT action FROM audit ORDER BY id")] == [
        "hold",
        "hold",
        "release",
        "hold",
        "halt",
    ]


async def test_refused_and_discarded_are_counted(store: QueueStore, tmp_path: Path) -> None:
    """The report would not say how much was injected after the halt."""
    await store.record_halt(halt("c1"))
    await store.count_refused("c1", 3)
    await store.count_refused("c1", 2, discarded=True)
    await store.close()
    reopened = await QueueStore.open(tmp_path, reserve=0)
    record = next(record for record in reopened.recovery.campaigns if record.name == "c1")
    await reopened.close()
    assert record.tally == Tally(refused=3, discarded=2)
