"""What an attempt comes to, what the next one does, what a halt reports: the table of world/receiver_cells.py.

All rows run at once, each with a receiver, a lane and a campaign of its own, so that their time-outs pass together.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import trustme

from tests.world.application import inject, message
from tests.world.daemon import Daemon, check_law, daemon
from tests.world.hostile_peer import FEATURES, run_hostile_peer
from tests.world.operator import log_lines
from tests.world.receiver_cells import AFTER, BEFORE_MAIL, CELLS, Cell

NAMES = ("a", "b", "c")
TIMEOUTS = ("connect", "greeting", "ehlo", "starttls", "mail", "rcpt", "data", "data_block", "data_end", "quit")
SLOW = ("data_block", "data_end")
BODIES = {"small": b"one line\r\n", "big": (b"x" * 998 + b"\r\n") * 4000, "8-bit": "größer\r\n".encode()}
STEPS = ["gate_closed", "recorded", "queue_dropped", "in_flight_finished", "completed"]
PATIENCE = 100.0  # seconds

# What a halt between two attempts makes of what the first one was (CONTRACT.md §1, §2).
BETWEEN = {
    "waits": "dropped",
    "lost": "dropped",
    "unsure": "unknown",
    "later": "dropped",
    "never": "bounced",
    "taken": "delivered",
}


class Trial:
    """A row of the table with its receiver, its lane, and its campaign, whose name is the lane's."""

    def __init__(self, cell: Cell, peer, lane: str) -> None:
        self.cell = cell
        self.peer = peer
        self.lane = lane
        self.loop = asyncio.get_running_loop()  # the receiver's
        self.began = 0  # transactions, when the halt was answered

    def inject(self, port: int) -> None:
        content = self.cell.content
        code, text = inject(
            port,
            *(f"{name}@{self.lane}" for name in NAMES),
            data=message(self.lane, body=BODIES.get(content, BODIES["small"])),
            sender="größer@news.example" if content == "smtputf8" else "a@news.example",
            mail={"8-bit": ("BODY=8BITMIME",), "smtputf8": ("SMTPUTF8",)}.get(content, ()),
        )
        assert code == 250, text


@contextlib.asynccontextmanager
async def trials(folder, groups, *, seconds: float, retry: str):
    """Run a receiver for each row of the groups (name, cells, whether held), and a daemon with a lane for each."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("peer.test").configure_cert(context)
    async with contextlib.AsyncExitStack() as stack:
        all_trials = []
        lines = [f'[delivery]\nretry = ["{retry}"]\nidle_connection = "2s"\n[delivery.timeouts]']
        # A large message takes its time where a receiver does not go wrong and the machine is busy.
        lines += [f'{name} = "{max(seconds, 12) if name in SLOW else seconds}s"' for name in TIMEOUTS]
        for group, cells, held in groups:
            for number, cell in enumerate(cells):
                left_out = {"SIZE 10"}
                if not cell.pipelining:
                    left_out.add("PIPELINING")
                if cell.stage not in ("starttls", "tls", "tls-ehlo"):
                    left_out.add("STARTTLS")
                offers = set(FEATURES) - left_out
                peer = await stack.enter_async_context(
                    run_hostile_peer(cell.stage, cell.manner, offers, context, held=held)
                )
                trial = Trial(cell, peer, f"{group}{number}.{cell.stage}.example")
                all_trials.append(trial)
                lines += [f'[lane."{trial.lane}"]', f'route = ["127.0.0.1:{peer.port}"]']
        lane = f'max_connections = 1\nbackoff = ["{retry}"]'
        node = stack.enter_context(daemon(folder, lane=lane, extra="\n".join(lines)))
        yield node, all_trials


async def each(of: list[Trial], do) -> list:
    """Do something that blocks for each trial, some at a time."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(4) as pool:
        return await asyncio.gather(*(loop.run_in_executor(pool, do, trial) for trial in of))


