"""What a message costs as campaigns and domains grow: the daemon's CPU, of all its threads. It must stay flat.

The same number of messages goes through each time, end to end from a source with 20 connections, and out of a queue
that was filled before. Only the number of campaigns changes, or of domains. A connection carries one message where
domains are counted: with many domains there is no more for it to carry, and what a connection costs is another
question.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from tests.bench.figures import Figure, Tell
from tests.bench.processes import cpu_of
from tests.bench.queue_fill import Queue, campaign_of, copy_queue, domain_of
from tests.bench.recording_peer import Peer, recording_peer
from tests.world.daemon import Daemon, daemon
from tests.world.injector import Injector
from tests.world.newsletter import Mail

CASE = "growth"
MESSAGES = 100_000
NUMBERS = (10, 1_000, 100_000)
FIXED = 10  # campaigns where domains are counted, and domains where campaigns are
SIZE = 2_048  # octets
CONNECTIONS = 20  # of the source
PATIENCE = 600.0
_EXTRA = '[delivery]\nmax_connections = 200\nidle_connection = "1s"\n'
_ONE_EACH = "max_deliveries_per_connection = 1"


def measure(scale: float, tell: Tell) -> Iterator[Figure]:
    """Measure both, end to end and out only."""
    messages = max(200, int(MESSAGES * scale))
    numbers = sorted({min(number, messages) for number in NUMBERS})
    for what in ("campaigns", "domains"):
        for way, run in (("end to end", run_through), ("out only", run_out)):
            costs = {}
            for number in numbers:
                other = "domains" if what == "campaigns" else "campaigns"
                queue = Queue(recipients=messages, large=False, size=SIZE, **{what: number, other: FIXED})
                tell(f"{way}, {number:,} {what}: {messages:,} messages")
                used, seconds = run(queue, tell, lane=_ONE_EACH if what == "domains" else "")
                costs[number] = used / messages * 1e6
                yield Figure(
                    case=CASE,
                    what=f"{way}, {number:,} {what}: CPU a message",
                    unit="µs",
                    more=False,
                    value=costs[number],
                    at=float(number),
                    note=f"{messages / seconds:,.0f}/s",
                )
            yield Figure(
                case=CASE,
                what=f"{way}, {numbers[-1]:,} {what} against {numbers[0]:,}: CPU a message",
                unit="times",
                more=False,
                value=costs[numbers[-1]] / costs[numbers[0]],
            )


def run_through(queue: Queue, tell: Tell, *, lane: str) -> tuple[float, float]:
    """Send all of it through; give seconds of CPU, and seconds."""
    folder = Path(tempfile.mkdtemp(prefix="mtactl-bench-", dir="/var/tmp"))
    try:
        with recording_peer() as peer, daemon(folder, route=peer.port, lane=lane, extra=_EXTRA) as node:
            used, begun = cpu(node), time.monotonic()
            with varied_source(node.smtp_port, queue) as source:
                wait_for(peer, node, queue.recipients, lambda: source.poll() not in (None, 0))
            seconds = time.monotonic() - begun
            return settled_cpu(node) - used, seconds
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_out(queue: Queue, tell: Tell, *, lane: str) -> tuple[float, float]:
    """Deliver a queue that is there from the start; give seconds of CPU, and seconds, of all but the start."""
    folder = Path(tempfile.mkdtemp(prefix="mtactl-bench-", dir="/var/tmp"))
    try:
        copy_queue(queue, folder, tell)
        with recording_peer() as peer:
            node = Daemon(folder, route=peer.port, lane=lane, extra=_EXTRA)
            try:
                node.launch()
                while not peer.count().first:
                    if node.process is None or node.process.poll() is not None:
                        raise RuntimeError(f"mtactld did not start:\n{node.tail()}")
                    time.sleep(0.005)
                used, begun, already = cpu(node), time.monotonic(), peer.count().taken
                wait_for(peer, node, queue.recipients, lambda: False)
                seconds = time.monotonic() - begun
                share = queue.recipients / max(1, queue.recipients - already)  # as if none had gone before
                return (settled_cpu(node) - used) * share, seconds * share
            finally:
                node.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(peer: Peer, node: Daemon, messages: int, failed: Callable[[], bool]) -> None:
    """Wait until the peer has so many. Raises TimeoutError, RuntimeError."""
    deadline = time.monotonic() + PATIENCE
    while (taken := peer.count().taken) < messages:
        if failed():
            raise RuntimeError("the source has failed")
        if time.monotonic() > deadline or node.process is None or node.process.poll() is not None:
            raise TimeoutError(f"only {taken:,} of {messages:,} messages arrived:\n{node.tail()}")
        time.sleep(0.02)


def cpu(node: Daemon) -> float:
    """Give the seconds of CPU of a daemon."""
    assert node.process is not None
    return cpu_of(node.process.pid)


def settled_cpu(node: Daemon) -> float:
    """Give the same when all outcomes are on disk."""
    deadline = time.monotonic() + PATIENCE
    while sum(node.status()["queue"].values()) or node.status()["in_flight_transactions"]:
        if time.monotonic() > deadline:
            raise TimeoutError("the outcomes do not come to rest")
        time.sleep(0.05)
    return cpu(node)


# -- the source, in a process of its own -------------------------------------------------------------------------------


@contextmanager
def varied_source(port: int, queue: Queue) -> Iterator[subprocess.Popen[bytes]]:
    """Inject what would be in such a queue; for a block."""
    counts = [f"--{name}={getattr(queue, name)}" for name in ("recipients", "campaigns", "domains", "size")]
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.growth", f"--port={port}", *counts])
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()


def mails(queue: Queue) -> Iterator[Mail]:
    """Give the messages of a queue."""
    filler = b"x" * 76 + b"\r\n"
    for number in range(queue.recipients):
        campaign = campaign_of(queue, number)
        head = f"X-Campaign-ID: {campaign}\r\nFrom: news@news.example\r\nSubject: {number}\r\n\r\n".encode()
        yield Mail(
            campaign,
            f"bounce+{campaign}+{number}@news.example",
            f"r{number}@{domain_of(queue, number)}",
            head + filler * (queue.size // len(filler)),
        )


def main() -> None:
    """Inject as the command line says; fail when not all of it was taken."""
    parser = argparse.ArgumentParser(description="inject mail of many campaigns, or for many domains")
    for name in ("port", "recipients", "campaigns", "domains", "size"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = vars(parser.parse_args())
    injector = Injector(given.pop("port"), connections=CONNECTIONS)
    queue = Queue(large=False, **given)
    uvloop.run(injector.inject(mails(queue)))
    if len(injector.acknowledged) != queue.recipients:
        sys.exit(f"only {len(injector.acknowledged):,} of {queue.recipients:,} messages were taken: {injector.texts}")


if __name__ == "__main__":
    main()
