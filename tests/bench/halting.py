"""How long a halt takes to be answered, what begins after the answer, and what its drop costs the others.

A queue of 40 campaigns and 500 domains, half of it one campaign; small campaigns beside those are there to be halted.
Idle means that no destination can be reached. At full load every destination takes all that comes, and other mail is
injected as fast as it is taken; the large campaign is held until the others have shown how fast they are without it.

The load goes to a peer that keeps a record of each transaction (recording_peer), not to smtp-sink: what begins after
the answer is judged from the peer's record of that very load, at the price of a part of a core that smtp-sink would
leave to the daemon. The record is read, and the daemon asked for outcomes, when the load is over.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import rmtree

from tests.bench.figures import Figure, Goal, Tell
from tests.bench.halts import (
    Dropping,
    Halted,
    ended_after_stop,
    follow,
    halt,
    quantile,
    set_held,
    wait_for_delivery,
    wait_until_idle,
)
from tests.bench.load import end, source
from tests.bench.queue_fill import LARGE, SIZE, Queue, copy_queue, disk_usage
from tests.bench.recording_peer import Peer, recording_peer
from tests.world.books import leaks
from tests.world.daemon import Daemon, daemon, free_port
from tests.world.record import Record

CASE = "halting"
QUEUED = (1_000, 10_000, 100_000, 1_000_000)
HALTS = 50  # of small campaigns, idle and at full load, with the longest queue
FEW = 5  # with the others
MEANWHILE = 10  # while the large one is dropped, one a second
SMALL = 2 * HALTS + MEANWHILE
PAUSE = 0.3  # seconds between two halts, on average
WARM = 3.0  # seconds of full load before anything is measured
ALONE = 10.0  # seconds for which the others are measured without the large campaign
DOMAINS = 500
_IDLE_LANE = 'backoff = ["1h"]'
_ENOUGH_TO_RETURN = 256 << 20  # octets: with less most of it is in the segment that is being written
_ACK_GOAL: Goal = {"must": 50.0, "aim": 10.0}  # ms
_DROP_GOAL: Goal = {"must": 30.0, "aim": 8.0}  # s


@dataclass(slots=True)
class Run:
    """What one queue gave. Latencies in ms, rates in messages a second."""

    queued: int
    idle: list[float] = field(default_factory=list)
    idle_large: Dropping | None = None
    loaded: list[float] = field(default_factory=list)
    loaded_large: Dropping | None = None
    meanwhile: list[float] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    before: float = 0.0
    during: float = 0.0


def measure(scale: float, tell: Tell) -> Iterator[Figure]:
    """Measure with queues of four lengths; all figures are of the longest, those of the picture are of each."""
    lengths = sorted({max(200, int(length * scale)) for length in QUEUED})
    for queued in lengths:
        longest = queued == lengths[-1]
        run = Run(queued)
        queue = Queue(recipients=queued, domains=min(DOMAINS, queued // 4), small=SMALL)
        halts = max(2, round(HALTS * min(1.0, scale * 10))) if longest else min(FEW, max(1, round(FEW * scale * 10)))
        folder = Path(tempfile.mkdtemp(prefix="mtactl-bench-", dir="/var/tmp"))
        try:
            measure_idle_large(run, queue, folder / "idle", tell)
            measure_halts(run, queue, folder / "node", halts, tell, alone=ALONE if longest else 1.0, scale=scale)
        finally:
            rmtree(folder, ignore_errors=True)
        yield from length_figures(run, _DROP_GOAL if longest else Goal())
        if longest:
            yield from all_figures(run)
        for sentence in run.leaked[:10]:
            tell(sentence)


def measure_idle_large(run: Run, queue: Queue, folder: Path, tell: Tell) -> None:
    """Halt the large campaign where nothing else goes on."""
    store = copy_queue(queue, folder, tell)
    try:
        with daemon(folder, route=free_port(), lane=_IDLE_LANE) as node:
            wait_until_idle(node, queue.domains)
            tell(f"{run.queued:,} queued, idle: half of them are halted")
            used = disk_usage(store)
            run.idle_large = follow(node, store, halt(node, LARGE), used, returning(queue))
            node.stop()
    finally:
        rmtree(folder, ignore_errors=True)


def measure_halts(run: Run, queue: Queue, folder: Path, halts: int, tell: Tell, *, alone: float, scale: float) -> None:
    """Halt small campaigns while idle, then others and the large one at full load."""
    store = copy_queue(queue, folder, tell)
    rng = random.Random(run.queued)
    with daemon(folder, route=free_port(), lane=_IDLE_LANE) as node:
        wait_until_idle(node, queue.domains)
        set_held(node, LARGE, held=True)
        tell(f"{run.queued:,} queued, idle: {halts} small campaigns are halted")
        halted = halt_some(node, [f"small-{number}" for number in range(halts)], rng)
        run.idle = [each.milliseconds for each in halted]
        node.stop()
    with recording_peer(folder / "record.ndjson") as peer, daemon(folder, route=peer.port) as node:
        other_mail = source(node.smtp_port, 100_000_000, size=SIZE, sessions=10)
        try:
            time.sleep(WARM * min(1.0, scale * 5))
            tell(f"{run.queued:,} queued, full load: {halts} small campaigns are halted")
            halted = halt_some(node, [f"small-{HALTS + number}" for number in range(halts)], rng)
            run.loaded = [each.milliseconds for each in halted]
            began = peer.count()
            time.sleep(alone * min(1.0, max(0.05, scale * 5)))
            ended = peer.count()
            run.before = (ended.taken - began.taken) / ((ended.at - began.at) / 1e9)
            tell(f"{run.queued:,} queued, full load: half of them are halted")
            run.loaded_large, meanwhile = halt_large(node, store, queue)
            run.meanwhile = [each.milliseconds for each in meanwhile]
        finally:
            end(other_mail)
        halted += [run.loaded_large.halted, *meanwhile]
        judge(run, node, peer, folder / "record.ndjson", halted)
        node.stop()


def halt_large(node: Daemon, store: Path, queue: Queue) -> tuple[Dropping, list[Halted]]:
    """Halt the large campaign while it is being delivered, and small ones while it is being dropped."""
    set_held(node, LARGE, held=False)
    wait_for_delivery(node, LARGE, min(1_000, queue.recipients // 40))
    used = disk_usage(store)
    large = halt(node, LARGE)
    meanwhile: list[Halted] = []

    def halt_one() -> None:
        if len(meanwhile) < MEANWHILE:
            meanwhile.append(halt(node, f"small-{2 * HALTS + len(meanwhile)}"))

    return follow(node, store, large, used, returning(queue), meanwhile=halt_one), meanwhile


def halt_some(node: Daemon, campaigns: Sequence[str], rng: random.Random) -> list[Halted]:
    """Halt one after the other, at times that follow no pattern of the daemon's."""
    halted = []
    for campaign in campaigns:
        time.sleep(rng.uniform(0, 2 * PAUSE))
        halted.append(halt(node, campaign))
    return halted


