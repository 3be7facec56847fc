"""How much memory the daemon takes as its queue grows: what waits is on the disk, so it should hardly matter.

It is measured while every lane delivers, slowly: then the windows in memory are full, and pages come from the disk.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.bench.figures import Figure, Tell
from tests.bench.processes import memory_of
from tests.bench.queue_fill import Queue, copy_queue
from tests.bench.recording_peer import recording_peer
from tests.world.daemon import Daemon, daemon

CASE = "memory"
QUEUED = (10_000, 100_000, 1_000_000, 3_000_000)
GOALS = {1_000_000: (250.0, 150.0), 3_000_000: (300.0, 160.0)}  # MiB
SECONDS = 20.0
DOMAINS = 500
SMALL = 110  # as in the queues of the case `halting`, so that what was filled for it can be used
_SLOWLY = 'rate = "1/s"'  # of each lane
_INTERVAL = 0.1  # seconds between looks


def memory(node: Daemon) -> dict[str, float]:
    """Give the memory of a daemon in MiB."""
    assert node.process is not None
    return memory_of(node.process.pid)


def measure(scale: float, tell: Tell) -> Iterator[Figure]:
    """Measure with queues of four lengths."""
    for queued, full in {max(100, int(full * scale)): full for full in QUEUED}.items():
        folder = Path(tempfile.mkdtemp(prefix="mtactl-bench-", dir="/var/tmp"))
        try:
            queue = Queue(recipients=queued, domains=min(DOMAINS, queued // 4), small=SMALL)
            copy_queue(queue, folder, tell)
            tell(f"{queued:,} queued: its memory is looked at")
            yield from measure_queue(full, queued, folder, SECONDS * min(1.0, max(0.05, scale * 5)))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def measure_queue(full: int, queued: int, folder: Path, seconds: float) -> Iterator[Figure]:
    """Let the queue of a folder be delivered slowly, and look at the memory all the time."""
    with recording_peer() as peer, daemon(folder, route=peer.port, lane=_SLOWLY) as node:
        samples = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(_INTERVAL)
            samples.append(memory(node)["VmRSS"])
        peak = memory(node)["VmHWM"]
        delivered = peer.count().taken
        node.stop()
    must, aim = GOALS.get(full, (None, None))
    figure = partial(Figure, case=CASE, unit="MiB", more=False, at=float(queued))
    yield figure(
        what=f"{queued:,} queued: memory (RSS)",
        value=max(samples),
        must=must,
        aim=aim,
        note=f"the most of {seconds:.0f} s in which {delivered:,} were delivered; {samples[-1]:.0f} at their end",
    )
    yield figure(what=f"{queued:,} queued: memory at its peak, the start included", value=peak)
