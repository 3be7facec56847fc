"""How many messages a second go in and out: mtactl and Postfix in turn, on the same disk, with the same load.

End to end runs from the first octet injected to the last message at the sink; "in only" has nobody to deliver to, so
every message ends in the queue; "out only" then delivers that queue, timed at the sink from its first message to its
last. Each message is durable before it is acknowledged, by both.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.bench.load import Sink, inject
from tests.bench.postfix import Postfix
from tests.world.daemon import Daemon, free_port

PARTS = ("end to end", "in only", "out only")
PATIENCE = 300.0  # seconds for one part


class Server(Protocol):
    """What is measured: it relays to the sink, or keeps what it takes."""

    port: int

    def start(self, *, deliver: bool = True) -> None:
        """Start it and wait until it takes mail."""

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
class Figures:
    """Messages a second, by part, a number for each round."""

    rates: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})

    def median(self, part: str) -> float:
        """Give the median of a part."""
        return statistics.median(self.rates[part])


def measure(server: Server, sink: Sink, figures: Figures, *, messages: int, size: int) -> None:
    """Run all parts once."""
    base = sink.reset()
    server.start()
    begun = time.monotonic()
    inject(server.port, messages, size=size)
    ended = sink.wait_for(base + messages, PATIENCE)
    server.stop()
    figures.rates["end to end"].append(messages / (ended - begun))

    server.start(deliver=False)
    figures.rates["in only"].append(messages / inject(server.port, messages, size=size))
    server.stop()

    base = sink.reset()
    server.start()
    ended = sink.wait_for(base + messages, PATIENCE)
    figures.rates["out only"].append((messages - 1) / (ended - sink.first))
    server.stop()


def compare(
    *, postfix: bool, messages: int, size: int, rounds: int, tell: Callable[[str], None]
) -> tuple[dict[str, Figures], dict[str, float]]:
    """Measure in turn; give the figures of each server by its name, and those of the load on its own.

    Raises NoPostfix when it is asked for and can't be run.
    """
    port = free_port()
    servers: dict[str, Server] = {"mtactl": Mtactl(relay=port)}
    sink = None
    try:
        if postfix:
            theirs = Postfix(port=free_port(), relay=port)
            servers[f"Postfix {theirs.version}"] = theirs
        sink = Sink(port)
        sink.wait_until_up()
        figures = {name: Figures() for name in servers}
        alone: list[float] = []
        for number in range(1, rounds + 1):
            for name, server in servers.items():
                tell(f"round {number} of {rounds}: {name}")
                measure(server, sink, figures[name], messages=messages, size=size)
            alone.append(messages / inject(port, messages, size=size))
        return figures, {"source and sink alone": statistics.median(alone)}
    finally:
        if sink is not None:
            sink.stop()
        for server in servers.values():
            server.remove()
