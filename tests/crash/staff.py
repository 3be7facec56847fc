"""The people around a daemon that is killed again and again: operators who halt, hold and release, and monitoring that
reads reports all the time. They remember what they were told.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import random
import time

from tests.crash.audit import Fence, check_growth
from tests.world.daemon import Daemon, PeerWorld, check_law

DYING = 5.0  # seconds from the first sign that a daemon has killed itself until it is gone, on a busy machine


class Staff:
    """What was asked of one node, and answered. `facts` are counted."""

    def __init__(self, node: Daemon, world: PeerWorld, chance: random.Random, facts: dict[str, int]) -> None:
        self.node = node
        self.world = world
        self.random = chance
        self.facts = facts
        self.struck = False  # the daemon is dead, or is being killed
        self._names = (f"c{number}" for number in itertools.count())
        self.active = [next(self._names) for _ in range(3)]
        self.fences: list[Fence] = []
        self.asked: set[str] = set()  # campaigns whose halt was asked for
        self.halted: dict[str, int] = {}  # by campaign, when the halt was known: answered, or found on record
        self.in_flight_at_stop: dict[str, int] = {}  # of those that were answered
        self.held: dict[str, bool | None] = {}  # None: a command was not answered
        self.outcomes: dict[str, str] = {}  # as they were read, of each recipient
        self.counts: dict[str, dict[str, int]] = {}  # the latest that were read

    # -- operators ----------------------------------------------------------------------------------------------------

    def command(self, group: asyncio.TaskGroup, life: float) -> None:
        """Plan what is asked in a life of so many seconds."""
        chance = self.random
        victims = chance.sample(self.active, 2)
        if chance.random() < 0.7:
            around_the_kill = chance.random() < 0.6
            after = life - chance.uniform(-0.002, 0.06) if around_the_kill else chance.uniform(0.0, life)
            group.create_task(self._halt(victims[0], after))
        if chance.random() < 0.4:
            group.create_task(self._hold(victims[1], chance.uniform(0.0, life)))
        held = [name for name, held in self.held.items() if held is not False and name not in victims]
        for name in held:
            group.create_task(self.release(name, chance.uniform(0.0, 2 * life)))

    async def _halt(self, campaign: str, after: float) -> None:
        await asyncio.sleep(after)
        if self.struck:
            return
        self.active = [next(self._names) if name == campaign else name for name in self.active]
        self.asked.add(campaign)
        self.facts["halts asked"] += 1
        report = await self._ask("POST", f"/v1/campaigns/{campaign}/halt", {"confirm": campaign})
        if report is None:
            return
        self.halted[campaign] = time.monotonic_ns()
        self.in_flight_at_stop[campaign] = report["stop"]["in_flight_at_stop"]
        check_law(report["counts"])
        self.facts["halts answered"] += 1
        self.fences.append(Fence(campaign, await self.world_has_read()))

    async def _hold(self, campaign: str, after: float) -> None:
        await asyncio.sleep(after)
        if self.struck or campaign in self.asked:
            return
        self.held[campaign] = None
        if await self._ask("POST", f"/v1/campaigns/{campaign}/hold") is not None:
            self.held[campaign] = True
            self.fences.append(Fence(campaign, await self.world_has_read(), hold=True))

    async def release(self, campaign: str, after: float) -> None:
        await asyncio.sleep(after)
        if self.struck or campaign in self.asked:
            return
        self._lower(campaign)
        self.held[campaign] = None
        if await self._ask("POST", f"/v1/campaigns/{campaign}/release") is not None:
            self.held[campaign] = False

    def _lower(self, campaign: str) -> None:
        now = time.monotonic_ns()
        for fence in self.fences:
            if fence.campaign == campaign and fence.hold and fence.until is None:
                fence.until = now

    async def world_has_read(self) -> int:
        """Give a stamp; whatever was written to the world before the call has been read and stamped by then.

        It is one thread, and serves all sockets that can be read before it looks for others: two turns are enough.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.world.port)
        await reader.readline()
        for _ in range(2):
            writer.write(b"NOOP\r\n")
            await reader.readline()
        stamp = time.monotonic_ns()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return stamp

    async def _ask(self, method: str, path: str, body: object = None) -> dict | None:
        return await asyncio.to_thread(self.call, method, path, body)

    def call(self, method: str, path: str, body: object = None) -> dict | None:
        """Ask the daemon; None when it was killed before all of the answer was there."""
        try:
            status, document = self.node.call(method, path, body)
        except (OSError, http.client.HTTPException):
            if self.struck or self.is_dying():
                return None
            raise
        if status == 503 and self.struck:
            return None  # it is stopping
        assert status == 200, document
        return document

    def is_dying(self) -> bool:
        """Whether the daemon, which answers no more, has killed itself."""
        deadline = time.monotonic() + DYING
        while self.node.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.node.process.poll() is not None

    # -- monitoring ---------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Read reports and outcomes until the daemon is killed."""
        for turn in itertools.count():
            if self.struck or not self.read_reports():
                return
            if turn % 8 == 3:
                campaign = self.random.choice(list(self.counts) or [""])
                if campaign:
                    self.rows(campaign)
            time.sleep(0.005)

    def read_reports(self) -> bool:
        """Read all reports: the law holds, and nothing that is final goes back, not over a kill either."""
        document = self.call("GET", "/v1/campaigns")
        if document is None:
            return False
        for report in document["campaigns"]:
            check_law(report["counts"])
            check_growth(report["campaign"], self.counts.get(report["campaign"], {}), report["counts"])
            self.counts[report["campaign"]] = report["counts"]
        self.facts["reports read"] += len(document["campaigns"])
        return True

    def rows(self, campaign: str, query: str = "") -> list[dict]:
        """Read the outcomes of a campaign, and see that none of them has changed."""
        text = self.call("GET", f"/v1/campaigns/{campaign}/recipients{query}") or ""
        rows = [json.loads(line) for line in text.splitlines()]
        if not query:
            self.remember({row["recipient"]: row["outcome"] for row in rows})
        return rows

    def remember(self, outcomes: dict[str, str]) -> None:
        for recipient in self.outcomes.keys() & outcomes.keys():
            was, now = self.outcomes[recipient], outcomes[recipient]
            assert was == now, f"{recipient} was {was} and is {now}"
        self.outcomes |= outcomes
