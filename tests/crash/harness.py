"""A daemon under full load that is killed again and again on one store; what must be true then is in `audit.py`.

Applications inject campaigns over several connections, an operator halts, holds and releases, monitoring reads reports
all the time, and the peers are slow, refuse, defer and hang up. SIGKILL comes at a random moment: in the middle of the
load, around a halt, in an orderly stop, or in the start that follows a kill. `Ordeal.suffer` is one such life;
`Ordeal.survive` the last one, in which everything drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from queue_store import fsck
from tests.crash.audit import Books, Fence, Kill, audit_books, audit_world, check_growth
from tests.crash.load import PROFILES, Application, Letter, write_letter
from tests.world.daemon import Daemon, PeerWorld, check_law

SETTINGS = """
[lane."rude.example"]
backoff = ["1s"]
[delivery]
retry = ["1s"]
"""
STARTING = 60.0  # seconds that a start may take on a machine that has much else to do


@dataclass
class Summary:
    """What an ordeal was."""

    kills: Counter[str] = field(default_factory=Counter)
    facts: Counter[str] = field(default_factory=Counter)
    slowest_start: float = 0.0
    closest: float = 0.0

    def add(self, other: Summary) -> None:
        """Take another one in."""
        self.kills += other.kills
        self.facts += other.facts
        self.slowest_start = max(self.slowest_start, other.slowest_start)
        self.closest = max(self.closest, other.closest)

    def __str__(self) -> str:
        kills = ", ".join(f"{number} {kind}" for kind, number in sorted(self.kills.items()))
        facts = ", ".join(f"{name} {number}" for name, number in sorted(self.facts.items()))
        return (
            f"{self.kills.total()} kills ({kills}); {facts}; slowest start {self.slowest_start:.2f} s;"
            f" longest from a peer's answer to the kill before it was heard {self.closest * 1000:.0f} ms"
        )


class Ordeal:
    """One store, one world, many lives of the daemon."""

    def __init__(self, folder: Path, seed: int, *, pipelining: bool) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.world = PeerWorld(folder / "world", PROFILES, seed=seed)
        self.node = Daemon(
            folder / "node",
            route=self.world.port if pipelining else self.world.plain_port,
            lane="max_connections = 12",
            extra=SETTINGS,
        )
        self.summary = Summary()
        self._names = (f"c{number}" for number in itertools.count())
        self._numbers = itertools.count()
        self.active = [next(self._names) for _ in range(3)]
        self.sent: dict[str, int] = {}
        self.answers: dict[str, int] = {}
        self.kills: list[Kill] = []
        self.fences: list[Fence] = []
        self.asked: set[str] = set()  # campaigns whose halt was asked for
        self.halted: dict[str, int] = {}  # by campaign, when the halt was known: answered, or found on record
        self.in_flight_at_stop: dict[str, int] = {}  # of those that were answered
        self.held: dict[str, bool | None] = {}  # None: a command was not answered
        self.outcomes: dict[str, str] = {}  # as they were read, of each recipient
        self.counts: dict[str, dict[str, int]] = {}  # the latest that were read
        self._struck = False
        self._checks: list[asyncio.Task[None]] = []

    async def end(self) -> None:
        """Leave nothing running."""
        self._struck = True
        self.node.end()
        self.world.end()
        await asyncio.gather(*self._checks, return_exceptions=True)

    # -- one life -----------------------------------------------------------------------------------------------------

    async def suffer(self) -> None:
        """Start the daemon, load it, kill it; then check what is on disk."""
        if self.kills and self.random.random() < 0.2:
            await self._kill_starting()
        await self._start()
        orderly = self.random.random() < 0.1
        life = self.random.uniform(0.3, 1.0)
        application = Application(self.node.smtp_port)
        async with asyncio.TaskGroup() as group:
            group.create_task(application.inject(self._letters()))
            group.create_task(asyncio.to_thread(self._watch))
            await self._load(application)
            self._command(group, life)
            await asyncio.sleep(life)
            if orderly:
                self.node.process.send_signal(signal.SIGTERM)
                self._struck = True
                await asyncio.sleep(self.random.uniform(0.0, 0.2))
            kill = self._strike()
        self.sent |= application.sent
        self.answers |= application.answers
        code = self.node.process.returncode
        assert code == -signal.SIGKILL or (orderly and code == 0), f"it ended by itself, {code}:\n{self.node.tail()}"
        await self._examine(kill, "while stopping" if orderly else "under load")

    async def _load(self, application: Application) -> None:
        """Wait until some mail was taken, also on a machine that is slow, or for five seconds."""
        some = self.random.randrange(50)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                while sum(code == 250 for code in application.answers.values()) < some:
                    await asyncio.sleep(0.01)

    async def _kill_starting(self) -> None:
        self.node.launch()
        await asyncio.sleep(self.random.uniform(0.1, 0.9))
        await self._examine(self._strike(), "while starting")

    def _strike(self) -> Kill:
        self._struck = True
        before = time.monotonic_ns()
        self.node.kill9()
        return Kill(before)

    async def _start(self) -> None:
        began = time.monotonic()
        self.node.launch()
        self._struck = False
        await asyncio.to_thread(self.node.wait_ready, STARTING)
        self.summary.slowest_start = max(self.summary.slowest_start, time.monotonic() - began)
        self._read_reports()
        for campaign, known in self.halted.items():
            state = self.node.report(campaign)["state"]
            assert state in ("halting", "halted"), f"{campaign} is {state}, though its halt was known at {known}"
        for campaign, held in self.held.items():
            if campaign not in self.halted:
                assert (self.node.report(campaign)["state"] == "held") is held, campaign
        if self.kills:
            grown = {
                row["recipient"]
                for campaign in self.halted
                for row in self._rows(campaign, "?outcome=unknown")
                if self.outcomes.get(row["recipient"]) != "unknown"
            }
            self.kills[-1].unknown |= grown
            self.summary.facts["unknown at a kill"] += len(grown)
            self.outcomes |= dict.fromkeys(grown, "unknown")

    def _letters(self) -> Iterator[Letter]:
        """Give letters without end, of the active campaigns, of none, and now and then of one that is halted."""
        while not self._struck:
            names = [*self.active * 4, "", *list(self.halted)[-1:]]
            yield write_letter(self.random, self.random.choice(names), next(self._numbers))

    # -- operators ----------------------------------------------------------------------------------------------------

    def _command(self, group: asyncio.TaskGroup, life: float) -> None:
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
            group.create_task(self._release(name, chance.uniform(0.0, 2 * life)))

    async def _halt(self, campaign: str, after: float) -> None:
        await asyncio.sleep(after)
        self.active = [next(self._names) if name == campaign else name for name in self.active]
        self.asked.add(campaign)
        self.summary.facts["halts asked"] += 1
        report = await self._ask("POST", f"/v1/campaigns/{campaign}/halt", {"confirm": campaign})
        if report is None:
            return
        self.halted[campaign] = time.monotonic_ns()
        self.in_flight_at_stop[campaign] = report["stop"]["in_flight_at_stop"]
        check_law(report["counts"])
        self.summary.facts["halts answered"] += 1
        self.fences.append(Fence(campaign, await self._world_has_read()))

    async def _hold(self, campaign: str, after: float) -> None:
        await asyncio.sleep(after)
        if self._struck or campaign in self.asked:
            return
        self.held[campaign] = None
        if await self._ask("POST", f"/v1/campaigns/{campaign}/hold") is not None:
            self.held[campaign] = True
            self.fences.append(Fence(campaign, await self._world_has_read(), hold=True))

    async def _release(self, campaign: str, after: float) -> None:
        await asyncio.sleep(after)
        if self._struck or campaign in self.asked:
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

    async def _world_has_read(self) -> int:
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
        return await asyncio.to_thread(self._call, method, path, body)

    def _call(self, method: str, path: str, body: object = None) -> dict | None:
        """Ask the daemon; None when it was killed before all of the answer was there."""
        try:
            status, document = self.node.call(method, path, body)
        except (OSError, http.client.HTTPException):
            if self._struck:
                return None
            raise
        if status == 503 and self._struck:
            return None  # it is stopping
        assert status == 200, document
        return document

    # -- monitoring ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Read reports and outcomes until the daemon is killed."""
        for turn in itertools.count():
            if self._struck or not self._read_reports():
                return
            if turn % 8 == 3:
                campaign = self.random.choice(list(self.counts) or [""])
                if campaign:
                    self._rows(campaign)
            time.sleep(0.005)

    def _read_reports(self) -> bool:
        """Read all reports: the law holds, and nothing that is final goes back, not over a kill either."""
        document = self._call("GET", "/v1/campaigns")
        if document is None:
            return False
        for report in document["campaigns"]:
            check_law(report["counts"])
            check_growth(report["campaign"], self.counts.get(report["campaign"], {}), report["counts"])
            self.counts[report["campaign"]] = report["counts"]
        self.summary.facts["reports read"] += len(document["campaigns"])
        return True

    def _rows(self, campaign: str, query: str = "") -> list[dict]:
        """Read the outcomes of a campaign, and see that none of them has changed."""
        text = self._call("GET", f"/v1/campaigns/{campaign}/recipients{query}") or ""
        rows = [json.loads(line) for line in text.splitlines()]
        if not query:
            self._remember({row["recipient"]: row["outcome"] for row in rows})
        return rows

    def _remember(self, outcomes: dict[str, str]) -> None:
        for recipient in self.outcomes.keys() & outcomes.keys():
            was, now = self.outcomes[recipient], outcomes[recipient]
            assert was == now, f"{recipient} was {was} and is {now}"
        self.outcomes |= outcomes

    # -- what is left -------------------------------------------------------------------------------------------------

    async def _examine(self, kill: Kill, kind: str) -> None:
        """Read what a kill left, from a copy, and compare it with what was promised."""
        kill.over = await self._world_has_read()
        self.kills.append(kill)
        self.summary.kills[kind] += 1
        copy = self.folder / f"copy-{len(self.kills)}"
        shutil.copytree(self.node.folder / "store", copy, ignore=shutil.ignore_patterns("reserve"))
        self._checks.append(asyncio.create_task(self._fsck(copy)))
        books = Books(copy)
        audit_books(books, self.answers, self.outcomes)
        self._remember(books.outcomes)
        for campaign in self.asked - self.halted.keys():
            if campaign in books.halted:
                self.halted[campaign] = kill.over
                self.summary.facts["halts on record, not answered"] += 1
            else:
                self.summary.facts["halts that left no trace"] += 1
                self.active[self.random.randrange(3)] = campaign  # it goes on, and there was no stop
                self.counts.get(campaign, {}).pop("delivered_after_stop", None)
        self.asked = set(self.halted)
        assert self.halted.keys() <= books.halted, "a halt was answered that is not on record"
        self.fences += [Fence(campaign, kill.over) for campaign in self.halted]
        for campaign, held in self.held.items():
            on_record = campaign in books.held
            assert held is None or held == on_record or campaign in self.halted, f"{campaign} held: {held}"
            if on_record:
                self.fences.append(Fence(campaign, kill.over, hold=True))
            self.held[campaign] = on_record

    async def _fsck(self, copy: Path) -> None:
        found = await asyncio.to_thread(fsck.check, copy)
        assert not [each for each in found if each.severity is fsck.Severity.ERROR], [str(each) for each in found]
        shutil.rmtree(copy)

    async def survive(self, timeout: float = 90.0) -> Summary:
        """Start for the last time, let everything drain, stop in order, and check all there is against the world."""
        await self._start()
        for campaign in [name for name, held in self.held.items() if held and name not in self.halted]:
            await self._release(campaign, 0.0)
        deadline = time.monotonic() + timeout
        while (left := self.node.status()["totals"])["queued"] + left["in_flight"]:
            assert time.monotonic() < deadline, left
            self._read_reports()
            await asyncio.sleep(0.1)
        for campaign in self.halted:
            report = await asyncio.to_thread(self.node.wait_completed, campaign)
            assert all(step["at"] for step in report["steps"]), report
        reports = {report["campaign"]: report for report in self._call("GET", "/v1/campaigns")["campaigns"]}
        self._struck = True
        assert self.node.stop() == 0
        await self._finish(reports)
        return self.summary

    async def _finish(self, reports: dict[str, dict]) -> None:
        await asyncio.gather(*self._checks)
        copy = self.folder / "copy-last"
        shutil.copytree(self.node.folder / "store", copy)
        found = await asyncio.to_thread(self.node.fsck)
        assert (found.returncode, found.stdout) == (0, "clean\n"), found
        books = Books(copy)
        audit_books(books, self.answers, self.outcomes)
        assert not books.waiting
        assert self.halted.keys() == books.halted
        for name, counts in books.counts.items():
            if name:
                seen = {key: value for key, value in reports[name]["counts"].items() if key in counts}
                assert seen == counts, name
        record = self.world.record()
        facts, self.summary.closest = audit_world(
            record,
            books,
            kills=self.kills,
            fences=self.fences,
            halted=self.halted,
            in_flight_at_stop=self.in_flight_at_stop,
        )
        self.summary.facts.update(facts)
        self._check_refusals()
        lines = [line for line in self.node.log.read_text().splitlines() if '"error"' in line or "Traceback" in line]
        assert not lines, lines[:5]
        self.summary.facts["acknowledged"] += sum(code == 250 for code in self.answers.values())

    def _check_refusals(self) -> None:
        for recipient, sent in self.sent.items():
            known = self.halted.get(recipient.partition("-")[0])
            if known is not None and sent > known:
                code = self.answers[recipient]
                assert code in (0, 550), f"{recipient} was injected after the halt and answered {code}"
                self.summary.facts["refused after a halt"] += code == 550


async def endure(folder: Path, seed: int, *, kills: int, pipelining: bool) -> Summary:
    """Go through an ordeal of at least so many kills on one store."""
    ordeal = Ordeal(folder, seed, pipelining=pipelining)
    try:
        while len(ordeal.kills) < kills:
            await ordeal.suffer()
        return await ordeal.survive()
    finally:
        await ordeal.end()
