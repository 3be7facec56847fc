"""A store whose process is killed, again and again, at any point."""

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.crash.ledger import Ledger
from tests.crash.reopening import examine

CHILD = Path(__file__).with_name("store_child.py")
ROOT = CHILD.parents[2]
LIVES = 3


def run_and_kill(folder: Path, seed: int, chance: random.Random) -> list[str]:
    """Run the child until it has told much, and a moment longer; give what it told, whole lines only."""
    with subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    ) as child:
        told = [child.stdout.readline() for _ in range(chance.randrange(100, 900))]
        threading.Event().wait(chance.uniform(0, 0.02))
        ended = child.poll()
        child.kill()
        told += child.stdout.readlines()
        assert ended is None, child.stderr.read().decode()
    return [line.decode() for line in told if line.endswith(b"\n")]


@pytest.mark.parametrize("seed", range(2))
def test_nothing_acknowledged_is_lost(tmp_path: Path, seed: int):
    """If it were, a 250, a halt or a count that this server gave would have been a lie."""
    folder = tmp_path / "store"
    ledger = Ledger()
    chance = random.Random(seed)
    for life in range(LIVES):
        ledger.take(run_and_kill(folder, seed * 100 + life, chance))
        after = examine(folder, ledger, same_boot=True)
        assert after is not None
        ledger.adopt(after)
    assert ledger.told["A"] > 50, "the child did something"
    assert ledger.told["S"] > 50
    assert ledger.told["H"] > 0
    print(ledger.told)
