"""How long a halt takes to be answered, what begins after the answer, and what its drop costs the others.

A flow of mail without a campaign goes through all the time. Campaigns are halted while they are being delivered beside
it: small ones first, then the large one, whose queue is dropped while the flow is measured.
"""

from __future__ import annotations

import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.load import inject, source
from tests.world.books import leaks
from tests.world.daemon import Daemon, PeerWorld, daemon, peer_world
from tests.world.newsletter import sender_of
from tests.world.record import Record

LARGE = "large"
SMALL = 1_000  # recipients of a small campaign
ALONE = 5.0  # seconds for which the flow is measured with the large campaign held
MORE = 1.1  # what is delivered before the halt is put on top of what is to be queued
LATENCY = {"*": {"latency": 0.01, "jitter": 0.5}}
LANE = "max_connections = 50"
_SIZE = 2_048  # octets of a message of a campaign


@dataclass(slots=True)
class HaltFigures:
    """Latencies in ms; rates in messages a second."""

    small: list[float] = field(default_factory=list)
    large: float = 0.0
    queued: int = 0
    in_flight: int = 0
    completed: float = 0.0  # seconds until the halt of the large one was completed
    leaked: list[str] = field(default_factory=list)
    flow_before: float = 0.0
    flow_during: float = 0.0

    @property
    def median(self) -> float:
        """Give the median of the small ones."""
        return statistics.median(self.small)


@contextmanager
def running(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a process at the end of the block, if it runs still."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()


def write_message(folder: Path, campaign: str) -> Path:
    """Write a message of a campaign to a file, as smtp-source reads it."""
    path = folder / f"{campaign}.eml"
    line = "x" * 76 + "\n"
    path.write_text(
        f"X-Campaign-ID: {campaign}\nFrom: news@news.example\nSubject: {campaign}\n\n" + line * (_SIZE // 77)
    )
    return path


def flow_rate(record: Record, begin: int, end: int) -> float:
    """Give the messages without a campaign that the world took a second, between two stamps."""
    taken = sum(1 for each in record.of("") if each.code == 250 and begin < (each.ended or 0) <= end)
    return taken / ((end - begin) / 1e9)


def halt_and_judge(node: Daemon, world: PeerWorld, campaign: str, figures: HaltFigures) -> tuple[float, dict, int, int]:
    """Halt; give the ms until the answer, the final report, and the stamps of the request and of the end."""
    _, asked, answered = node.halt(campaign)
    report = node.wait_completed(campaign, 300)
    ended = time.monotonic_ns()
    time.sleep(0.1)
    late = [row for row in node.recipients(campaign) if row["after_stop"]]
    figures.leaked += leaks(report, late, world.record(), answered)
    return (answered - asked) / 1e6, report, asked, ended


def measure_halts(
    *, queued: int, small: int, tell: Callable[[str], None], seed: int = 1, alone: float = ALONE
) -> HaltFigures:
    """Run all of it once."""
    rng = random.Random(seed)
    figures = HaltFigures()
    folder = Path(tempfile.mkdtemp(prefix="mtactl-bench-", dir="/var/tmp"))
    try:
        with (
            peer_world(folder / "world", LATENCY) as world,
            daemon(folder / "node", route=world.port, lane=LANE) as node,
        ):
            tell(f"{queued:,} recipients, and a tenth more, are being queued")
            node.call("POST", f"/v1/campaigns/{LARGE}/hold")
            message = write_message(folder, LARGE)
            seconds = inject(node.smtp_port, int(queued * MORE), message=message, sender=sender_of(LARGE, 0))
            tell(f"that took {seconds:.0f} s")
            with running(source(node.smtp_port, 100_000_000, size=_SIZE, sessions=10)):
                tell(f"{small} campaigns of {SMALL:,} are halted while a flow of other mail goes on")
                for number in range(small):
                    campaign = f"small-{number}"
                    given = write_message(folder, campaign)
                    with running(
                        source(node.smtp_port, SMALL, message=given, sender=sender_of(campaign, 0), sessions=4)
                    ):
                        wait_for_delivery(node, campaign, rng.randrange(SMALL // 4))
                        figures.small.append(halt_and_judge(node, world, campaign, figures)[0])
                tell("the large one is halted while it is being delivered")
                before = time.monotonic_ns()
                time.sleep(alone)
                figures.flow_before = flow_rate(world.record(), before, time.monotonic_ns())
                node.call("POST", f"/v1/campaigns/{LARGE}/release")
                wait_for_delivery(node, LARGE, min(1_000, queued // 20))
                figures.large, report, asked, ended = halt_and_judge(node, world, LARGE, figures)
                figures.flow_during = flow_rate(world.record(), asked, ended)
                figures.completed = (ended - asked) / 1e9
                figures.queued = report["stop"]["queued_at_stop"]
                figures.in_flight = report["stop"]["in_flight_at_stop"]
            return figures
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_delivery(node: Daemon, campaign: str, count: int) -> None:
    """Wait until so many recipients of a campaign have got it."""
    deadline = time.monotonic() + 60
    while True:
        status, report = node.call("GET", f"/v1/campaigns/{campaign}")
        if status == 200 and report["counts"]["delivered"] >= max(1, count):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{campaign} is not being delivered: {report}")
        time.sleep(0.005)
