"""How many messages a second go in and out: mtactl and Postfix in turn, on the same disk, with the same load.

End to end runs from the first octet injected to the last message at the sink; "in only" has nobody to deliver to, so
every message ends in the queue; "out only" then delivers that queue, timed at the sink from its first message to its
last. Each message is durable before it is acknowledged, by both. Postfix gets fewer messages, so that a round takes
both about the same time.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.bench.figures import Figure, Tell
from tests.bench.histogram import Histogram, fetch_histogram
from tests.bench.load import Sink, inject, missing_programs
from tests.bench.postfix import NoPostfix, Postfix
from tests.bench.processes import cpu_of
from tests.world.daemon import Daemon, free_port

CASE = "rates"
END_TO_END, IN_ONLY, OUT_ONLY = PARTS = ("end to end", "in only", "out only")
OURS = "mtactl"
PATIENCE = 600.0  # seconds for one part
ROUNDS = 3
_LAG = "mtactl_event_loop_lag_seconds"


@dataclass(frozen=True, slots=True)
class Load:
    """Messages of one size, and how many of them each server gets in each part of a round."""

    name: str
    size: int  # octets
    messages: int
    of_peer: int

    def scaled(self, scale: float) -> Load:
        """Give less (or more) of it."""
        return Load(self.name, self.size, max(40, int(self.messages * scale)), max(40, int(self.of_peer * scale)))


LOADS = (Load("10 kB", 10_240, 30_000, 6_000), Load("100 kB", 102_400, 8_000, 2_000))

# Must and aim. 10 kB is measured against Postfix; 100 kB end to end is in messages a second.
_TIMES_THE_PEER = {
    ("10 kB", END_TO_END): (5.0, 10.0),
    ("10 kB", IN_ONLY): (6.0, 12.0),
    ("10 kB", OUT_ONLY): (4.0, 8.0),
}
_A_SECOND = {("100 kB", END_TO_END): (750.0, 1_500.0)}
_LAG_GOAL = (25.0, 5.0)  # ms


class Server(Protocol):
    """What is measured: it relays to the sink, or keeps what it takes."""

    port: int

    def start(self, *, deliver: bool = True) -> None:
        """Start it and wait until it takes mail."""

    def cpu(self) -> float:
        """Give the seconds of CPU that it has used since its start."""

    def stop(self) -> None:
        """End it in order; its queue stays."""

    def remove(self) -> None:
        """End it and remove what it left."""


class Mtactl:
    """mtactld in a folder of its own, with its defaults."""

    def __init__(self, *, relay: int) -> None:
        self.port = 0
        self._relay = relay
        self._folder = Path(tempfile.mkdtemp(prefix="mtactl-bench-", dir="/var/tmp"))
        self._tarpit = socket.create_server(("127.0.0.1", 0))  # never greets
        self._daemon: Daemon | None = None

    def start(self, *, deliver: bool = True) -> None:
        """Start it and wait until it takes mail."""
        route = self._relay if deliver else self._tarpit.getsockname()[1]
        self._daemon = Daemon(self._folder, route=route)
        self.port = self._daemon.smtp_port
        self._daemon.start()

    def cpu(self) -> float:
        """Give the seconds of CPU of all its threads."""
        assert self._daemon is not None and self._daemon.process is not None
        return cpu_of(self._daemon.process.pid)

    def lag(self) -> Histogram:
        """Give how late its event loop was since its start."""
        assert self._daemon is not None
        return fetch_histogram(self._daemon.metrics_port, _LAG)

    def stop(self) -> None:
        """End it in order; its queue stays."""
        if self._daemon is not None:
            daemon, self._daemon = self._daemon, None
            try:
                status = daemon.stop()
            finally:
                daemon.end()
            if status != 0:
                raise AssertionError(f"mtactld ended with {status}:\n{daemon.tail()}")

    def remove(self) -> None:
        """End it and remove what it left."""
        if self._daemon is not None:
            self._daemon.end()
        self._tarpit.close()
        shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(slots=True)
class Rounds:
    """Messages a second and µs of CPU a message, by part, a number for each round; the lag of all rounds together."""

    rates: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    cpu: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    lag: Histogram = field(default_factory=Histogram)

    def note(self, part: str, messages: int, seconds: float, cpu: float) -> None:
        """Take what one part of a round gave."""
        self.rates[part].append(messages / seconds)
        self.cpu[part].append(cpu / messages * 1e6)


def run_round(server: Server, sink: Sink, rounds: Rounds, *, messages: int, size: int) -> None:
    """Run all parts once."""
    base = sink.reset()
    server.start()
    lag = server.lag() if isinstance(server, Mtactl) else None
    cpu, begun = server.cpu(), time.monotonic()
    inject(server.port, messages, size=size)
    ended = sink.wait_for(base + messages, PATIENCE)
    rounds.note(END_TO_END, messages, ended - begun, server.cpu() - cpu)
    if isinstance(server, Mtactl) and lag is not None:
        rounds.lag += server.lag() - lag
    server.stop()

    server.start(deliver=False)
    cpu = server.cpu()
    seconds = inject(server.port, messages, size=size)
    rounds.note(IN_ONLY, messages, seconds, server.cpu() - cpu)
    server.stop()

    base = sink.reset()
    server.start()
    sink.wait_for(base + 1, PATIENCE)
    cpu, counted = server.cpu(), sink.count
    ended = sink.wait_for(base + messages, PATIENCE)
    used = server.cpu() - cpu
    first, begun_with = sink.first
    flowed = base + messages - begun_with
    if flowed > 0:  # else all of it came at once, which only a look with next to no load does
        rounds.note(OUT_ONLY, flowed, ended - first, used * flowed / max(1, base + messages - counted))
    server.stop()


def measure_load(load: Load, tell: Tell, *, postfix: bool, rounds: int = ROUNDS) -> Iterator[Figure]:
    """Measure one size in turn."""
    port = free_port()
    servers: dict[str, Server] = {}
    sink = None
    try:
        servers[OURS] = Mtactl(relay=port)
        peer = ""
        if postfix:
            theirs = Postfix(port=free_port(), relay=port)
            peer = f"Postfix {theirs.version}"
            servers[peer] = theirs
        sink = Sink(port)
        sink.wait_until_up()
        measured = {name: Rounds() for name in servers}
        alone: list[float] = []
        for number in range(1, rounds + 1):
            for name, server in servers.items():
                tell(f"{load.name}, round {number} of {rounds}: {name}")
                messages = load.messages if name == OURS else load.of_peer
                run_round(server, sink, measured[name], messages=messages, size=load.size)
            alone.append(load.messages / inject(port, load.messages, size=load.size))
        yield from make_figures(load, measured[OURS], measured.get(peer), peer, alone)
    finally:
        if sink is not None:
            sink.stop()
        for server in servers.values():
            server.remove()


def make_figures(load: Load, ours: Rounds, theirs: Rounds | None, peer: str, alone: list[float]) -> Iterator[Figure]:
    """Give the figures of one size."""
    for part in PARTS:
        if not ours.rates[part]:
            continue
        key = (load.name, part)
        must, aim = _TIMES_THE_PEER.get(key) or _A_SECOND.get(key) or (None, None)
        yield Figure(
            case=CASE,
            what=f"{load.name}, {part}",
            unit="/s",
            value=statistics.median(ours.rates[part]),
            samples=tuple(ours.rates[part]),
            peer=_median(theirs.rates[part] if theirs else None),
            must=must,
            aim=aim,
            of_peer=key in _TIMES_THE_PEER,
            peer_name=peer,
        )
        yield Figure(
            case=CASE,
            what=f"{load.name}, {part}, CPU a message",
            unit="µs",
            more=False,
            value=statistics.median(ours.cpu[part]),
            samples=tuple(ours.cpu[part]),
            peer=_median(theirs.cpu[part] if theirs else None),
            peer_name=peer,
        )
    if ours.lag.count:
        yield Figure(
            case=CASE,
            what=f"{load.name}, event-loop lag, p99",
            unit="ms",
            more=False,
            value=ours.lag.quantile(0.99) * 1e3,
            must=_LAG_GOAL[0],
            aim=_LAG_GOAL[1],
            note=f"end to end, of {ours.lag.count:,.0f} samples, by the buckets of /metrics",
        )
    yield Figure(
        case=CASE,
        what=f"{load.name}, source and sink alone",
        unit="/s",
        value=statistics.median(alone),
        samples=tuple(alone),
        note="what is left of the machine for a server that costs nothing",
    )


def measure(scale: float, tell: Tell) -> Iterator[Figure]:
    """Measure both sizes. Raises RuntimeError where the load's programs are missing."""
    if missing := missing_programs():
        raise RuntimeError(f"{' and '.join(missing)} not found: apt-get install postfix")
    try:
        Postfix.look_for()
        postfix = True
    except NoPostfix as error:
        tell(f"no comparison: {error}")
        postfix = False
    rounds = ROUNDS if scale >= 0.1 else 1
    for load in LOADS:
        yield from measure_load(load.scaled(scale), tell, postfix=postfix, rounds=rounds)


def _median(values: list[float] | None) -> float | None:
    return statistics.median(values) if values else None
