"""`make bench`: mtactl against Postfix on this machine, in this minute, and what a halt costs.

Prints figures and ratios, asserts nothing. The other benchmarks measure one room each: `python -m tests.bench.edge`,
`.relay` and `.store`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path

from tests.bench.halting import HaltFigures, measure_halts
from tests.bench.load import missing_programs
from tests.bench.postfix import NoPostfix, Postfix
from tests.bench.throughput import PARTS, Figures, compare
from tests.conftest import add_to_path

RESULTS = Path(__file__).parents[2] / "var" / "bench.json"
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def tell(text: str) -> None:
    """Say what is being done, to those who wait."""
    print(f"  {text}", file=sys.stderr, flush=True)


def show_rates(figures: dict[str, Figures], alone: dict[str, float]) -> None:
    """Print messages a second, and how many times those of the last server mtactl does."""
    names = list(figures)
    print(f"{'messages a second':24}" + "".join(f"{name:>18}" for name in names) + ("     ratio" if names[1:] else ""))
    for part in PARTS:
        cells = "".join(f"{figures[name].median(part):18,.0f}" for name in names)
        ratio = f"{figures['mtactl'].median(part) / figures[names[-1]].median(part):9.1f}x" if names[1:] else ""
        print(f"{part:24}{cells}{ratio}")
    for what, rate in alone.items():
        print(f"{what:24}{rate:18,.0f}")


def show_halts(figures: HaltFigures) -> None:
    """Print latencies, what began after the answer, and what the others paid."""
    ratio = figures.flow_during / figures.flow_before if figures.flow_before else 0.0
    print(f"halt of {figures.queued:,} queued, {figures.in_flight} in flight: answered in {figures.large:.1f} ms")
    print(f"  completed, all dropped, after {figures.completed:.1f} s")
    longest = max(figures.small)
    print(f"{len(figures.small)} halts of small campaigns: median {figures.median:.1f} ms, longest {longest:.1f} ms")
    print(f"began after the answer, and not counted in flight: {len(figures.leaked)}")
    for sentence in figures.leaked[:10]:
        print(f"  {sentence}")
    print(
        f"other mail: {figures.flow_before:,.0f}/s before, {figures.flow_during:,.0f}/s while the queue was dropped"
        f" ({ratio:.0%})"
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make bench", description="mtactl against Postfix, and what a halt costs.")
    parser.add_argument("--messages", type=int, default=5_000, help="of each part of a round (5000)")
    parser.add_argument("--size", type=int, default=10_240, help="octets of a message (10240)")
    parser.add_argument("--rounds", type=int, default=3, help="the median is shown (3)")
    parser.add_argument("--queued", type=int, default=200_000, help="of the campaign that is halted (200000)")
    parser.add_argument("--halts", type=int, default=20, help="of small campaigns (20)")
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement: one round, a tenth of all")
    parser.add_argument("--only", choices=("rates", "halts"), help="one of the two parts")
    parser.add_argument("--json", type=Path, default=RESULTS, help=f"where the figures go ({RESULTS})")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.messages //= 5
        arguments.rounds = 1
        arguments.queued //= 10
        arguments.halts //= 4
    return arguments


def main() -> int:
    """Measure, print, and keep the figures."""
    add_to_path(SYSTEM_FOLDERS)
    arguments = parse_arguments()
    if missing := missing_programs():
        print(f"{' and '.join(missing)} not found: apt-get install postfix", file=sys.stderr)
        return 1
    load = os.getloadavg()[0]
    if load > (os.cpu_count() or 1) / 2:
        print(f"The machine is busy with something else (load {load:.1f}): the figures say little.", file=sys.stderr)
    results: dict[str, object] = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
        "load": load,
        "messages": arguments.messages,
        "size": arguments.size,
    }
    if arguments.only != "halts":
        try:
            Postfix.look_for()
            postfix = True
        except NoPostfix as error:
            print(f"No comparison: {error}", file=sys.stderr)
            postfix = False
        figures, alone = compare(
            postfix=postfix, messages=arguments.messages, size=arguments.size, rounds=arguments.rounds, tell=tell
        )
        show_rates(figures, alone)
        results["rates"] = {name: each.rates for name, each in figures.items()} | alone
    if arguments.only != "rates":
        halts = measure_halts(queued=arguments.queued, small=arguments.halts, tell=tell)
        show_halts(halts)
        results["halts"] = {name: getattr(halts, name) for name in HaltFigures.__slots__}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    print(f"all figures: {arguments.json}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # what was started is to be ended
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
