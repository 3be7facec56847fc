"""A store whose process is killed, again and again, at any point."""

import asyncio
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import apsw
import pytest

from queue_store import fsck
from queue_store.records import Outcome, Recovery
from queue_store.store import QueueStore

CHILD = Path(__file__).with_name("store_child.py")
ROOT = CHILD.parents[2]


def run_and_kill(folder: Path, seed: int, seconds: float) -> list[list[str]]:
    """Run the child for a while; give what it told, whole lines only."""
    with subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == b"ready\n", child.stderr.read().decode()
        told: list[bytes] = []
        reader = threading.Thread(target=lambda: told.append(child.stdout.read()))
        reader.start()
        threading.Event().wait(seconds)
        ended = child.poll()
        child.kill()
        reader.join()
        assert ended is None, child.stderr.read().decode()
    whole = told[0][: told[0].rfind(b"\n") + 1]
    return [line.split() for line in whole.decode().splitlines()]


def recover(folder: Path) -> Recovery:
    async def reopen() -> Recovery:
        store = await QueueStore.open(folder, reserve=4096, segment_size=100_000)
        recovery = store.recovery
        await store.close()
        return recovery

    return asyncio.run(reopen())


@pytest.mark.parametrize("seed", range(2))
def test_nothing_acknowledged_is_lost(tmp_path: Path, seed: int):
    """If it were, a 250, a halt or a count that this server gave would have been a lie."""
    folder = tmp_path / "store"
    campaigns: dict[int, str] = {}  # of recipients whose append was acknowledged
    final: dict[int, str] = {}  # outcomes that were acknowledged, or in the attempt log when the process died
    halted: dict[str, str] = {}
    totals: Counter[str] = Counter()
    for round_number in range(5):
        told = run_and_kill(folder, seed * 100 + round_number, 0.15 + 0.2 * (round_number % 3))
        logged: dict[int, str] = {}
        begun: set[int] = set()
        for kind, *facts in told:
            totals[kind] += 1
            if kind == "A":
                campaigns |= dict.fromkeys(map(int, facts[1:]), facts[0])
            elif kind == "H":
                assert halted.setdefault(facts[0], facts[1]) == facts[1]
            elif kind == "B":
                number = int(facts[0])
                assert number not in final, "a recipient with an outcome began again"
                begun.add(number)
            elif kind == "O":
                logged[int(facts[0])] = facts[1]
            elif kind == "S":
                number = int(facts[0])
                begun.discard(number)
                assert facts[1] == logged[number] or (logged[number], facts[1]) == ("none", "DROPPED")
                del logged[number]
                if facts[1] != "none":
                    final[number] = facts[1]
        assert [str(found) for found in fsck.check(folder) if found.severity is fsck.Severity.ERROR] == []
        recovery = recover(folder)
        assert fsck.check(folder) == [], "opening mends what a crash leaves"
        totals["settled"] += recovery.settled
        totals["unknown"] += recovery.unknown
        db = apsw.Connection(str(folder / fsck.INDEX))
        waiting = dict(db.execute("SELECT id, state FROM recipients"))
        ended = {number: Outcome(outcome).name for number, outcome in db.execute("SELECT id, outcome FROM outcomes")}
        on_record = dict(db.execute("SELECT c.name, h.kind FROM halts h JOIN campaigns c ON c.id = h.campaign_id"))
        db.close()
        assert halted.items() <= on_record.items()
        assert campaigns.keys() <= waiting.keys() | ended.keys()
        assert not waiting.keys() & ended.keys()
        for number, outcome in logged.items():
            if outcome != "none":
                assert ended[number] == outcome, "what the attempt log was told is settled"
            else:
                assert waiting.get(number) == 1 or ended[number] == "DROPPED"
        assert final.items() <= ended.items()
        unknown = {number for number, outcome in ended.items() if outcome == "UNKNOWN"}
        assert unknown - final.keys() <= begun, "only what was really open is unknown"
        final |= ended
    assert totals["A"] > 50, "the child did something"
    assert totals["S"] > 50
    assert totals["H"] > 0
    print(totals)
