"""One course of overload: a daemon, a world that takes its time, an application that does not, and those who watch."""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.histogram import Histogram, fetch_histogram
from tests.bench.processes import cpu_of, memory_of
from tests.overload.load import AT_ONCE, BLOCK, campaign_of
from tests.world.books import disagreements, leaks
from tests.world.daemon import Daemon, check_law, daemon, peer_world

LATENCY = 0.25  # seconds that the world takes for a message
OWN = ("mtactl_halt_ack_seconds", "mtactl_commit_seconds", "mtactl_event_loop_lag_seconds")
LIMIT = 0.1  # seconds that an answer may take (the goal of the long form)


@dataclass(slots=True)
class Answers:
    """How long answers took, in seconds, and what went wrong."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        ms = sorted(each * 1e3 for each in self.seconds) or [0.0]
        late = sum(each > LIMIT * 1e3 for each in ms)
        p50, p99 = ms[len(ms) // 2], ms[min(len(ms) - 1, len(ms) * 99 // 100)]
        told = f"{len(self.seconds)} answers: p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {ms[-1]:.1f} ms"
        return f"{told}; {late} over {LIMIT * 1e3:.0f} ms, {len(self.failures)} without an answer"


@dataclass(slots=True)
class Course:
    """What was seen."""

    seconds: float
    halts: Answers = field(default_factory=Answers)
    health: Answers = field(default_factory=Answers)
    memory: list[float] = field(default_factory=list)  # MiB, once a second
    load: list[float] = field(default_factory=list)
    halted: dict[str, int] = field(default_factory=dict)  # when each was answered, ns of CLOCK_MONOTONIC
    counts: dict[str, int] = field(default_factory=dict)
    cpu: float = 0.0
    own: dict[str, Histogram] = field(default_factory=dict)  # the daemon's figures of itself, in seconds
    wrong: list[str] = field(default_factory=list)

    def memory_of_part(self, part: int) -> float:
        """Give the median of a tenth of the time, in MiB."""
        size = max(1, len(self.memory) // 10)
        return statistics.median(self.memory[part * size : (part + 1) * size] or self.memory[-1:])

    def __str__(self) -> str:
        count, seconds = self.counts, self.seconds
        rates = f"{count['accepted'] / seconds:.0f}/s taken, {count['delivered'] / seconds:.0f}/s delivered"
        halted = f"{count['dropped']:,} dropped by halts, {count['refused']:,} refused after them"
        first, last = self.memory_of_part(1), self.memory_of_part(9)
        lines = [
            f"{seconds:.0f} s: {rates}, {halted}, {count['queued']:,} queued at the end",
            f"halts: {self.halts}",
            f"/healthz: {self.health}",
            f"memory (RSS): {first:.0f} MiB at the start, {last:.0f} at the end, {max(self.memory):.0f} at most",
            *(
                f"{name}: p50 {each.quantile(0.5) * 1e3:.1f} ms, p99 {each.quantile(0.99) * 1e3:.1f} ms"
                for name, each in self.own.items()
            ),
            f"CPU of the daemon: {100 * self.cpu / seconds:.0f} %",
            f"load average: {min(self.load):.1f} to {max(self.load):.1f} on {os.cpu_count()} cores",
            f"wrong: {len(self.wrong)}",
        ]
        return "\n".join(lines)


def endure(
    folder: Path, seconds: float, *, pause: float, connections: int, tell: Callable[[str], None] = lambda _: None
) -> Course:
    """Run a course. `pause`: seconds between two halts; `connections`: to each destination.

    So the world takes 10 destinations * connections / LATENCY messages a second at most, on any machine.
    """
    course = Course(seconds)
    with (
        peer_world(folder / "world", {"*": {"latency": LATENCY}}) as world,
        daemon(folder / "node", route=world.port, lane=f"max_connections = {connections}") as node,
    ):
        used = cpu_of(node.process.pid)
        with _load(node.smtp_port) as load, _watching(node, course):
            _halt_on(node, course, time.monotonic() + seconds, pause, tell)
            course.cpu = cpu_of(node.process.pid) - used
            course.counts = node.status()["totals"]
            course.own = {name: fetch_histogram(node.metrics_port, name) for name in OWN}
            assert load.poll() is None, "the application ended by itself"
        check_law(course.counts)
        course.wrong += _audit(node, course, world)
        assert node.stop() == 0
        fsck = node.fsck()
        if fsck.returncode:
            course.wrong.append(fsck.stdout)
    return course


@contextmanager
def _load(port: int) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([sys.executable, "-m", "tests.overload.load", "--port", str(port)])
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def _watching(node: Daemon, course: Course) -> Iterator[None]:
    over = threading.Event()
    threads = [threading.Thread(target=watch, args=(node, course, over)) for watch in (_watch_health, _watch_process)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _watch_health(node: Daemon, course: Course, over: threading.Event) -> None:
    while not over.wait(0.1):
        connection = http.client.HTTPConnection("127.0.0.1", node.metrics_port, timeout=30)
        begun = time.monotonic()
        try:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            if answer.status != 200 or answer.read() != b"alive\n":
                course.health.failures.append(f"{answer.status} {answer.reason}")
            course.health.seconds.append(time.monotonic() - begun)
        except (OSError, http.client.HTTPException) as error:
            course.health.failures.append(repr(error))
        finally:
            connection.close()


def _watch_process(node: Daemon, course: Course, over: threading.Event) -> None:
    while not over.wait(1.0):
        course.memory.append(memory_of(node.process.pid)["VmRSS"])
        course.load.append(os.getloadavg()[0])


def _halt_on(node: Daemon, course: Course, until: float, pause: float, tell: Callable[[str], None]) -> None:
    """Halt a campaign that is coming in at present, one that waits, one never seen, and so on in turn."""
    told = time.monotonic()
    number = 0
    while (now := time.monotonic()) < until:
        totals = node.status()["totals"]
        come = totals["accepted"] + totals["refused"]
        block = max(0, come // BLOCK - (0, 2, 5)[number % 3]) * BLOCK
        campaign = f"never-{number}" if number % 4 == 3 else campaign_of(block + number % AT_ONCE)
        if campaign not in course.halted:
            try:
                answer, asked, answered = node.halt(campaign)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                course.halts.failures.append(repr(error))
            else:
                check_law(answer["counts"])
                course.halts.seconds.append((answered - asked) / 1e9)
                course.halted[campaign] = answered
        number += 1
        if now - told > 30:
            told = now
            tell(f"{totals['queued']:,} queued, {memory_of(node.process.pid)['VmRSS']:.0f} MiB, halts: {course.halts}")
        time.sleep(pause)


def _audit(node: Daemon, course: Course, world) -> Iterator[str]:
    """Give a sentence for each thing that the daemon says of a halted campaign and that the world saw otherwise."""
    for campaign, answered in course.halted.items():
        report = node.wait_completed(campaign)
        rows = node.recipients(campaign)
        record = world.record()
        yield from disagreements(report, rows, record)
        yield from leaks(report, rows, record, answered)
