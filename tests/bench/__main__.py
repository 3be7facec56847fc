"""`make bench`: mtactl against Postfix on this machine, in this minute, and what a halt costs.

Prints figures, ratios and which goals they reach, and asserts nothing. The other benchmarks measure one room each:
`python -m tests.bench.edge`, `.relay` and `.store`, and `make bench-micro`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.bench.figures import Figure, Tell
from tests.bench.machine import describe_machine, name_machine
from tests.bench.pictures import draw_pictures
from tests.bench.results import CaseResult, Results, load_results, save_results
from tests.bench.table import table_lines
from tests.conftest import SYSTEM_FOLDERS, add_to_path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "var" / "bench.json"
PUBLISHED = ROOT / "docs" / "bench" / "results.json"

# The cases in the order in which they run: module, and what is measured.
CASES: Mapping[str, tuple[str, str]] = {
    "rates": ("throughput", "messages a second and CPU a message: in, out, end to end, beside Postfix"),
    "halts": ("halting", "time to the answer and to the end, idle and at full load; what the others pay"),
    "postfix_halt": ("postfix_halt", "the same stop on Postfix: postqueue | jq | postsuper"),
    "memory": ("memory", "memory of the process against the number queued"),
    "startup": ("startup", "from exec to the first delivery, with mail queued"),
    "slow_peers": ("slow_peers", "thousands of connections to peers that take their time"),
    "growth": ("growth", "CPU a message as campaigns and domains grow"),
}


def tell(text: str) -> None:
    """Say what is being done, to those who wait."""
    print(f"  {text}", file=sys.stderr, flush=True)


def run_case(name: str, scale: float, tell: Tell) -> CaseResult:
    """Run one case; what it measured before it failed is kept."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    result = CaseResult(at=at, scale=scale, load=round(os.getloadavg()[0], 2))
    began = time.monotonic()
    try:
        module = importlib.import_module(f"tests.bench.{CASES[name][0]}")
        for figure in module.measure(scale, tell):
            result.figures.append(figure)
    except Exception as error:
        traceback.print_exc()
        result.failed = f"{type(error).__name__}: {error}".splitlines()[0]
    result.seconds = round(time.monotonic() - began, 1)
    return result


def run_cases(names: list[str], scale: float, results: Results, *, done: Callable[[], None]) -> list[str]:
    """Run one after the other, `done` after each; give the names of those that failed."""
    failed = []
    for name in names:
        tell(f"{name}: {CASES[name][1]}")
        result = run_case(name, scale, tell)
        if result.failed is not None:
            failed.append(name)
            tell(f"{name} failed: {result.failed}")
        results.cases[name] = result
        done()
    return failed


def show(results: Results, names: list[str]) -> None:
    """Print the table of these cases."""
    shown: list[tuple[str, list[Figure]]] = [(name, results.cases[name].figures) for name in names]
    for line in table_lines(shown):
        print(line)
    for name in names:
        case = results.cases[name]
        if case.failed is not None:
            print(f"{name} FAILED: {case.failed}"[:120])


def draw(results: Results, folder: Path) -> None:
    """Draw the pictures, or say why not."""
    try:
        drawn = draw_pictures(results, folder)
    except ImportError as error:
        print(f"No pictures: {error}; pip install --group bench", file=sys.stderr)
        return
    for path in drawn:
        print(f"picture: {path}")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=CASES, metavar="CASE", help="this case; may be repeated")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the sizes that the goals speak of (1.0)")
    parser.add_argument("--json", type=Path, help=f"where the figures go ({RESULTS.relative_to(ROOT)})")
    parser.add_argument(
        "--publish",
        action="store_true",
        help=f"put figures and pictures into {PUBLISHED.parent.relative_to(ROOT)}; cases not run keep theirs",
    )
    parser.add_argument(
        "--draw", type=Path, metavar="FILE", help="draw the pictures beside these figures, measure nothing"
    )
    parser.add_argument("--list", action="store_true", help="list the cases")
    read = parser.parse_args(arguments)
    if read.scale <= 0:
        parser.error("--scale must be above 0")
    return read


def open_results(arguments: argparse.Namespace) -> tuple[Results, Path]:
    """Describe the machine; published figures of the same machine are kept."""
    results = Results(describe_machine())
    path: Path = arguments.json or (PUBLISHED if arguments.publish else RESULTS)
    if arguments.publish and path.exists():
        earlier = load_results(path)
        if results.same_machine(earlier):
            results.add_missing(earlier)
        else:
            tell(f"{path} is of another machine, and is replaced")
    return results, path


def main(given: list[str] | None = None) -> int:
    """Measure, print, and keep the figures."""
    arguments = parse_arguments(given)
    if arguments.list:
        for name, (_, about) in CASES.items():
            print(f"{name:14}{about}")
        return 0
    if arguments.draw is not None:
        draw(load_results(arguments.draw), arguments.draw.parent)
        return 0
    add_to_path(SYSTEM_FOLDERS)
    results, path = open_results(arguments)
    load = os.getloadavg()[0]
    if load > (os.cpu_count() or 1) / 2:
        tell(f"The machine is busy with something else (load {load:.1f}): the figures say little.")
    names = [name for name in CASES if arguments.only is None or name in arguments.only]
    failed = run_cases(names, arguments.scale, results, done=lambda: save_results(results, path))
    print(name_machine(results.machine))
    show(results, names)
    print(f"all figures: {path}")
    if arguments.publish:
        draw(results, PUBLISHED.parent)
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # what was started is to be ended
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