async def reports_when(node: Daemon, holds, of: list[Trial], told) -> dict[str, dict]:
    """Look at all campaigns until a condition holds for each; the law holds all the time."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        reports = {}
        for report in (await asyncio.to_thread(node.call, "GET", "/v1/campaigns"))[1]["campaigns"]:
            check_law(report["counts"])
            reports[report["campaign"]] = report
        missing = [trial for trial in of if not holds(reports[trial.lane])]
        if not missing:
            return reports
        assert asyncio.get_running_loop().time() < deadline, [(each.cell.name, told(each)) for each in missing]
        await asyncio.sleep(0.2)


def is_over(report: dict) -> bool:
    return report["counts"]["queued"] + report["counts"]["in_flight"] == 0


async def test_what_an_attempt_comes_to_and_what_the_next_one_does(tmp_path):
    """If it failed, a broken mail server elsewhere would lose mail here, double it, or bounce it for no good reason."""
    async with trials(tmp_path, [("t", CELLS, False)], seconds=5, retry="0.3s") as (node, all_trials):
        await each(all_trials, lambda trial: trial.inject(node.smtp_port))
        connecting = [trial for trial in all_trials if trial.cell.stage == "connect"]
        await _until_told_of(node, connecting)
        for trial in connecting:
            await trial.peer.mend()
        await reports_when(node, is_over, all_trials, lambda trial: trial.peer.asked)
        assert await asyncio.to_thread(node.stop) == 0
    assert node.fsck().returncode == 0, node.fsck().stdout
    told = _by(log_lines(node, "outcome"), "campaign")
    backoffs = _by(log_lines(node, "lane backs off"), "lane")
    wrong = {}
    for trial in all_trials:
        complaints = list(_judge_attempts(trial, told.get(trial.lane, []), backoffs.get(trial.lane, [])))
        if complaints:
            wrong[trial.cell.name] = complaints
    assert not wrong, _in_lines(wrong)


def _in_lines(wrong: dict[str, list[str]]) -> str:
    return "\n".join(f"{name}: {'; '.join(complaints)}" for name, complaints in wrong.items())


async def _until_told_of(node: Daemon, of: list[Trial]) -> None:
    missing = {trial.lane for trial in of}
    for _ in range(500):
        missing -= {line["lane"] for line in log_lines(node, "lane backs off")}
        if not missing:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(missing)


def _by(lines: list[dict], key: str) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for line in lines:
        found.setdefault(line[key], []).append(line)
    return found


def _judge_attempts(trial: Trial, lines: list[dict], backoffs: list[dict]):
    cell, peer = trial.cell, trial.peer
    attempts = {name: [line for line in lines if line["recipient"] == f"{name}@{trial.lane}"] for name in NAMES}
    for name, first in zip(NAMES, cell.first, strict=True):
        seen = [_token(line) for line in attempts[name]]
        due = ([] if first == "waits" else [_shown(first)]) + _next(name, first)
        if seen != due:
            yield f"{name}: {seen}, not {due}"
        if [line["attempts"] for line in attempts[name]] != list(range(1, len(seen) + 1)):
            yield f"{name}: attempts are counted as {[line['attempts'] for line in attempts[name]]}"
        delivered = int(due[-1] == "taken")
        if peer.delivered[name] != delivered:
            yield f"{name}: the receiver took it {peer.delivered[name]} times"
    waits = cell.first[0] == "waits"
    said = [line["reply"] for line in (backoffs if waits else attempts["a"])[:1]]
    if not said or cell.said not in said[0]:
        yield f"told: {said}"
    if bool(backoffs) is not (waits or "lost" in cell.first or "unsure" in cell.first):
        yield f"back-off: {backoffs}"
    if cell.stage in BEFORE_MAIL and cell.first == ("taken", "never", "later"):
        began = [any(line.startswith(b"MAIL") for line in talk.heard) for talk in peer.conversations]
        if began.index(True) + 1 != cell.connections:
            yield f"MAIL was said on connection {began.index(True) + 1}, not on {cell.connections}"


def _token(line: dict) -> str:
    kind, code = line["outcome"], line["code"]
    if kind == "deferred":
        return "lost" if code is None else "later"
    return {"delivered": "taken", "bounced": "never"}[kind]


def _shown(first: str) -> str:
    return "lost" if first == "unsure" else first


def _next(name: str, first: str) -> list[str]:
    """Give what the attempts after the first one are, now that the receiver behaves."""
    if first in ("never", "taken"):
        return []
    if name == "b":
        return ["never"]
    return ["later", "taken"] if name == "c" and first == "waits" else ["taken"]


async def test_what_a_halt_reports(tmp_path):
    """If it failed, a report would call mail dropped that may have arrived, or unknown that certainly did not."""
    once = [cell for cell in CELLS if cell.pipelining and cell.stage not in ("starttls", "tls", "tls-ehlo", *AFTER)]
    once = [cell for cell in once if cell.first[0] != "waits" or cell.manner == "hangs up"]  # the others are alike
    groups = [("during", CELLS, True), ("between", once, False)]
    async with trials(tmp_path, groups, seconds=10, retry="1h") as (node, all_trials):
        during, between = all_trials[: len(CELLS)], all_trials[len(CELLS) :]
        answers = await each(during, lambda trial: _halt_at_stage(node, trial))
        wrong = {}
        for trial, answer in zip(during, answers, strict=True):
            complaints = list(_judge_answer(trial.cell, answer))
            if complaints:
                wrong[trial.cell.name] = complaints
        await each(between, lambda trial: trial.inject(node.smtp_port))

        def is_tried(report: dict) -> bool:
            return report["counts"]["in_flight"] == 0

        await _until_tried(node, between)
        await reports_when(node, is_tried, between, lambda trial: trial.peer.asked)
        await each(between, lambda trial: _halt(node, trial))
        reports = await reports_when(node, lambda report: report["state"] == "halted", all_trials, lambda trial: "")
        rows = await each(all_trials, lambda trial: node.recipients(trial.lane))
        for trial, outcomes in zip(all_trials, rows, strict=True):
            judge = _judge_halt if trial in during else _judge_halt_between
            complaints = list(judge(trial, reports[trial.lane], outcomes))
            if complaints:
                wrong.setdefault(f"{trial.lane} {trial.cell.name}", []).extend(complaints)
        assert await asyncio.to_thread(node.stop) == 0
        # Nothing began since the answers.
        begun = {trial.cell.name: trial.peer.began - trial.began for trial in all_trials}
        assert not {name: number for name, number in begun.items() if number}
    assert not wrong, _in_lines(wrong)
    assert node.fsck().returncode == 0, node.fsck().stdout


def _halt_at_stage(node: Daemon, trial: Trial) -> dict:
    """Halt as soon as the receiver is at its stage, then let it go on; give the answer. Blocks."""
    trial.inject(node.smtp_port)
    deadline = time.monotonic() + PATIENCE
    while not trial.peer.there:
        assert time.monotonic() < deadline, trial.cell.name
        time.sleep(0.01)
    answer = _halt(node, trial)
    trial.loop.call_soon_threadsafe(trial.peer.let_go)
    return answer


async def _until_tried(node: Daemon, of: list[Trial]) -> None:
    """Wait until the first attempt for each is over: there is a word on it in the log."""
    missing = {trial.lane for trial in of}
    for _ in range(int(PATIENCE * 5)):
        missing -= {line["lane"] for line in log_lines(node) if line["event"] in ("outcome", "lane backs off")}
        if not missing:
            return
        await asyncio.sleep(0.2)
    raise AssertionError(missing)


def _halt(node: Daemon, trial: Trial) -> dict:
    answer, _, _ = node.halt(trial.lane)
    trial.began = trial.peer.began
    return answer


def _judge_answer(cell: Cell, answer: dict):
    """Judge what a halt is answered while the receiver is at its stage."""
    check_law(answer["counts"])
    stop = answer["stop"]
    flying = 0 if cell.stage in BEFORE_MAIL or cell.stage in AFTER else 3
    queued = {**dict.fromkeys(BEFORE_MAIL, 3), **dict.fromkeys(AFTER, 1)}.get(cell.stage, 0)
    seen = stop["kind"], stop["in_flight_at_stop"], stop["queued_at_stop"]
    if seen != ("cancel" if cell.stage in BEFORE_MAIL else "stop", flying, queued):
        yield f"answered: {seen}"
    if answer["counts"]["in_flight"] != flying:
        yield f"in flight: {answer['counts']}"
    if [step["name"] for step in answer["steps"]] != STEPS or not all(step["at"] for step in answer["steps"][:2]):
        yield f"steps: {answer['steps']}"
    if flying and (answer["state"] != "halting" or answer["steps"][3]["at"] or answer["steps"][4]["at"]):
        yield f"completed, though {flying} are in flight"


def _judge_halt(trial: Trial, report: dict, outcomes: list[dict]):
    """Judge the end of a halt that came while the receiver was at its stage."""
    cell = trial.cell
    open_then = cell.stage not in BEFORE_MAIL and cell.stage not in AFTER
    # What was settled before the stop is not after it: a and b, where the transaction was over.
    after = [True, True, True] if cell.stage not in AFTER else [False, False, True]
    yield from _judge_report(trial, report, outcomes, cell.halt, after)
    finished = report["steps"][3]
    if (finished["done"], finished["total"]) != ((3, 3) if open_then else (0, 0)):
        yield f"in_flight_finished: {finished}"
    if trial.peer.delivered["a"] != (cell.halt[0] == "delivered"):
        yield f"the receiver took it {trial.peer.delivered['a']} times"


def _judge_halt_between(trial: Trial, report: dict, outcomes: list[dict]):
    """Judge a halt that came after the first attempt."""
    expected = [BETWEEN[first] for first in trial.cell.first]
    after = [outcome in ("dropped", "unknown") for outcome in expected]
    yield from _judge_report(trial, report, outcomes, expected, after)
    kind = (
        "cancel"
        if "waits" in trial.cell.first or (trial.cell.stage == "ehlo" and trial.cell.first[0] == "never")
        else "stop"
    )
    if (report["stop"]["kind"], report["stop"]["in_flight_at_stop"]) != (kind, 0):
        yield f"stop: {report['stop']}"


def _judge_report(trial: Trial, report: dict, outcomes: list[dict], expected, after):
    counts = report["counts"]
    check_law(counts)
    seen = {row["recipient"].partition("@")[0]: (row["outcome"], row["after_stop"]) for row in outcomes}
    due = {name: (what, late) for name, what, late in zip(NAMES, expected, after, strict=True)}
    if seen != due or len(outcomes) != 3:
        yield f"{seen}, not {due}"
    tally = Counter(expected)
    for what in ("delivered", "bounced", "dropped", "unknown", "expired"):
        if counts[what] != tally[what]:
            yield f"{what}: {counts[what]}, not {tally[what]}"
    late = sum(is_late for what, is_late in zip(expected, after, strict=True) if what == "delivered")
    if counts["delivered_after_stop"] != late:
        yield f"delivered after the stop: {counts['delivered_after_stop']}, not {late}"
    if not all(step["at"] for step in report["steps"]) or report["stop"]["completed_at"] is None:
        yield f"steps: {report['steps']}"


@pytest.mark.parametrize(
    ("manner", "first", "retry"),
    [
        # It asks to be left alone (§3.8), so it is tried again when the schedule says.
        ("421 4.7.0 enough for one connection", "later", "0.3s"),
        # It had closed an idle session as we began: no failure of this recipient, and tried again at once.
        ("hangs up", "lost", "1h"),
        ("resets", "lost", "1h"),
    ],
)
async def test_a_session_that_ends_as_the_next_message_begins(tmp_path, manner, first, retry):
    """If it failed, mail would wait for an hour because a receiver limits the messages of a connection."""
    cell = Cell(stage="again", manner=manner, first=(first,) * 3, said="", halt=("", "", ""))
    async with trials(tmp_path, [("t", [cell], False)], seconds=20, retry=retry) as (node, (trial,)):
        for name, attempts in (("d", ["taken"]), ("e", [first, "taken"])):
            answer = await asyncio.to_thread(inject, node.smtp_port, f"{name}@{trial.lane}", campaign=trial.lane)
            assert answer[0] == 250
            await reports_when(node, is_over, [trial], lambda trial: trial.peer.asked)
            await _until_told(node, f"{name}@{trial.lane}", len(attempts))
            told = [line for line in log_lines(node, "outcome") if line["recipient"].startswith(name)]
            assert [_token(line) for line in told] == attempts
            assert trial.peer.delivered[name] == 1
        assert len(trial.peer.conversations) == 2


async def _until_told(node: Daemon, recipient: str, times: int) -> None:
    for _ in range(200):
        if sum(line["recipient"] == recipient for line in log_lines(node, "outcome")) >= times:
            return
        await asyncio.sleep(0.05)


def test_the_table_covers_what_it_must():
    """If it failed, a stage or a manner of the issue would be tested no more."""
    assert len(CELLS) >= 60
    stages = {cell.stage for cell in CELLS}
    assert stages >= {"connect", "banner", "ehlo", "starttls", "tls", "mail", "rcpt", "data", "body", "dot", "quit"}
    assert len({cell.name for cell in CELLS}) == len(CELLS)


pytestmark = pytest.mark.timeout(240)
