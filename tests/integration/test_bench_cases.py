"""Each case of `make bench` that needs no Postfix, with next to no load: that it runs, and gives what it promises."""

from __future__ import annotations

import asyncio
import math
import socket
import tempfile
import threading
from collections import Counter
from pathlib import Path

import pytest

from queue_store.store import QueueStore
from tests.bench import growth, halting, halts, memory, queue_fill, slow_peers, startup
from tests.bench.halts import Dropping, Halted, follow, quantile
from tests.bench.pictures import draw_halt
from tests.bench.queue_fill import LARGE, Queue, campaign_of, copy_queue, disk_usage, domain_of
from tests.bench.recording_peer import Commands, recording_peer
from tests.bench.results import CaseResult, Results
from tests.bench.table import mark_of
from tests.world.record import Record


@pytest.fixture
def run(monkeypatch):
    """Give a function that runs a case and gives its figures by what they tell; nothing of it may stay on the disk."""
    make, made = tempfile.mkdtemp, []

    def make_and_note(*args, **how):
        made.append(Path(make(*args, **how)))
        return str(made[-1])

    def run_case(case, scale):
        monkeypatch.setattr(tempfile, "mkdtemp", make_and_note)
        figures = list(case.measure(scale, lambda _: None))
        assert [path for path in made if path.exists() and "queues" not in path.name] == []
        assert all(math.isfinite(each.value) and each.value >= 0 for each in figures)
        found = {each.what: each for each in figures}
        assert len(found) == len(figures), "two figures of the same name"
        return found

    return run_case


@pytest.mark.needs("smtp-source", "postfix")
def test_halts(monkeypatch, run):
    """If it failed, nobody would know what a halt costs, or whether anything begins after its answer."""
    monkeypatch.setattr(halting, "QUEUED", (100_000,))
    monkeypatch.setattr(halting, "PAUSE", 0.05)
    figures = run(halting, 0.004)
    for state in ("idle", "full load"):
        name = f"400 queued, {state}"
        answered = figures[f"{name}: halt of half of them answered"]
        assert 0 < answered.value < 5_000 and (answered.must, answered.aim) == (50.0, 10.0)
        assert figures[f"{name}: halts of small campaigns answered, median"].samples
        completed = figures[f"{name}: half of them dropped, completed"]
        assert 0 < completed.value < 60 and completed.at == 400.0 and completed.must == 30.0
    begun = next(each for what, each in figures.items() if "begun after the answer" in what)
    assert begun.value == 0 and mark_of(begun) == "aim"
    assert len(figures["400 queued, full load: halts answered, p99"].samples) == 2
    assert "200 dropped" in figures["400 queued, idle: half of them dropped, completed"].note
    assert figures["other campaigns, without the large one"].value > 0
    assert figures["other campaigns while half of the queue is dropped"].must == 80.0
    results = Results({}, {"halts": CaseResult(at="2026-11-23T06:00:00Z", scale=1.0, figures=list(figures.values()))})
    pytest.importorskip("matplotlib")
    lines = draw_halt(results).axes[0].get_lines()
    assert [list(line.get_xdata()) for line in lines] == [[400.0], [400.0]], "dropped, and answered"


def test_memory(monkeypatch, run):
    """If it failed, a queue in memory would be noticed where the machine runs out of it."""
    monkeypatch.setattr(memory, "QUEUED", (100_000, 1_000_000))
    figures = run(memory, 0.0004)
    few, many = (figures[f"{queued} queued: memory (RSS)"] for queued in (100, 400))
    assert 10 < few.value < 1_000 and 10 < many.value < 1_000
    assert (few.must, many.must, many.aim) == (None, 250.0, 150.0)
    assert figures["400 queued: memory at its peak, the start included"].value >= many.value


def test_startup(run):
    """If it failed, nobody would know how long an upgrade or a crash keeps mail waiting."""
    figures = run(startup, 0.0001)
    for way, goal in (("an orderly end", 5.0), ("kill -9", None), ("an orderly end, nothing in the page cache", None)):
        first = figures[f"5,000 queued, after {way}: exec to the first delivery"]
        assert 0 < first.value < 60 and first.must == goal
        assert figures[f"5,000 queued, after {way}: exec to ready"].value > 0


def test_slow_peers(run):
    """If it failed, nobody would know whether thousands of slow destinations hold up all others."""
    figures = run(slow_peers, 0.002)
    assert figures["connections open, mean"].value > 5
    assert 0 < figures["share of the arithmetic limit"].value < 110
    lag = figures["event-loop lag with slow peers, p99"]
    assert (lag.must, lag.aim) == (25.0, 5.0) and lag.value > 0


def test_growth(monkeypatch, run):
    """If it failed, a cost that grows with campaigns or domains would be found by those who have many."""
    monkeypatch.setattr(growth, "NUMBERS", (100,))
    figures = run(growth, 0.001)
    for way in ("end to end", "out only"):
        for what in ("campaigns", "domains"):
            assert figures[f"{way}, 100 {what}: CPU a message"].value > 0


def test_growth_is_told_as_a_ratio(monkeypatch, run):
    """If it failed, the one number that must stay flat would be missing, or wrong."""
    for run_one in ("run_through", "run_out"):
        monkeypatch.setattr(growth, run_one, lambda queue, tell, *, lane: (queue.campaigns * queue.domains, 1.0))
    figures = run(growth, 1.0)
    for way in ("end to end", "out only"):
        for what in ("campaigns", "domains"):
            assert [figures[f"{way}, {number:,} {what}: CPU a message"].at for number in growth.NUMBERS]
            assert figures[f"{way}, 100,000 {what} against 10: CPU a message"].value == 10_000