def returning(queue: Queue) -> int:
    """Give the octets that the drop of the large campaign is to give back; 0 where that can't be seen."""
    return queue.recipients // 2 * SIZE if queue.recipients * SIZE >= _ENOUGH_TO_RETURN else 0


def judge(run: Run, node: Daemon, peer: Peer, path: Path, halted: Sequence[Halted]) -> None:
    """Compare what the peer saw of the halted campaigns with what the daemon says, and count the others' mail."""
    peer.count()  # the record has all of it then
    record = Record(path)
    for each in halted:
        rows = ended_after_stop(node, each.campaign)
        run.leaked += leaks(node.report(each.campaign), rows, record, each.answered)
    large = run.loaded_large
    assert large is not None
    until = large.halted.asked + int(large.completed * 1e9)
    others = sum(
        each.code == 250 and each.campaign != LARGE and large.halted.asked < (each.ended or 0) <= until
        for each in record.transactions
    )
    run.during = others / large.completed


# -- figures ----------------------------------------------------------------------------------------------------------


def length_figures(run: Run, drop_goal: Goal) -> Iterator[Figure]:
    """Give how long the answers and the drops took, by the length of the queue."""
    figure = partial(Figure, case=CASE, more=False, at=float(run.queued))
    for state, large, small in (
        ("idle", run.idle_large, run.idle),
        ("full load", run.loaded_large, run.loaded),
    ):
        assert large is not None
        yield figure(
            what=f"{run.queued:,} queued, {state}: halt of half of them answered",
            unit="ms",
            value=large.halted.milliseconds,
            **_ACK_GOAL,
        )
        yield figure(
            what=f"{run.queued:,} queued, {state}: halts of small campaigns answered, median",
            unit="ms",
            value=statistics.median(small),
            samples=tuple(small),
        )
        yield figure(
            what=f"{run.queued:,} queued, {state}: half of them dropped, completed",
            unit="s",
            value=large.completed,
            note=f"{large.dropped:,} dropped, {large.in_flight:,} were in flight",
            **drop_goal,
        )


def all_figures(run: Run) -> Iterator[Figure]:
    """Give all the rest."""
    assert run.idle_large is not None and run.loaded_large is not None
    name = f"{run.queued:,} queued"
    figure = partial(Figure, case=CASE, more=False)
    for state, samples in (("idle", run.idle), ("full load", run.loaded), ("while half is dropped", run.meanwhile)):
        if not samples:
            continue
        yield figure(
            what=f"{name}, {state}: halts answered, p99",
            unit="ms",
            value=quantile(samples, 0.99),
            samples=tuple(samples),
            note=f"of {len(samples)}; median {statistics.median(samples):.1f}, longest {max(samples):.1f}",
            **_ACK_GOAL,
        )
    yield figure(
        what=f"{name}, full load: transactions begun after the answer, or in flight then and not counted",
        unit="",
        value=float(len(run.leaked)),
        must=0.0,
        aim=0.0,
        note=f"of {len(run.loaded) + len(run.meanwhile) + 1} campaigns, by the peer's record",
    )
    for state, large, goal, also in (
        ("idle", run.idle_large, _DROP_GOAL, ""),
        (
            "full load",
            run.loaded_large,
            Goal(),
            "; that of delivered mail comes back as well, and can't be told from it",
        ),
    ):
        if large.to_return:
            yield figure(
                what=f"{name}, {state}: disk space returned after",
                unit="s",
                value=large.returned_after,
                note=f"{large.share_returned:.0%} of the {large.to_return / 2**20:,.0f} MiB of dropped bodies"
                + ("" if large.has_returned else "; NOT more when the patience ended")
                + also,
                **goal,
            )
    yield figure(
        what="other campaigns, without the large one", unit="/s", more=True, value=run.before, note="at full load"
    )
    yield figure(
        what="other campaigns while half of the queue is dropped",
        unit="%",
        more=True,
        value=run.during / run.before * 100 if run.before else 0.0,
        must=80.0,
        aim=95.0,
        note=f"{run.during:,.0f}/s for {run.loaded_large.completed:.1f} s",
    )
