"""Damage stores at random and say what became of them: `make corruption ARGS="--stores 2000 --seed 1"`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.corruption.stores import make_stores
from tests.corruption.trial import Broken, Verdict, run_trial


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


def main() -> int:
    """Run the trials; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.corruption", description=__doc__)
    parser.add_argument("--stores", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1, help="of the first store; the others follow")
    parser.add_argument("--kind", action="append", help="damage these files only")
    parser.add_argument("--verbose", action="store_true", help="tell of each store")
    parser.add_argument("--size", choices=("small", "large"))
    chosen = parser.parse_args()
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