def test_queues_grow_out_of_smaller_ones(tmp_path):
    """If it failed, the queues of millions would not be what the figures say of them."""
    small = Queue(recipients=400, campaigns=5, domains=20, small=3)
    larger = Queue(recipients=1_000, campaigns=5, domains=20, small=3)
    told = []
    copy_queue(small, tmp_path / "a", told.append)
    store = copy_queue(larger, tmp_path / "b", told.append)
    assert told[2] == "600 recipients are being queued"
    copy_queue(larger, tmp_path / "c", told.append)
    assert len(told) == 4, "it was there"
    assert disk_usage(store) > 1_000 * queue_fill.SIZE

    async def count():
        opened = await QueueStore.open(store)
        try:
            claims = []
            for lane in sorted({domain_of(larger, number) for number in range(larger.recipients)}):
                claims += (await opened.claim(lane, limit=1_000, cursor=0)).claims
            return Counter(claim.message.campaign for claim in claims), len({claim.lane for claim in claims})
        finally:
            await opened.close()

    campaigns, lanes = asyncio.run(count())
    assert campaigns == Counter(campaign_of(larger, number) for number in range(larger.recipients))
    assert campaigns[LARGE] == 500 and sum(campaigns[f"small-{number}"] for number in range(3)) == 100
    assert lanes == 20


def test_a_queue_that_can_not_be_filled_is_said(tmp_path, monkeypatch):
    """If it failed, a full disk would be measured as an empty queue."""
    monkeypatch.setattr(queue_fill.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="could not be filled"):
        copy_queue(Queue(recipients=10), tmp_path, lambda _: None)


def test_the_record_of_the_peer(tmp_path):
    """If it failed, transactions after the answer could go unseen, and the most important figure would be wrong."""
    with recording_peer(tmp_path / "record") as peer:
        with socket.create_connection(("127.0.0.1", peer.port), 5) as client:
            commands = b"EHLO x\r\nMAIL FROM:<bounce+spring+7@x.example>\r\nRCPT TO:<r@y.example>\r\nDATA\r\n"
            client.sendall(commands + b"text\r\n.\r\nMAIL FROM:<bounce+autumn+8@x.example>\r\nQUIT\r\n")
            while client.recv(4_096):
                pass
        count = peer.count()
    assert count.taken == 1 and 0 < count.first <= count.at
    taken, left = Record(tmp_path / "record").transactions
    assert (taken.campaign, taken.key, taken.code, taken.recipients) == ("spring", 7, 250, {"r@y.example": 250})
    assert taken.began <= (taken.ended or 0) <= left.began
    assert (left.campaign, left.code, left.lost) == ("autumn", None, True)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
def test_commands_come_in_any_pieces(size):
    """If it failed, the peer would take a message's text for commands, and count what was never sent."""
    octets = b"EHLO x\r\ndata\r\nMAIL\r\n..\r\n.\r\nDATA\r\n.\r\nQUIT\r\n"
    commands = Commands()
    pieces = [octets[at : at + size] for at in range(0, len(octets), size)]
    found = [each for piece in pieces for each in commands.feed(piece)]
    assert found == [b"EHLO x", b"data", None, b"DATA", None, b"QUIT"]


class Node:
    """Answers as a node whose drop takes so many looks."""

    def __init__(self, looks):
        self.looks = looks

    def report(self, campaign):
        self.looks -= 1
        counts = dict.fromkeys(("queued", "in_flight", "delivered", "bounced", "expired", "unknown"), 0)
        counts.update(accepted=5, dropped=5, delivered_after_stop=0)
        return {"state": "halting" if self.looks > 0 else "halted", "counts": counts, "stop": {"in_flight_at_stop": 1}}


def test_space_that_does_not_come_back_is_said(tmp_path, monkeypatch):
    """If it failed, the benchmark would wait for ever, or say of a disk that stays full that it is empty."""
    store = tmp_path / "store"
    store.write_bytes(b"")
    monkeypatch.setattr(halts, "SPACE_PATIENCE", 0.2)
    monkeypatch.setattr(halts, "_LOOK_AT_DISK", 0.05)
    halted = Halted("c", halts.time.monotonic_ns(), halts.time.monotonic_ns())
    gone = []
    dropping = follow(Node(3), tmp_path, halted, 1_000, 1_000, meanwhile=lambda: gone.append(1))
    assert dropping.has_returned and dropping.dropped == 5 and dropping.in_flight == 1 and gone
    (tmp_path / "kept").write_bytes(b"x" * 100_000)
    dropping = follow(Node(1), tmp_path, halted, 110_000, 100_000)
    assert not dropping.has_returned and dropping.share_returned < 0.2 and dropping.returned_after >= 0.2
    threading.Timer(0.05, (tmp_path / "kept").unlink).start()
    late = follow(Node(1), tmp_path, Halted("c", halts.time.monotonic_ns(), 0), 110_000, 100_000)
    assert late.has_returned
    assert Dropping(halted).share_returned == 0.0


def test_quantile():
    """If it failed, the p99 of the answers would be told wrong."""
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0 and quantile([1.0], 0.99) == 1.0
    assert math.isclose(quantile(list(map(float, range(101))), 0.99), 99.0)
