"""Damage stores at random and say what became of them: `make corruption ARGS="--stores 2000 --seed 1"`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.corruption.stores import make_stores
from tests.corruption.trial import Broken, Verdict, run_trial
from tests.world.disk_trial import STORE_FILES, count_calls, fails_at, full_at
from tests.world.failing_disk import Calls, Files


class Table:
    """The figures, by kind of file."""

    def __init__(self) -> None:
        self.rows: dict[str, Counter[str]] = {}
        self.broken: list[str] = []

    def add(self, verdict: Verdict) -> None:
        """Count a verdict."""
        row = self.rows.setdefault("+".join(sorted(verdict.kinds)), Counter())
        row["stores"] += 1
        row["opened"] += verdict.opened
        row["refused"] += not verdict.opened
        row["rebuilt"] += verdict.rebuilt
        row["mail"] += verdict.sendable
        row["sent"] += len(verdict.sent) - verdict.again if verdict.opened else 0
        row["bodies"] += len(verdict.damaged_bodies)
        row["again"] += verdict.again

    def show(self) -> str:
        """Give the figures as a table."""
        heads = ("stores", "opened", "refused", "rebuilt", "mail", "sent", "bodies", "again")
        lines = [f"{'file':<10}" + "".join(f"{head:>9}" for head in heads) + f"{'sent %':>9}"]
        for kind, row in sorted(self.rows.items()):
            share = 100 * row["sent"] / max(1, row["mail"])
            lines.append(f"{kind:<10}" + "".join(f"{row[head]:>9,}" for head in heads) + f"{share:>9.2f}")
        total = sum(self.rows.values(), Counter())
        lines.append(f"{'all':<10}" + "".join(f"{total[head]:>9,}" for head in heads))
        return "\n".join(lines)


def fail_each_call(folder: Path, *, verbose: bool) -> int:
    """Have the disk full from each call of a run on, and each write and sync fail; 1 when a promise was broken."""
    broken = failed = runs = 0
    full = count_calls(folder / "count-full", Calls.WRITES | Calls.SIZES, Files.ALL)
    errors = {
        (calls, times): count_calls(folder / f"count-{calls.value}-{times}", calls, STORE_FILES)
        for calls, times in ((Calls.WRITES, 1), (Calls.SYNCS, 1), (Calls.WRITES | Calls.SYNCS, -1))
    }
    trials: list[tuple[str, Callable[[], object]]] = [
        (f"full from call {point} on", partial(full_at, folder, point)) for point in range(full)
    ]
    for (calls, times), total in errors.items():
        for point in range(total):
            told = f"{calls!r}, {times} times, at call {point}"
            trials.append((told, partial(fails_at, folder, calls, STORE_FILES, point, times=times)))
    for told, trial in trials:
        runs += 1
        if verbose:
            print(told, flush=True)
        try:
            failed += bool(trial())
        except AssertionError as error:
            broken += 1
            print(f"BROKEN {told}: {error}", file=sys.stderr, flush=True)
        for made in folder.iterdir():
            shutil.rmtree(made)
    errors_told = ", ".join(f"{calls!r} x {times}: {total}" for (calls, times), total in errors.items())
    print(f"{runs} runs: full at each of {full} calls; errors at {errors_told}; {failed} ended in a failed store")
    print(f"{broken} promises broken")
    return 1 if broken else 0


def main() -> int:
    """Run the trials; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.corruption", description=__doc__)
    parser.add_argument("--stores", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1, help="of the first store; the others follow")
    parser.add_argument("--kind", action="append", help="damage these files only")
    parser.add_argument("--verbose", action="store_true", help="tell of each store")
    parser.add_argument("--size", choices=("small", "large"))
    parser.add_argument("--calls", action="store_true", help="instead: a disk that is full, or fails, at each call")
    chosen = parser.parse_args()
    if chosen.calls:
        with tempfile.TemporaryDirectory(prefix="mtactl-calls-") as name:
            return fail_each_call(Path(name), verbose=chosen.verbose)
    table = Table()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mtactl-corruption-") as name:
        folder = Path(name)
        sources = list(make_stores(folder).items())
        sources = [entry for entry in sources if chosen.size is None or entry[0].startswith(chosen.size)]
        for seed in range(chosen.seed, chosen.seed + chosen.stores):
            _, (source, truth) = sources[seed % len(sources)]
            try:
                verdict = run_trial(source, truth, folder / "work", seed, tuple(chosen.kind) if chosen.kind else None)
                table.add(verdict)
                if chosen.verbose:
                    print(f"{seed}: {verdict.told}: {len(verdict.sent)} of {verdict.sendable} {verdict.refused}")
            except Broken as broken:
                table.broken.append(str(broken))
                print(f"BROKEN {broken}", file=sys.stderr, flush=True)
    print(table.show())
    print(f"{chosen.stores} damaged stores in {time.monotonic() - began:.0f} s, {len(table.broken)} promises broken")
    return 1 if table.broken else 0


if __name__ == "__main__":
    sys.exit(main())
