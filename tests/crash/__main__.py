"""Kill a daemon many times and print what came of it: `python -m tests.crash --kills 300`.

Exits 1 at the first thing that is wrong, and leaves the folder of that run: store, log of the daemon, what the world
saw.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from tests.crash.harness import Summary, endure, shuffled_points


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash", description="kill -9 at random moments and at failpoints"
    )
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--kills-per-store", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the first store; each further one has the next")
    arguments = parser.parse_args()
    total = Summary()
    seed = arguments.seed
    points = shuffled_points(seed)
    while (left := arguments.kills - total.kills.total()) > 0:
        folder = Path(tempfile.mkdtemp(prefix="mtactl-crash-"))
        kills = min(left, arguments.kills_per_store)
        try:
            summary = asyncio.run(endure(folder, seed, kills=kills, pipelining=seed % 2 == 0, points=points))
        except Exception:
            traceback.print_exc()
            print(f"seed {seed}: failed; its files are in {folder}\nbefore it: {total}")
            return 1
        shutil.rmtree(folder)
        print(f"seed {seed}: {summary}", flush=True)
        total.add(summary)
        seed += 1
    print(f"all: {total}")
    print("failpoints: " + ", ".join(f"{name} {number}" for name, number in sorted(total.points.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
