"""A node with mail on its way: a world that takes its time, the daemon, and an application that injects campaigns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.world.daemon import Daemon, PeerWorld, daemon, peer_world
from tests.world.injector import Injector
from tests.world.newsletter import Mail, short_mails

DOMAINS = ("gmail.example", "yahoo.example", "outlook.example", "hotmail.example", "corp-one.test", "full.example")
WORLD = {
    "*": {"latency": 0.2, "jitter": 0.5},
    "yahoo.example": {"latency": 0.3, "defer": 0.05},
    "hotmail.example": {"latency": 0.3, "reject": 0.03},
    "full.example": {"latency": 0.2, "defer": 1.0},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BusyNode:
    """The node, the world, and who injects."""

    node: Daemon
    world: PeerWorld
    application: Injector


@asynccontextmanager
async def busy_node(folder: Path, campaigns: Mapping[str, int], *, connections: int = 6) -> AsyncIterator[BusyNode]:
    """Run a node for a block, while so many mails of each campaign are injected."""
    with (
        peer_world(folder / "world", WORLD) as world,
        daemon(folder / "node", route=world.port, extra='[delivery]\nretry = ["20s"]') as node,
    ):
        application = Injector(node.smtp_port, connections=connections)
        injecting = asyncio.ensure_future(application.inject(_in_turn(campaigns)))
        try:
            yield BusyNode(node=node, world=world, application=application)
        finally:
            injecting.cancel()
            with suppress(asyncio.CancelledError, OSError, EOFError, AssertionError):
                await injecting


def _in_turn(campaigns: Mapping[str, int]) -> Iterator[Mail]:
    """Give the mails of all campaigns, each as far as the others are."""
    sources = {name: short_mails(name, number, domains=DOMAINS) for name, number in campaigns.items()}
    given = dict.fromkeys(campaigns, 0)
    for _ in range(sum(campaigns.values())):
        name = min(campaigns, key=lambda each: given[each] / campaigns[each])
        given[name] += 1
        yield next(sources[name])
