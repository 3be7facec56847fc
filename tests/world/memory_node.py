"""A whole node in memory behind `mtactl.control.node.Node`: its books, gate and halts are real, its mail is not.

`python -m tests.world.memory_node SOCKET` serves one with a few campaigns on a control socket, for trying the client.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mtactl import analyst
from mtactl.campaign.analysis import Analysis
from mtactl.campaign.gate import Gate
from mtactl.campaign.halt import Halt, HaltStep
from mtactl.campaign.ledger import Account, Final, Ledger
from mtactl.campaign.state import CampaignEvent
from mtactl.campaign.state import CampaignState as GateState
from mtactl.control.server import ControlServer
from mtactl.control.types import (
    CampaignAnalysis,
    CampaignOrder,
    CampaignReport,
    CampaignState,
    Counts,
    Event,
    LaneOrder,
    LaneRow,
    QueueChanged,
    QueueMessage,
    QueueRecipient,
    QueueSelection,
    RecipientRow,
    ReloadReport,
    RequestedBy,
    Status,
    Step,
    StopFacts,
)
from mtactl.errors import UnknownCampaign
from mtactl.message.queue_id import encode
from mtactl.reports import campaign_analysis
from mtactl.settings import ControlSettings

QUEUED = frozenset({"ready", "deferred", "scheduled"})
PAGE = 500
RING = 1000
BACKLOG = 1000  # events that a reader may be behind


def wall_clock() -> int:
    """Give µs since the epoch."""
    return time.time_ns() // 1000


def rfc3339(at: int) -> str:
    """Give µs since the epoch as the API writes it."""
    return datetime.fromtimestamp(at // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{at % 1_000_000:06d}Z"


@dataclass(slots=True, kw_only=True)
class Entry:
    """A recipient. `state` is one of QUEUED, "in_flight", or the name of its outcome."""

    id: int
    message: str
    campaign: str
    sender: str
    address: str
    lane: str
    state: str
    size: int
    arrived: int
    due: int | None = None
    attempts: int = 0
    at: int = 0
    after_stop: bool = False
    code: int | None = None
    reply: str = ""
    peer: str = ""


class Follower:
    """One reader of the events. It is entered in the list of readers at once, and leaves it when it is closed."""

    def __init__(self, followers: set[Follower], backlog: Sequence[Event], *, outcomes: bool) -> None:
        self._outcomes = outcomes
        self._followers = followers
        self._waiting = deque(backlog)
        self._missed = 0
        self._arrived = asyncio.Event()
        if backlog:
            self._arrived.set()
        followers.add(self)

    def push(self, event: Event) -> None:
        if event.kind == "outcome" and not self._outcomes:
            return
        if len(self._waiting) >= BACKLOG:
            self._missed += 1
            self._waiting[-1] = Event(id=event.id, at=event.at, kind="gap", data={"missed": self._missed + 1})
        else:
            self._missed = 0
            self._waiting.append(event)
        self._arrived.set()

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> Event:
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    async def aclose(self) -> None:
        self._followers.discard(self)


class MemoryNode:
    """Implements Node. `failures` maps a verb ("halt", "hold", "queue", …) to the exception that it is to raise.

    A failing halt closes the gate and raises, as a node whose disk is broken does. `halt_gate`, when set to an
    asyncio.Event, is waited for before a halt counts as durable.
    """

    def __init__(self, *, name: str = "mx1", now: Callable[[], int] = wall_clock) -> None:
        self.name = name
        self.gate = Gate()
        self.ledger = Ledger()
        self.entries: dict[int, Entry] = {}
        self.failures: dict[str, Exception] = {}
        self.halt_gate: asyncio.Event | None = None
        self.backoff: dict[str, int] = {}
        self.followers: set[Follower] = set()
        self.streams = 0  # recipient streams that are open
        self.problems: tuple[str, ...] = ()
        self.reload_report = ReloadReport(applied=("lane",), needs_restart=())
        self.asked: list[tuple[str, RequestedBy]] = []
        self._now = now
        self._started = now()
        self._ids = itertools.count(1)
        self._event_ids = itertools.count(1)
        self._ring: deque[Event] = deque(maxlen=RING)
        self._halts: dict[str, Halt] = {}
        self._durable: set[str] = set()

    # -- the mail -------------------------------------------------------------------------------------------------

    def accept(
        self,
        campaign: str,
        recipients: Sequence[str],
        *,
        sender: str = "news@example.com",
        state: str = "ready",
        size: int = 10_240,
        due: int | None = None,
    ) -> str:
        """Take a message in; give its queue id, or "" when it was refused because the campaign is halted."""
        if self.gate.is_closed(campaign):
            self.ledger.refuse(campaign, len(recipients))
            return ""
        message = encode(next(self._ids))
        for address in recipients:
            entry = Entry(
                id=next(self._ids),
                message=message,
                campaign=campaign,
                sender=sender,
                address=address,
                lane=address.rpartition("@")[2].lower(),
                state="ready" if state == "deferred" else state,
                size=size,
                arrived=self._now(),
                due=due,
            )
            self.entries[entry.id] = entry
        self.ledger.accept(campaign, len(recipients), scheduled=len(recipients) if state == "scheduled" else 0)
        if state == "deferred":
            self.begin(campaign, len(recipients))
            for _ in recipients:
                self.defer(campaign)
        return message

    def begin(self, campaign: str, recipients: int = 1) -> int:
        """Begin transactions for up to so many ready recipients, if the gate lets them; give how many."""
        if campaign and not self.gate.lets_begin(campaign):
            return 0
        found = list(itertools.islice(self._fitting(campaign, {"ready"}), recipients))
        for entry in found:
            entry.state = "in_flight"
        self.ledger.begin(campaign, len(found))
        return len(found)

    def finish(
        self,
        campaign: str,
        outcome: Final = Final.DELIVERED,
        *,
        code: int | None = 250,
        reply: str = "2.0.0 Ok",
        peer: str = "mx.example.net[192.0.2.25]:25",
    ) -> RecipientRow:
        """Give the oldest recipient in flight its outcome."""
        entry = next(self._fitting(campaign, {"in_flight"}))
        entry.attempts += 1
        entry.code, entry.reply, entry.peer = code, reply, peer
        self._settle(entry, outcome)
        self.ledger.finish(campaign, outcome, after_stop=entry.after_stop)
        row = self._recipient_row(entry)
        self.emit("outcome", campaign=campaign or None, recipient=row.recipient, outcome=row.outcome)
        return row

    def defer(self, campaign: str, *, reply: str = "4.2.0 Try again later") -> None:
        """Let the oldest recipient in flight fail for now; of a halted campaign it is dropped."""
        entry = next(self._fitting(campaign, {"in_flight"}))
        entry.attempts += 1
        entry.code, entry.reply = 450, reply
        if self.gate.is_closed(campaign):
            self._settle(entry, Final.DROPPED)
            self.ledger.finish(campaign, Final.DROPPED, after_stop=True)
            return
        entry.state = "deferred"
        entry.due = self._now() + 60_000_000
        self.ledger.defer(campaign)

    def work(self, recipients: int = 1000) -> None:
        """Take every halt under way one step further, dropping up to so many recipients of each."""
        for campaign, halt in self._halts.items():
            if campaign not in self._durable or halt.completed_at is not None:
                continue
            if HaltStep.QUEUE_DROPPED not in halt.steps:
                self._drop(list(itertools.islice(self._fitting(campaign, QUEUED), recipients)))
            account = self.ledger.account(campaign)
            if account.queued == 0:
                self._reach(halt, HaltStep.QUEUE_DROPPED)
            if account.in_flight == 0:
                self._reach(halt, HaltStep.IN_FLIGHT_FINISHED)
            if {HaltStep.QUEUE_DROPPED, HaltStep.IN_FLIGHT_FINISHED} <= halt.steps.keys():
                self._reach(halt, HaltStep.COMPLETED)
                self.gate.move(campaign, CampaignEvent.COMPLETE)

    async def run(self, *, pace: float = 0.05, recipients: int = 1000, deliveries: int = 0) -> None:
        """Work for ever: halts go on, and each round `deliveries` recipients of each campaign are delivered."""
        while True:
            for campaign in list(self.ledger):
                for _ in range(min(self.ledger.account(campaign).in_flight, deliveries)):
                    self.finish(campaign)
                self.begin(campaign, deliveries)
            self.work(recipients)
            await asyncio.sleep(pace)

    def emit(self, kind: str, **data: Any) -> Event:
        """Tell all who follow."""
        event = Event(id=next(self._event_ids), at=rfc3339(self._now()), kind=kind, data=data)
        self._ring.append(event)
        for follower in self.followers:
            follower.push(event)
        return event

    # -- Node -----------------------------------------------------------------------------------------------------

    def status(self) -> Status:
        states = dict.fromkeys(("active", "held", "halting", "halted"), 0)
        for campaign in self._known():
            states[self.gate.state(campaign).value] += 1
        queue = dict.fromkeys(("ready", "deferred", "scheduled", "held"), 0)
        for entry in self.entries.values():
            if entry.state in QUEUED:
                queue[self._state(entry)] += 1
        lanes = self._lane_rows()
        return Status(
            node=self.name,
            version="0.1.0",
            uptime_seconds=(self._now() - self._started) / 1e6,
            health="degraded" if self.problems else "ok",
            problems=self.problems,
            totals=_counts(self.ledger.total),
            campaigns=states,
            queue=queue,
            connections=sum(lane.connections for lane in lanes),
            in_flight_transactions=self.ledger.total.in_flight,
            store_free_bytes=10 << 30,
            lanes=len(lanes),
            lanes_in_backoff=tuple(lane for lane in lanes if lane.state == "backoff"),
        )

    async def campaigns(
        self, state: CampaignState | None, *, match: str = "", sort: CampaignOrder = "name", limit: int
    ) -> tuple[Sequence[CampaignReport], int]:
        reports = [self.report(name) for name in sorted(self._known()) if match.lower() in name.lower()]
        fitting = [report for report in reports if state is None or report.state == state]
        if sort != "name":
            fitting.sort(key=lambda report: -getattr(report.counts, sort))
        return fitting[:limit], len(fitting)

    def report(self, campaign: str) -> CampaignReport:
        if campaign not in self._known():
            raise UnknownCampaign(campaign)
        halt = self._halts.get(campaign)
        return CampaignReport(
            campaign=campaign,
            node=self.name,
            state=self.gate.state(campaign).value,
            counts=_counts(self.ledger.account(campaign)),
            stop=None if halt is None else self._stop_facts(halt),
            steps=() if halt is None else self._steps(halt),
        )

    def campaign_ids(self, states: Collection[str] | None) -> Iterable[str]:
        return (name for name in self._known() if states is None or self.gate.state(name).value in states)

    async def analysis(self, campaign: str, *, wanted: Callable[[], bool]) -> CampaignAnalysis | None:
        self.report(campaign)
        self._fail("analysis")
        halt = self._halts.get(campaign)
        analysis = Analysis(None if halt is None else halt.requested_at // 1_000_000)
        live = QUEUED | {"in_flight"}
        for entry in self._fitting(campaign, live | {final.value for final in Final}):
            waits, settled = entry.state in live, entry.state not in live
            outcome = "deferred" if waits else entry.state
            analysis.add(
                waiting=[(entry.lane, entry.state == "deferred", 1)] if waits else [],
                settled=[(entry.lane, entry.state, 1)] if settled else [],
                times=[(entry.at // 1_000_000, entry.state, entry.after_stop, 1)] if settled else [],
                replies=[(outcome, entry.code, entry.reply, 1)] if settled or entry.state == "deferred" else [],
            )
        flying: dict[str, int] = {}
        for entry in self._fitting(campaign, {"in_flight"}):
            flying[entry.lane] = flying.get(entry.lane, 0) + 1
        one_in = dict.fromkeys([*(final.value for final in Final), "deferred"], 1)
        made = analyst.CampaignAnalysis(self.ledger.account(campaign), analysis, one_in)
        return campaign_analysis(campaign, made, flying)

    async def halt(self, campaign: str, *, reason: str | None, by: RequestedBy) -> CampaignReport:
        self.asked.append(("halt", by))
        halt = self._halts.get(campaign)
        self.gate.move(campaign, CampaignEvent.HALT)
        if halt is None:
            account = self.ledger.account(campaign)
            halt = self._halts[campaign] = Halt(
                campaign=campaign,
                kind="stop" if account.began else "cancel",
                reason=reason,
                requested_uid=by.uid,
                requested_user=by.user,
                requested_at=self._now(),
                queued_at_stop=account.queued,
                in_flight_at_stop=account.in_flight,
            )
            self._reach(halt, HaltStep.GATE_CLOSED)
        if self.halt_gate is not None:
            await self.halt_gate.wait()
        self._fail("halt")
        if campaign not in self._durable:
            self._durable.add(campaign)
            self._reach(halt, HaltStep.RECORDED)
            self.emit("halt", campaign=campaign, user=by.user)
        return self.report(campaign)

    async def hold(self, campaign: str, *, by: RequestedBy) -> CampaignReport:
        self.asked.append(("hold", by))
        self._fail("hold")
        self.gate.move(campaign, CampaignEvent.HOLD)
        self.emit("hold", campaign=campaign, user=by.user)
        return self.report(campaign)

    async def release(self, campaign: str, *, by: RequestedBy) -> CampaignReport:
        self.asked.append(("release", by))
        self._fail("release")
        self.report(campaign)
        self.ledger.account(campaign)  # a campaign that was held stays known
        self.gate.move(campaign, CampaignEvent.RELEASE)
        self.emit("release", campaign=campaign, user=by.user)
        return self.report(campaign)

    def recipients(
        self, campaign: str, *, outcomes: Collection[str] | None, after_stop: bool
    ) -> AsyncIterator[Sequence[RecipientRow]]:
        self.report(campaign)
        names = {final.value for final in Final} if outcomes is None else set(outcomes)
        return self._pages(campaign, names, after_stop)

    async def queue(
        self, *, campaign: str | None, domain: str | None, state: str | None, limit: int
    ) -> Sequence[QueueRecipient]:
        self._fail("queue")
        found = (
            self._queue_row(entry)
            for entry in self.entries.values()
            if (entry.state in QUEUED or entry.state == "in_flight")
            and campaign in {None, entry.campaign}
            and domain in {None, entry.lane}
            and state in {None, self._state(entry)}
        )
        return list(itertools.islice(found, limit))

    async def message(self, message: str) -> QueueMessage | None:
        self._fail("message")
        entries = [entry for entry in self.entries.values() if entry.message == message]
        if not entries:
            return None
        live = QUEUED | {"in_flight"}
        return QueueMessage(
            message=message,
            waiting=tuple(self._queue_row(entry) for entry in entries if entry.state in live),
            settled=tuple(self._recipient_row(entry) for entry in entries if entry.state not in live),
        )

    async def retry(self, selection: QueueSelection, *, by: RequestedBy) -> QueueChanged:
        self.asked.append(("retry", by))
        self._fail("retry")
        found = [entry for entry in self._selected(selection) if entry.state == "deferred"]
        for entry in found:
            entry.state, entry.due = "ready", None
            self.ledger.promote(entry.campaign, deferred=1, scheduled=0)
            self.backoff.pop(entry.lane, None)
        self.emit("retry", recipients=len(found), user=by.user)
        return QueueChanged(recipients=len(found))

    async def drop(self, selection: QueueSelection, *, by: RequestedBy) -> QueueChanged:
        self.asked.append(("drop", by))
        self._fail("drop")
        found = [entry for entry in self._selected(selection) if entry.state in QUEUED]
        self._drop(found)
        self.emit("drop", recipients=len(found), user=by.user)
        return QueueChanged(recipients=len(found))

    def lanes(
        self, lane: str | None, *, match: str = "", sort: LaneOrder = "name", limit: int
    ) -> tuple[Sequence[LaneRow], int]:
        rows = [row for row in self._lane_rows() if lane in {None, row.lane} and match in row.lane]
        if sort == "backoff":
            rows.sort(key=lambda row: row.backoff_until or "", reverse=True)
        elif sort != "name":
            rows.sort(key=lambda row: -getattr(row, sort))
        return rows[:limit], len(rows)

    def _lane_rows(self) -> list[LaneRow]:
        rows: dict[str, dict[str, int]] = {}
        for entry in self.entries.values():
            row = rows.setdefault(entry.lane, dict.fromkeys(("ready", "in_flight", "delivered", "bounced"), 0))
            if entry.state in row:
                row[entry.state] += 1
        return [
            LaneRow(
                lane=name,
                state="backoff" if name in self.backoff else "open" if row["in_flight"] else "idle",
                connections=min(row["in_flight"], 20),
                max_connections=20,
                in_flight=row["in_flight"],
                window=row["ready"],
                rate=None,
                delivered=row["delivered"],
                deferred=0,
                bounced=row["bounced"],
                backoff_until=rfc3339(self.backoff[name]) if name in self.backoff else None,
                last_reply="450 4.2.0 Try again later" if name in self.backoff else "",
            )
            for name, row in sorted(rows.items())
        ]

    def recent_events(self) -> Sequence[Event]:
        return list(self._ring)

    def follow_events(self, after: int | None, *, outcomes: bool = True) -> AsyncIterator[Event]:
        last = self._ring[-1].id if self._ring else 0
        start = last if after is None else after if after <= last else 0
        backlog = [event for event in self._ring if event.id > start]
        return Follower(self.followers, backlog, outcomes=outcomes)

    async def reload(self, *, by: RequestedBy) -> ReloadReport:
        self.asked.append(("reload", by))
        self._fail("reload")
        self.emit("reload", user=by.user)
        return self.reload_report

    # -- inside ---------------------------------------------------------------------------------------------------

    def _fail(self, verb: str) -> None:
        if verb in self.failures:
            raise self.failures[verb]

    def _known(self) -> set[str]:
        return ({*self.ledger, *self.gate.held(), *self._halts}) - {""}

    def _fitting(self, campaign: str, states: Collection[str]) -> Iterator[Entry]:
        return (entry for entry in self.entries.values() if entry.campaign == campaign and entry.state in states)

    def _selected(self, selection: QueueSelection) -> Iterator[Entry]:
        return (
            entry
            for entry in self.entries.values()
            if selection.campaign in {None, entry.campaign}
            and selection.domain in {None, entry.lane}
            and selection.sender in {None, entry.sender}
            and selection.id in {None, entry.message}
        )

    def _settle(self, entry: Entry, outcome: Final) -> None:
        entry.state = outcome.value
        entry.at = self._now()
        entry.due = None
        entry.after_stop = self.gate.is_closed(entry.campaign)

    def _drop(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            states = {name: int(entry.state == name) for name in QUEUED}
            self._settle(entry, Final.DROPPED)
            self.ledger.remove(entry.campaign, Final.DROPPED, **states)

    def _reach(self, halt: Halt, step: HaltStep) -> None:
        if step not in halt.steps:
            halt.reach(step, self._now())
            self.emit("halt_step", campaign=halt.campaign, step=step.value)

    async def _pages(
        self, campaign: str, outcomes: set[str], after_stop: bool
    ) -> AsyncIterator[Sequence[RecipientRow]]:
        self.streams += 1
        try:
            rows = (self._recipient_row(entry) for entry in list(self._fitting(campaign, outcomes)))
            wanted = (row for row in rows if row.after_stop or not after_stop)
            while page := list(itertools.islice(wanted, PAGE)):
                await asyncio.sleep(0)
                self._fail("recipients")
                yield page
        finally:
            self.streams -= 1

    def _state(self, entry: Entry) -> Any:
        held = entry.state in QUEUED and self.gate.state(entry.campaign) is GateState.HELD
        return "held" if held else entry.state

    def _queue_row(self, entry: Entry) -> QueueRecipient:
        return QueueRecipient(
            message=entry.message,
            campaign=entry.campaign or None,
            sender=entry.sender,
            recipient=entry.address,
            lane=entry.lane,
            state=self._state(entry),
            attempts=entry.attempts,
            size=entry.size,
            arrived_at=rfc3339(entry.arrived),
            due_at=None if entry.due is None else rfc3339(entry.due),
            last_reply="" if entry.code is None else f"{entry.code} {entry.reply}",
        )

    def _recipient_row(self, entry: Entry) -> RecipientRow:
        outcome: Any = entry.state
        return RecipientRow(
            recipient=entry.address,
            outcome=outcome,
            after_stop=entry.after_stop,
            at=rfc3339(entry.at),
            message=entry.message,
            attempts=entry.attempts,
            code=entry.code,
            reply=entry.reply,
            peer=entry.peer,
            lane=entry.lane,
        )

    def _stop_facts(self, halt: Halt) -> StopFacts:
        kind: Any = halt.kind
        return StopFacts(
            kind=kind,
            reason=halt.reason,
            requested_by=RequestedBy(uid=halt.requested_uid, user=halt.requested_user),
            requested_at=rfc3339(halt.requested_at),
            queued_at_stop=halt.queued_at_stop,
            in_flight_at_stop=halt.in_flight_at_stop,
            completed_at=None if halt.completed_at is None else rfc3339(halt.completed_at),
        )

    def _steps(self, halt: Halt) -> tuple[Step, ...]:
        account = self.ledger.account(halt.campaign)
        progress = {
            HaltStep.QUEUE_DROPPED: halt.queue_dropped(account.queued),
            HaltStep.IN_FLIGHT_FINISHED: halt.in_flight_finished(account.in_flight),
        }
        steps = []
        for step in HaltStep:
            at = rfc3339(halt.steps[step]) if step in halt.steps else None
            if step in progress:
                done, total = progress[step]
                steps.append(Step(name=step.value, at=at, done=done, total=total))
            else:
                steps.append(Step(name=step.value, at=at))
        return tuple(steps)


def _counts(account: Account) -> Counts:
    return Counts(**{name: getattr(account, name) for name in Counts.__struct_fields__})


def fill(node: MemoryNode, *, recipients: int = 5000) -> MemoryNode:
    """Give the node something to show: an active, a held and a finished campaign, mail of none, a lane in back-off."""
    for campaign in ("autumn-sale", "2026/11/newsletter", "welcome@shop"):
        for number in range(recipients // 10):
            domain = ("example.com", "example.net", "example.org")[number % 3]
            node.accept(campaign, [f"r{number}-{copy}@{domain}" for copy in range(10)])
    node.accept("", ["postmaster@example.com"], sender="")
    node.accept("", ["later@slow.example"], state="deferred")
    node.backoff["slow.example"] = wall_clock() + 60_000_000
    node.begin("welcome@shop", 10)
    for _ in range(10):
        node.finish("welcome@shop")
    node.gate.move("welcome@shop", CampaignEvent.HOLD)
    return node


async def serve(path: Path, *, recipients: int) -> None:
    """Serve a filled node on a control socket until SIGINT or SIGTERM."""
    node = fill(MemoryNode(), recipients=recipients)
    server = ControlServer(node, ControlSettings(socket=path))
    await server.start()
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    print(f"serving on {path}", flush=True)
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(node.run(pace=0.2, recipients=1000, deliveries=5))
            await stopped.wait()
            running.cancel()
    finally:
        await server.stop()


def main() -> None:
    """Run `serve` with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket", type=Path)
    parser.add_argument("--recipients", type=int, default=5000, help="of each campaign")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(arguments.socket, recipients=arguments.recipients))


if __name__ == "__main__":
    main()
