"""Cut the power at thousands of points and print what came of it: `python -m tests.powercut --states 5000`.

Exits 1 if the store did not keep a promise in one of the states.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.powercut.cuts import Summary, record_lives, room_in_memory, take_share
from tests.powercut.recording import compile_recorder

DEEPER = 60  # one in so many cuts is followed by a life that is cut again


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.powercut", description="simulated power cuts")
    parser.add_argument("--states", type=int, default=5_000, help="distinct ones, at least")
    parser.add_argument("--cuts", type=int, default=300, help="in each record")
    parser.add_argument("--messages", type=int, default=40, help="in each of a record's lives")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    room = room_in_memory(Path(tempfile.gettempdir()))
    total = Summary()
    seed = arguments.seed
    try:
        library = compile_recorder(room)
        with ProcessPoolExecutor(arguments.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            while len(total.distinct) < arguments.states and not total.failures:
                recorder, inode = record_lives(room / f"disk-{seed}", library, 10 * seed, arguments.messages)
                shares = [(number, arguments.processes) for number in range(arguments.processes)]
                options = {"room": room, "cuts": arguments.cuts, "deeper": DEEPER}
                parts = [pool.submit(take_share, recorder, inode, seed, share=share, **options) for share in shares]
                for part in parts:
                    total.add(part.result())
                print(f"record {seed}: {total}", flush=True)
                seed += 1
    finally:
        shutil.rmtree(room)
    for failure in total.failures:
        print(failure)
    print(f"all: {total}")
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
