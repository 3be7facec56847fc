"""Overload a daemon for ten minutes and print what it took: `python -m tests.overload --seconds 600`.

Exits 1 when something was lost, leaked or not answered, when memory grew, or when an answer took over 100 ms.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.bench.machine import describe_machine, name_machine
from tests.overload.course import LIMIT, endure

GROWTH = 32.0  # MiB that the memory may differ by, with some hundred thousand more in the queue


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.overload", description="inject faster than is delivered")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two halts")
    parser.add_argument(
        "--connections", type=int, default=6, help="to each of ten destinations (6: 240 messages a second)"
    )
    arguments = parser.parse_args()
    print(name_machine(describe_machine()), flush=True)
    folder = Path(tempfile.mkdtemp(prefix="mtactl-overload-", dir="/var/tmp"))
    try:
        course = endure(
            folder,
            arguments.seconds,
            pause=arguments.pause,
            connections=arguments.connections,
            tell=lambda text: print(text, flush=True),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(course)
    complaints = [*course.wrong, *course.halts.failures, *course.health.failures]
    if course.memory_of_part(9) - course.memory_of_part(1) > GROWTH:
        complaints.append("memory grew")
    complaints += [
        f"{what}: an answer took over {LIMIT * 1e3:.0f} ms"
        for what, answers in (("halt", course.halts), ("/healthz", course.health))
        if max(answers.seconds, default=0.0) > LIMIT
    ]
    for complaint in complaints[:20]:
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
