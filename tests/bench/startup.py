"""How long it takes from exec until the first of a long queue is delivered.

After an orderly end, and after a kill -9, which leaves thousands of claims to be looked up in the attempt log. The
files are in the page cache, save in the last figure: there the kernel was asked to forget them, as after a reboot.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.bench.figures import Figure, Goal, Tell
from tests.bench.queue_fill import Queue, copy_queue
from tests.bench.recording_peer import recording_peer
from tests.world.daemon import Daemon

CASE = "startup"
QUEUED = 1_000_000
DOMAINS = 500
SMALL = 110  # as in the queues of the case `halting`, so that what was filled for it can be used
ROUNDS = 5
PATIENCE = 120.0
GOAL: Goal = {"must": 5.0, "aim": 1.5}  # s
_BUSY = 1.0  # seconds of delivery before it is ended
_AT_LEAST = 5_000  # recipients: the queue must outlast the rounds of one way


def measure(scale: float, tell: Tell) -> Iterator[Figure]:
    """Start a daemon over and over on one queue."""
    queued = max(_AT_LEAST, int(QUEUED * scale))
    rounds = max(1, round(ROUNDS * min(1.0, scale * 10)))
    busy = _BUSY * min(1.0, max(0.05, scale))
    folder = Path(tempfile.mkdtemp(prefix="mtactl-bench-", dir="/var/tmp"))
    try:
        queue = Queue(recipients=queued, domains=DOMAINS, small=SMALL)
        figure = partial(Figure, case=CASE, unit="s", more=False, at=float(queued))
        ways: tuple[tuple[str, str, Callable[[Path], None], Goal], ...] = (
            ("after an orderly end", "stop", lambda _: None, GOAL),
            ("after kill -9", "kill", lambda _: None, {}),
            ("after an orderly end, nothing in the page cache", "stop", forget_cached, {}),
        )
        for told, ending, before, goal in ways:
            shutil.rmtree(folder)  # what the way before it left: it has delivered a part
            store = copy_queue(queue, folder, tell)
            start_once(folder, ending, busy)  # leaves the store as the rounds are to find it
            tell(f"{queued:,} queued: the daemon is started {rounds} times {told}")
            firsts, readies = [], []
            for _ in range(rounds):
                before(store)
                first, ready = start_once(folder, ending, busy)
                firsts.append(first)
                readies.append(ready)
            yield figure(
                what=f"{queued:,} queued, {told}: exec to the first delivery",
                value=statistics.median(firsts),
                samples=tuple(firsts),
                **goal,
            )
            yield figure(
                what=f"{queued:,} queued, {told}: exec to ready",
                value=statistics.median(readies),
                samples=tuple(readies),
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start_once(folder: Path, ending: str, busy: float) -> tuple[float, float]:
    """Start it, let it work, end it; give the seconds to the first delivery and to ready. Raises TimeoutError."""
    with recording_peer() as peer:
        node = Daemon(folder, route=peer.port)
        begun = time.monotonic()
        try:
            node.launch()
            ready = 0.0
            while not ready or not peer.count().first:
                if not ready and node.is_ready():
                    ready = time.monotonic() - begun
                assert node.process is not None
                if node.process.poll() is not None or time.monotonic() - begun > PATIENCE:
                    raise TimeoutError(f"nothing was delivered:\n{node.tail()}")
                time.sleep(0.01)
            first = peer.count().first / 1e9 - begun
            time.sleep(busy)
            if ending == "kill":
                node.kill9()
            else:
                node.stop()
        finally:
            node.end()
    return first, ready


def forget_cached(folder: Path) -> None:
    """Ask the kernel to forget what it has of a folder's files."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
