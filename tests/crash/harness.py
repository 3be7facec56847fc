"""A daemon under full load that is killed again and again on one store; what must be true then is in `audit.py`.

Applications inject campaigns over several connections, an operator halts, holds and releases, monitoring reads reports
all the time, and the peers are slow, refuse, defer and hang up. SIGKILL comes at a random moment: in the middle of the
load, around a halt, in an orderly stop, or in the start that follows a kill; or the daemon kills itself at a failpoint
(queue_store/failpoints.py). `Ordeal.suffer` is one such life; `Ordeal.survive` the last one, in which all drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from queue_store import fsck
from queue_store.failpoints import FAILPOINTS
from tests.crash.audit import Fence, Kill, audit_bodies, audit_books, audit_world
from tests.crash.load import PROFILES, Application, Letter, write_letter
from tests.crash.reader import Books, has_index
from tests.crash.staff import Staff
from tests.world.daemon import Daemon, PeerWorld

SETTINGS = """
[lane."rude.example"]
backoff = ["1s"]
[delivery]
retry = ["1s"]
"""
STARTING = 60.0  # seconds that a start may take on a machine that has much else to do
LONGER = 4.0  # times as long a life may be that is to end at a failpoint

# What a daemon with its own settings does not come to within seconds; test_failpoints.py does.
UNUSUAL = {
    *("reserve-spent", "segment-piece-written", "batch-rolled-back", "segment-cut-back", "segment-sealed"),
    *("attempts-grown", "attempts-mapped", "pages-vacuumed"),
    *(name for name in FAILPOINTS if name.startswith("copy-")),
}
POINTS = [name for name in FAILPOINTS if name not in UNUSUAL]
STARTS = set(POINTS[: POINTS.index("segment-file-made")])  # come to before it is ready
STOPS = {"claims-returned", "clean-marked", "clean-log-copied", "segments-closed", "index-closed"}
# Come to only in the first start of a store.
FIRST = [each for each in POINTS if each.startswith(("index-", "segments-folder-", "reserve-", "folder-"))]
FIRST = [each for each in FIRST if each not in STOPS]
OFTEN = {each for each in POINTS if each.startswith(("slot-", "bodies-", "batch-"))}


@dataclass
class Summary:
    """What an ordeal was."""

    kills: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)  # failpoints that were died at
    facts: Counter[str] = field(default_factory=Counter)
    slowest_start: float = 0.0
    closest: float = 0.0

    def add(self, other: Summary) -> None:
        """Take another one in."""
        self.kills += other.kills
        self.points += other.points
        self.facts += other.facts
        self.slowest_start = max(self.slowest_start, other.slowest_start)
        self.closest = max(self.closest, other.closest)

    def __str__(self) -> str:
        kills = ", ".join(f"{number} {kind}" for kind, number in sorted(self.kills.items()))
        facts = ", ".join(f"{name} {number}" for name, number in sorted(self.facts.items()))
        return (
            f"{self.kills.total()} kills ({kills}, {len(self.points)} different ones); {facts};"
            f" slowest start {self.slowest_start:.2f} s;"
            f" longest from a peer's answer to the kill before it was heard {self.closest * 1000:.0f} ms"
        )


class Ordeal:
    """One store, one world, many lives of the daemon. `points`: the failpoints to die at, in turn."""

    def __init__(self, folder: Path, seed: int, *, pipelining: bool, points: Iterator[str]) -> None:
        self.random = random.Random(seed)
        self.points = points
        self.folder = folder
        self.world = PeerWorld(folder / "world", PROFILES, seed=seed)
        self.node = Daemon(
            folder / "node",
            route=self.world.port if pipelining else self.world.plain_port,
            lane="max_connections = 12",
            extra=SETTINGS,
        )
        self.summary = Summary()
        self.staff = Staff(self.node, self.world, self.random, self.summary.facts)
        self._numbers = itertools.count()
        self.sent: dict[str, int] = {}
        self.answers: dict[str, int] = {}
        self.contents: dict[str, tuple[int, int]] = {}
        self.kills: list[Kill] = []
        self._checks: list[asyncio.Task[None]] = []

    async def end(self) -> None:
        """Leave nothing running."""
        self.staff.struck = True
        self.node.end()
        self.world.end()
        await asyncio.gather(*self._checks, return_exceptions=True)

    # -- one life -----------------------------------------------------------------------------------------------------

    async def suffer(self) -> None:
        """Start the daemon, load it, kill it; then check what is on disk."""
        if self.kills and self.random.random() < 0.2:
            await self._kill_starting()
        point = self._choose()
        if not await self._start(point):
            return
        orderly = point in STOPS or (point is None and self.random.random() < 0.1)
        life = self.random.uniform(0.3, 1.0)
        application = Application(self.node.smtp_port)
        async with asyncio.TaskGroup() as group:
            group.create_task(application.inject(self._letters()))
            group.create_task(asyncio.to_thread(self.staff.watch))
            await self._load(application)
            self.staff.command(group, life)
            at = await self._wait_for_end(life if point is None or orderly else life * LONGER)
            if at is None and orderly:
                self.node.process.send_signal(signal.SIGTERM)
                self.staff.struck = True
                at = await self._wait_for_end(self.random.uniform(0.0, 0.2) if point is None else STARTING)
            kill = self._strike(at)
        self.sent |= application.sent
        self.answers |= application.answers
        self.contents |= application.contents
        code = self.node.process.returncode
        assert code == -signal.SIGKILL or (orderly and code == 0), f"it ended by itself, {code}:\n{self.node.tail()}"
        by_itself = at is not None and code == -signal.SIGKILL
        await self._examine(kill, "while stopping" if orderly else "under load", point if by_itself else None)

    def _choose(self) -> str | None:
        """Choose where it is to kill itself, or None."""
        if not self.node.config.parent.joinpath("store").exists():
            return self.random.choice(FIRST)
        return next(self.points) if self.random.random() < 0.6 else None

    async def _wait_for_end(self, seconds: float) -> int | None:
        """Wait for so long; if it ends before that, give the last stamp at which it was seen alive."""
        deadline = time.monotonic() + seconds
        at = time.monotonic_ns()
        while time.monotonic() < deadline:
            before = time.monotonic_ns()
            if self.node.process.poll() is not None:
                return at
            at = before
            await asyncio.sleep(0.002)
        return None

    async def _load(self, application: Application) -> None:
        """Wait until some mail was taken, also on a machine that is slow, or for five seconds, or until it dies."""
        some = self.random.randrange(50)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                while sum(code == 250 for code in application.answers.values()) < some:
                    if self.node.process.poll() is not None:
                        return
                    await asyncio.sleep(0.01)

    async def _kill_starting(self) -> None:
        self.node.launch()
        await asyncio.sleep(self.random.uniform(0.1, 0.9))
        await self._examine(self._strike(None), "while starting", None)

    def _strike(self, at: int | None) -> Kill:
        """Kill it; `at` is a stamp before it died where it is dead already."""
        self.staff.struck = True
        before = time.monotonic_ns() if at is None else at
        self.node.kill9()
        return Kill(before)

    async def _start(self, point: str | None = None) -> bool:
        """Start the daemon, and see that it knows what it knew; give False when it killed itself at a failpoint."""
        began = time.monotonic_ns()
        nth = self.random.randrange(1, 40) if point in OFTEN else 1
        self.node.launch(env={} if point is None else {"MTACTL_FAILPOINT": f"{point}:{nth}"})
        self.staff.struck = False
        try:
            await asyncio.to_thread(self.node.wait_ready, STARTING)
        except AssertionError:
            if point is None or self.node.process.poll() != -signal.SIGKILL:
                raise
            await self._examine(self._strike(began), "while starting", point)
            return False
        self.summary.slowest_start = max(self.summary.slowest_start, (time.monotonic_ns() - began) / 1e9)
        try:
            self._compare()
        except (AssertionError, TypeError, OSError):
            if point is None or not self.staff.is_dying():
                raise
            await self._examine(self._strike(began), "under load", point)
            return False
        return True

    def _compare(self) -> None:
        """See that a daemon that has just started knows of what its predecessors answered."""
        staff = self.staff
        staff.read_reports()
        for campaign, known in staff.halted.items():
            state = self.node.report(campaign)["state"]
            assert state in ("halting", "halted"), f"{campaign} is {state}, though its halt was known at {known}"
        for campaign, held in staff.held.items():
            if campaign not in staff.halted:
                assert (self.node.report(campaign)["state"] == "held") is held, campaign
        if self.kills:
            grown = {
                row["recipient"]
                for campaign in staff.halted
                for row in staff.rows(campaign, "?outcome=unknown")
                if staff.outcomes.get(row["recipient"]) != "unknown"
            }
            self.kills[-1].unknown |= grown
            self.summary.facts["unknown at a kill"] += len(grown)
            staff.outcomes |= dict.fromkeys(grown, "unknown")

    def _letters(self) -> Iterator[Letter]:
        """Give letters without end, of the active campaigns, of none, and now and then of one that is halted."""
        while not self.staff.struck:
            names = [*self.staff.active * 4, "", *list(self.staff.halted)[-1:]]
            yield write_letter(self.random, self.random.choice(names), next(self._numbers))

    # -- what is left -------------------------------------------------------------------------------------------------

    async def _examine(self, kill: Kill, kind: str, point: str | None) -> None:
        """Read what a kill left, from a copy, and compare it with what was promised."""
        kill.over = await self.staff.world_has_read()
        self.kills.append(kill)
        self.summary.kills[kind if point is None else f"at failpoints {kind}"] += 1
        if point is not None:
            self.summary.points[point] += 1
        store = self.node.folder / "store"
        if not has_index(store):
            assert 250 not in self.answers.values(), "the index is gone"
            return
        copy = self.folder / f"copy-{len(self.kills)}"
        shutil.copytree(store, copy, ignore=shutil.ignore_patterns("reserve"))
        self._checks.append(asyncio.create_task(self._fsck(copy)))
        await self._compare_books(Books(copy), kill)

    async def _compare_books(self, books: Books, kill: Kill) -> None:
        audit_books(books, self.answers, self.staff.outcomes)
        self.summary.facts["bodies read"] += audit_bodies(books, self.contents)
        self.staff.remember(books.outcomes)
        for campaign in self.staff.asked - self.staff.halted.keys():
            if campaign in books.halted:
                self.staff.halted[campaign] = kill.over
                self.summary.facts["halts on record, not answered"] += 1
            else:
                self.summary.facts["halts that left no trace"] += 1
                self.staff.active[self.random.randrange(3)] = campaign  # it goes on, and there was no stop
                self.staff.counts.get(campaign, {}).pop("delivered_after_stop", None)
        self.staff.asked = set(self.staff.halted)
        assert self.staff.halted.keys() <= books.halted.keys(), "a halt was answered that is not on record"
        self.staff.fences += [Fence(campaign, kill.over) for campaign in self.staff.halted]
        for campaign, held in self.staff.held.items():
            on_record = campaign in books.held
            assert held is None or held == on_record or campaign in self.staff.halted, f"{campaign} held: {held}"
            if on_record:
                self.staff.fences.append(Fence(campaign, kill.over, hold=True))
            self.staff.held[campaign] = on_record

    async def _fsck(self, copy: Path) -> None:
        found = await asyncio.to_thread(fsck.check, copy)
        assert not [each for each in found if each.severity is fsck.Severity.ERROR], [str(each) for each in found]
        shutil.rmtree(copy)

    async def survive(self, timeout: float = 90.0) -> Summary:
        """Start for the last time, let everything drain, stop in order, and check all there is against the world."""
        await self._start()
        for campaign in [name for name, held in self.staff.held.items() if held and name not in self.staff.halted]:
            await self.staff.release(campaign, 0.0)
        deadline = time.monotonic() + timeout
        while (left := self.node.status()["totals"])["queued"] + left["in_flight"]:
            assert time.monotonic() < deadline, left
            self.staff.read_reports()
            await asyncio.sleep(0.1)
        for campaign in self.staff.halted:
            report = await asyncio.to_thread(self.node.wait_completed, campaign)
            assert all(step["at"] for step in report["steps"]), report
        reports = {report["campaign"]: report for report in self.staff.call("GET", "/v1/campaigns")["campaigns"]}
        self.staff.struck = True
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
        audit_books(books, self.answers, self.staff.outcomes)
        assert not books.waiting
        assert self.staff.halted.keys() == books.halted.keys()
        for name, counts in books.counts.items():
            if name:
                seen = {key: value for key, value in reports[name]["counts"].items() if key in counts}
                assert seen == counts, name
        record = self.world.record()
        facts, self.summary.closest = audit_world(
            record,
            books,
            kills=self.kills,
            fences=self.staff.fences,
            halted=self.staff.halted,
            in_flight_at_stop=self.staff.in_flight_at_stop,
        )
        self.summary.facts.update(facts)
        self._check_refusals()
        lines = [line for line in self.node.log.read_text().splitlines() if '"error"' in line or "Traceback" in line]
        assert not lines, lines[:5]
        self.summary.facts["acknowledged"] += sum(code == 250 for code in self.answers.values())

    def _check_refusals(self) -> None:
        for recipient, sent in self.sent.items():
            known = self.staff.halted.get(recipient.partition("-")[0])
            if known is not None and sent > known:
                code = self.answers[recipient]
                assert code in (0, 550), f"{recipient} was injected after the halt and answered {code}"
                self.summary.facts["refused after a halt"] += code == 550


async def endure(
    folder: Path, seed: int, *, kills: int, pipelining: bool, points: Iterator[str] | None = None
) -> Summary:
    """Go through an ordeal of at least so many kills on one store, half of them at failpoints."""
    ordeal = Ordeal(folder, seed, pipelining=pipelining, points=points or shuffled_points(seed))
    try:
        while len(ordeal.kills) < kills:
            await ordeal.suffer()
        return await ordeal.survive()
    finally:
        await ordeal.end()


def shuffled_points(seed: int) -> Iterator[str]:
    """Give the failpoints that a daemon comes to after its first start, again and again."""
    chance = random.Random(seed)
    while True:
        points = [each for each in POINTS if each not in FIRST]
        chance.shuffle(points)
        yield from points
