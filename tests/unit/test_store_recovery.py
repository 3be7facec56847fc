"""What a store finds after its process was killed at any point, or the machine lost its power."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from queue_store.errors import StoreCorrupt, StoreLocked
from queue_store.index import connect
from queue_store.records import Outcome, QueuedState, QueueFilter
from queue_store.store import QueueStore
from tests.unit.store_books import BODY, check_books, new_message, rows

ROOT = Path(__file__).parents[2]

# A recipient for each point at which the process may die, in a campaign that is halted then and in one that is not.
DIE_EVERYWHERE = """
import asyncio, os, signal, sys
from pathlib import Path
from queue_store.records import HaltRequest, Outcome
from queue_store.store import QueueStore
from tests.unit.store_books import new_message, settled

CASES = ["claimed", "open", "ending", "delivered", "deferred", "stale", "settled"]

async def main():
    store = await QueueStore.open(Path(sys.argv[1]), reserve=0)
    for campaign in ("open", "halted"):
        for case in CASES:
            appended = await store.append(new_message(campaign, lanes=case, claimed=True))
            (claim,) = appended.claims
            (recipient,) = claim.recipients
            if case == "claimed":
                continue
            if case == "stale":  # an earlier attempt's slot, not yet freed when the process died
                store.attempts.begin(recipient.id, recipient.attempts)
                await store.settle(settled(claim, None, due=5))
                await store.promote(5)
                await store.claim(case, limit=1)
                continue
            slot = store.attempts.begin(recipient.id, recipient.attempts)
            if case == "open":
                continue
            store.attempts.ending(slot)
            if case == "ending":
                continue
            outcome = None if case == "deferred" else Outcome.DELIVERED
            (settlement,) = settled(claim, outcome, due=9_000, slot=slot, after_stop=campaign == "halted")
            store.attempts.outcome(slot, settlement)
            if case == "settled":
                await store.settle([settlement])
        await store.append(new_message(campaign, lanes="waiting"))
    await store.record_halt(HaltRequest(campaign="halted", closed_at=1, in_flight=3))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def run_to_death(code: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def outcomes(folder: Path, campaign: str) -> dict[str, tuple[Outcome, int]]:
    found = rows(
        folder,
        "SELECT l.name, o.outcome, o.after_stop FROM outcomes AS o JOIN lanes AS l ON l.id = o.lane_id"
        " JOIN campaigns AS c ON c.id = o.campaign_id WHERE c.name = ?",
        campaign,
    )
    return {lane: (Outcome(outcome), after_stop) for lane, outcome, after_stop in found}


def states(folder: Path, campaign: str) -> dict[str, QueuedState]:
    found = rows(
        folder,
        "SELECT l.name, r.state FROM recipients AS r JOIN lanes AS l ON l.id = r.lane_id"
        " JOIN campaigns AS c ON c.id = r.campaign_id WHERE c.name = ?",
        campaign,
    )
    return {lane: QueuedState(state) for lane, state in found}


async def test_a_killed_process_leaves_exact_books(tmp_path: Path) -> None:
    """After a crash mail of a halted campaign would go out, a known outcome would be lost, or a delivery be doubled."""
    run_to_death(DIE_EVERYWHERE, tmp_path)
    check_books(tmp_path)
    store = await QueueStore.open(tmp_path, reserve=0)
    recovery = store.recovery
    check_books(tmp_path)
    await store.close()
    assert not recovery.clean
    ready, deferred = QueuedState.READY, QueuedState.DEFERRED
    assert states(tmp_path, "open") == {
        "claimed": ready,
        "open": ready,
        "ending": ready,
        "deferred": deferred,
        "stale": ready,
        "waiting": ready,
    }
    delivered = (Outcome.DELIVERED, 0)
    assert outcomes(tmp_path, "open") == {"delivered": delivered, "settled": delivered}
    assert states(tmp_path, "halted") == {"claimed": ready, "stale": ready, "waiting": ready}
    assert outcomes(tmp_path, "halted") == {
        "open": (Outcome.DROPPED, 1),
        "ending": (Outcome.UNKNOWN, 1),
        "delivered": (Outcome.DELIVERED, 1),
        "deferred": (Outcome.DROPPED, 1),
        "settled": delivered,  # it was submitted before the halt
    }
    assert (recovery.returned, recovery.unknown, recovery.settled) == (6, 1, 4)
    assert "waiting" in recovery.ready_lanes
    assert recovery.next_due == 9_000


async def test_after_a_power_cut_whatever_was_claimed_may_have_begun(tmp_path: Path) -> None:
    """The attempt log of another boot would be believed, and an unknown delivery be reported as known."""
    run_to_death(DIE_EVERYWHERE, tmp_path)
    with (tmp_path / "attempts").open("r+b") as file:
        file.seek(16)
        file.write(b"00000000-0000-0000-0000-000000000000")
    store = await QueueStore.open(tmp_path, reserve=0)
    recovery = store.recovery
    await store.close()
    check_books(tmp_path)
    assert set(outcomes(tmp_path, "open")) == {"settled"}
    assert set(states(tmp_path, "open").values()) == {QueuedState.READY}
    unknown = {lane for lane, (outcome, _) in outcomes(tmp_path, "halted").items() if outcome is Outcome.UNKNOWN}
    assert unknown == {"claimed", "open", "ending", "delivered", "deferred", "stale"}
    assert states(tmp_path, "halted") == {"waiting": QueuedState.READY}
    assert (recovery.unknown, recovery.settled) == (6, 0)


CANCEL_AND_DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from queue_store.records import HaltRequest
from queue_store.store import QueueStore
from tests.unit.store_books import new_message

async def main():
    store = await QueueStore.open(Path(sys.argv[1]), reserve=0)
    await store.append(new_message("c1", claimed=True))
    await store.record_halt(HaltRequest(campaign="c1", closed_at=1, in_flight=0))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_nothing_of_a_cancelled_campaign_is_unknown(tmp_path: Path) -> None:
    """After a power cut a campaign of which nothing ever began would be reported as possibly delivered."""
    run_to_death(CANCEL_AND_DIE, tmp_path)
    with (tmp_path / "attempts").open("r+b") as file:
        file.seek(16)
        file.write(b"00000000-0000-0000-0000-000000000000")
    store = await QueueStore.open(tmp_path, reserve=0)
    assert (store.recovery.unknown, store.recovery.returned) == (0, 1)
    assert (await store.drop_campaign("c1")).by_campaign["c1"].ready == 1
    assert not next(record for record in store.recovery.campaigns if record.name == "c1").began
    await store.close()
    check_books(tmp_path)


DIE_BEFORE_THE_HALT = """
import asyncio, os, signal, sys
from pathlib import Path
from queue_store.records import Outcome
from queue_store.store import QueueStore
from tests.unit.store_books import new_message, settled

async def main():
    store = await QueueStore.open(Path(sys.argv[1]), reserve=0)
    for outcome in (Outcome.DELIVERED, Outcome.BOUNCED, None):
        lane = "none" if outcome is None else outcome.name
        appended = await store.append(new_message("c1", lanes=lane, claimed=True))
        (claim,) = appended.claims
        slot = store.attempts.begin(claim.recipients[0].id, 0)
        store.attempts.outcome(slot, *settled(claim, outcome, due=9_000, slot=slot, after_stop=True))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_nothing_is_after_a_stop_that_is_not_on_record(tmp_path: Path) -> None:
    """A campaign that was never halted would have deliveries after the stop, and its later halt too many of them."""
    run_to_death(DIE_BEFORE_THE_HALT, tmp_path)
    store = await QueueStore.open(tmp_path, reserve=0)
    (campaign,) = (record for record in store.recovery.campaigns if record.name == "c1")
    await store.close()
    assert (campaign.tally.delivered, campaign.tally.delivered_after_stop) == (1, 0)
    assert outcomes(tmp_path, "c1") == {"DELIVERED": (Outcome.DELIVERED, 0), "BOUNCED": (Outcome.BOUNCED, 0)}
    assert states(tmp_path, "c1") == {"none": QueuedState.DEFERRED}
    check_books(tmp_path)


async def test_a_recovery_is_done_once(tmp_path: Path) -> None:
    """A second crash would count the outcomes of the first again."""
    run_to_death(DIE_EVERYWHERE, tmp_path)
    store = await QueueStore.open(tmp_path, reserve=0)
    first = {record.name: record.tally for record in store.recovery.campaigns}
    await store.close()
    store = await QueueStore.open(tmp_path, reserve=0)
    assert {record.name: record.tally for record in store.recovery.campaigns} == first
    assert (store.recovery.clean, store.recovery.returned, store.recovery.settled) == (True, 0, 0)
    await store.close()


LIVE_DANGEROUSLY = """
import asyncio, sys
from pathlib import Path
from queue_store.records import Outcome
from queue_store.store import QueueStore
from tests.unit.store_books import new_message, settled

async def main():
    store = await QueueStore.open(Path(sys.argv[1]), reserve=0, segment_size=1 << 14)
    print("open", flush=True)
    async def produce(number):
        while True:
            message = new_message(f"c{number % 3}", lanes=f"d{number}.org", recipients=2, claimed=True)
            appended = await store.append(message)
            print(appended.message_id, flush=True)
            (claim,) = appended.claims
            one, two = settled(claim, Outcome.DELIVERED), settled(claim, None, due=9)
            await store.settle([one[0]])
            print("settled", one[0].recipient_id, flush=True)
            await store.settle([two[1]])
    await asyncio.gather(*(produce(number) for number in range(20)))

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_a_kill_at_any_time(tmp_path: Path) -> None:
    """Mail that got its 250, or an outcome that was reported, would be gone."""
    acknowledged: set[int] = set()
    settled_ids: set[int] = set()
    for lines in (50, 333, 1000):
        with subprocess.Popen(
            [sys.executable, "-c", LIVE_DANGEROUSLY, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as victim:
            assert victim.stdout is not None
            assert victim.stdout.readline() == "open\n"
            said = [victim.stdout.readline() for _ in range(lines)]
            victim.kill()
            said += victim.stdout.readlines()
        for words in (line.split() for line in said if line.endswith("\n")):
            (settled_ids if words[0] == "settled" else acknowledged).add(int(words[-1]))
        check_books(tmp_path)
        store = await QueueStore.open(tmp_path, reserve=0)
        check_books(tmp_path)
        waiting = await store.queue(QueueFilter(), limit=100_000)
        known = {row.message.id for row in waiting}
        assert acknowledged <= known
        ended = {number for (number,) in rows(tmp_path, "SELECT id FROM outcomes")}
        assert settled_ids <= ended
        for row in waiting[::50]:
            assert await store.load_body(row.message) == BODY
        assert not await store.queue(QueueFilter(state=QueuedState.CLAIMED), limit=1)
        await store.close()


async def test_a_torn_tail_is_cut_and_told(tmp_path: Path) -> None:
    """A body half written before the crash would be taken for mail, or shift all that follow."""
    run_to_death(DIE_EVERYWHERE, tmp_path)
    (segment,) = (tmp_path / "segments").iterdir()
    length = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(b"half a record")
    store = await QueueStore.open(tmp_path, reserve=0)
    assert any("13 octets" in repair for repair in store.recovery.repairs)
    assert segment.stat().st_size == length
    for row in await store.queue(QueueFilter(), limit=100):
        assert await store.load_body(row.message) == BODY
    await store.close()


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    """Two daemons would send the same queue."""
    store = await QueueStore.open(tmp_path, reserve=0)
    with pytest.raises(StoreLocked, match=f"process {os.getpid()}") as caught:
        await QueueStore.open(tmp_path, reserve=0)
    assert caught.value.pid == os.getpid()
    await store.close()
    store = await QueueStore.open(tmp_path, reserve=0)
    await store.close()


async def test_a_foreign_or_newer_file_is_refused(tmp_path: Path) -> None:
    """A downgrade, or a wrong path, would destroy what it does not understand; and the lock must be let go."""
    (tmp_path / "queue.db").write_bytes(b"this is no database, but it is long enough to be taken for one" * 100)
    with pytest.raises(StoreCorrupt):
        await QueueStore.open(tmp_path, reserve=0)
    (tmp_path / "queue.db").unlink()
    store = await QueueStore.open(tmp_path, reserve=0)
    await store.close()
    newer = connect(tmp_path / "queue.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StoreCorrupt, match="newer"):
        await QueueStore.open(tmp_path, reserve=0)


async def test_a_cancelled_opening_lets_go_of_the_store(tmp_path: Path) -> None:
    """A start that was given up would keep the store locked until the process ends."""
    opening = asyncio.ensure_future(QueueStore.open(tmp_path, reserve=0))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    for _ in range(100):
        try:
            store = await QueueStore.open(tmp_path, reserve=0)
            break
        except StoreLocked:
            await asyncio.sleep(0.02)
    await store.close()


async def test_a_lost_index_does_not_cost_the_bodies(tmp_path: Path) -> None:
    """Someone who removes a damaged queue.db and starts the daemon would lose every body for good."""
    store = await QueueStore.open(tmp_path, reserve=1 << 16, segment_size=200)
    for _ in range(5):
        await store.append(new_message())
    await store.close()
    for file in tmp_path.glob("queue.db*"):
        file.unlink()
    with pytest.raises(StoreCorrupt, match="segments of bodies"):
        await QueueStore.open(tmp_path, reserve=1 << 16)
    assert len([file for file in (tmp_path / "segments").iterdir() if file.stat().st_size]) > 1
