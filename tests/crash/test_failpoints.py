"""A store whose process kills itself between two writes: at each failpoint there is."""

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import queue_store
from queue_store.failpoints import FAILPOINTS
from tests.crash.ledger import Ledger
from tests.crash.reader import Books
from tests.crash.reopening import examine

CHILD = Path(__file__).with_name("store_child.py")
ROOT = CHILD.parents[2]
MESSAGES = 100
SIDE_BY_SIDE = 4
KILLED = -9

# What a recovery has to do at some points is what these have left.
BEFORE = {
    "recover-unlinked": ("segment-file-made", 1),
    "recover-cut": ("bodies-written", 25),
    "recover-cut-synced": ("bodies-written", 25),
    "recover-segments-done": ("bodies-synced", 30),
    "recovery-written": ("slot-done", 20),
    "recovery-committed": ("slot-done", 20),
    "attempts-slot-cleared": ("slot-ending", 20),
    "attempts-cleared": ("slot-outcome-written", 20),
    "attempts-named": ("slot-begun", 20),
}
TRIES = 8  # where a life happens not to come to a point
# Reached once in a life, or in its first moments; the others are passed by some times before.
ONCE = {*BEFORE, *list(FAILPOINTS)[: list(FAILPOINTS).index("segment-file-made")], "segment-file-made"} | {
    name for name in FAILPOINTS if name.startswith(("attempts-", "clean-", "claims-returned", "segments-", "index-"))
}


class Forks:
    """A process that forks a child of its own for each life."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def live(self, point: str, folder: Path, ledger: Ledger, seed: int) -> int:
        """Let a child live until it has killed itself, or has done its work; give its exit status."""
        told = folder.with_name(f"told-{seed}")
        told.unlink(missing_ok=True)
        self.process.stdin.write(f"{point} {told} {folder} {seed} {MESSAGES}\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        ledger.take(told.read_text().splitlines())
        return status


@contextmanager
def forks() -> Iterator[Forks]:
    with subprocess.Popen(
        [sys.executable, str(CHILD), "serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        text=True,
    ) as process:
        yield Forks(process)
        process.stdin.close()


def die_at(serving: Forks, point: str, folder: Path, chance: random.Random) -> int:
    """Have a store's process die at a point; check what it left; give at which time it came there."""
    for attempt in range(TRIES):
        ledger = Ledger()
        nth = 1 if attempt or point in ONCE else chance.randrange(1, 6)
        if point in BEFORE:
            first, number = BEFORE[point]
            assert serving.live(f"{first}:{number + attempt}", folder, ledger, 1) == KILLED
        if serving.live(f"{point}:{nth}", folder, ledger, 2) == KILLED:
            break
        shutil.rmtree(folder)
    else:
        raise AssertionError(f"{point} was never reached: {ledger.told}")
    after = examine(folder, ledger, same_boot=True)
    if after is not None:
        ledger.adopt(after)
    assert serving.live("-", folder, ledger, 3) == 0, "it goes on"
    ledger.check_files(Books(folder))
    return nth


def die_at_each(points: Sequence[str], folder: Path, chance: random.Random) -> dict[str, int]:
    """Have a process die at each of some points; give when it came to each."""
    died = {}
    with forks() as serving:
        for point in points:
            place = folder / point
            place.mkdir()
            try:
                died[point] = die_at(serving, point, place / "store", chance)
            except Exception as error:
                raise AssertionError(f"killed at {point}") from error
            shutil.rmtree(place)
    return died


def test_each_failpoint_kills(tmp_path):
    """If it failed, a crash between two particular writes would lose mail, leak it, or spoil the books."""
    points = list(FAILPOINTS)
    died = {}
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:  # they wait for the disk, mostly
        runs = [
            pool.submit(die_at_each, points[first::SIDE_BY_SIDE], tmp_path, random.Random(first))
            for first in range(SIDE_BY_SIDE)
        ]
        for run in runs:
            died |= run.result()
    assert died.keys() == FAILPOINTS.keys()
    print(died)


def test_registry_and_code_agree():
    """A point that is in one alone could not be reached, or not be named."""
    folder = Path(queue_store.__file__).parent
    text = "\n".join(path.read_text() for path in folder.glob("*.py"))
    placed = [*re.findall(r"if ARMED:\n +reach\(\"([a-z-]+)\"\)", text), "halt-committed"]
    assert sorted(placed) == sorted(FAILPOINTS), "each point is in one place"
    assert text.count("reach(") - text.count("def reach(") == len(placed)


def test_failpoint_that_is_none():
    """A misspelt one would be a test that kills nothing."""
    result = subprocess.run(
        [sys.executable, "-c", "import queue_store.failpoints"],
        env={"MTACTL_FAILPOINT": "no-such", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "there is no failpoint no-such" in result.stderr
