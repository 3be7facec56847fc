"""Fuzz for as long as is asked: `python -m tests.fuzz --seconds 600 --target edge`.

Exits 1 at the first input that fails, and says where it is. What libFuzzer has found worth keeping is in `var/fuzz`,
and is begun with the next time.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.inputs import found, write_dictionary, write_seeds

GUIDED = {"edge": 4096, "peer": 8192, "headers": 8192}  # octets of an input, at most
CONTROL = "control"
SECONDS_AN_INPUT = 20  # the machine may be busy; what takes a fifth of it is looked at by a person

_PROGRESS = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)/(\d+\w?)b")
_EXECUTED = re.compile(r"stat::number_of_executed_units: (\d+)")
_SLOWEST = re.compile(r"stat::slowest_unit_time_sec: *(\d+)")
_PEAK = re.compile(r"stat::peak_rss_mb: *(\d+)")


def fuzz_guided(name: str, seconds: int, seed: int, folder: Path) -> bool:
    """Run libFuzzer on a target and print what came of it."""
    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    target = importlib.import_module(f"tests.fuzz.{name}")
    with tempfile.TemporaryDirectory(prefix="mtactl-fuzz-") as scratch:
        seeds, words = Path(scratch, "seeds"), Path(scratch, "words")
        write_seeds(seeds, [*target.SEEDS, *found(name).values()])
        write_dictionary(words, target.WORDS)
        arguments = [
            *(f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={GUIDED[name]}", f"-dict={words}"),
            *(f"-timeout={SECONDS_AN_INPUT}", "-rss_limit_mb=1024", "-print_final_stats=1"),
            *(f"-artifact_prefix={folder}/{name}-", str(corpus), str(seeds)),
        ]
        run = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.guided", name, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
        )
    progress = _PROGRESS.findall(run.stderr)
    if run.returncode or not progress:
        print(run.stdout[-4000:], run.stderr[-8000:], sep="\n")
        print(f"{name}: failed; the input is in {folder}, and belongs into tests/fuzz/found/{name}")
        return False
    edges, features, inputs, octets = progress[-1]
    executed, slowest, peak = (int(pattern.findall(run.stderr)[-1]) for pattern in (_EXECUTED, _SLOWEST, _PEAK))
    print(
        f"{name}: clean; {executed:,} inputs in {seconds} s, {edges} edges and {features} features covered, corpus of "
        f"{inputs} inputs ({octets}B), the slowest took {slowest} s, {peak} MiB at most",
        flush=True,
    )
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="fuzz what takes strangers' octets apart")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--target", choices=[*GUIDED, CONTROL], action="append", help="(all of them)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("var/fuzz"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    clean = True
    for name in arguments.target or [*GUIDED, CONTROL]:
        if name == CONTROL:
            clean &= importlib.import_module("tests.fuzz.control").fuzz_control(arguments.seconds, arguments.seed)
        else:
            clean &= fuzz_guided(name, arguments.seconds, arguments.seed, arguments.folder)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
