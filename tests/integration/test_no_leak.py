"""No leak: what the world sees begin after a halt was answered. Real daemon, real sockets, a witness outside."""

from __future__ import annotations

import asyncio
import random
import socket
import time

import pytest

from tests.world.daemon import check_law, daemon, free_port, peer_world
from tests.world.injector import Injector
from tests.world.newsletter import Mail, short_mails
from tests.world.operator import metrics

RUNS = 10  # for each of pipelining on and off
DOMAINS = (*("fast.example",) * 6, "limited.example", "dead.example", "connecting.example", "other.example")

LANES = """
[lane."limited.example"]
rate = "20/s"
[lane."dead.example"]
route = ["127.0.0.1:{dead}"]
[lane."connecting.example"]
route = ["127.0.0.1:{tarpit}"]
[delivery]
retry = ["1s"]
"""


def mails(campaign: str, count: int) -> list[Mail]:
    return list(short_mails(campaign, count, domains=DOMAINS))


async def inject_others(injector: Injector, stop: asyncio.Event) -> None:
    """Keep the daemon at full throttle with another campaign."""

    def endless():
        number = 0
        while not stop.is_set():
            yield from short_mails(f"others-{number}", 200, domains=("fast.example",))
            number += 1

    await injector.inject(endless())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelining", "one at a time"])
async def test_nothing_begins_after_the_answer(tmp_path, pipelining):
    """The one promise: 0 transactions of the campaign begin after `halt` was answered."""
    rng = random.Random(7)
    latency = {"*": {"latency": 0.06}}  # slow enough that full throttle is all of the connections
    with socket.create_server(("127.0.0.1", 0)) as tarpit, peer_world(tmp_path / "world", latency) as world:
        lanes = LANES.format(dead=free_port(), tarpit=tarpit.getsockname()[1])
        with daemon(
            tmp_path / "node",
            route=world.port if pipelining else world.plain_port,
            lane="max_connections = 50",
            extra=lanes,
        ) as node:
            stop = asyncio.Event()
            others = Injector(node.smtp_port, connections=4)
            background = asyncio.ensure_future(inject_others(others, stop))
            try:
                await full_throttle(node)
                for run in range(RUNS):
                    await halt_once(node, world, f"run-{run}", rng)
            finally:
                stop.set()
                await background
            check_law(node.status()["totals"])
            assert metrics(node)["mtactl_recipients_begun_after_stop_total",] == 0
            assert node.stop() == 0
        assert node.fsck().returncode == 0, node.fsck().stdout


async def full_throttle(node) -> None:
    """Wait until the lane of the others has all of its connections."""
    async with asyncio.timeout(60.0):
        while True:
            (lane,) = (await asyncio.to_thread(node.call, "GET", "/v1/lanes?lane=fast.example"))[1]["lanes"] or [{}]
            if lane.get("connections", 0) >= 50:
                return
            await asyncio.sleep(0.1)


def has_begun(node, campaign: str) -> bool:
    status, report = node.call("GET", f"/v1/campaigns/{campaign}")
    return status == 200 and report["counts"]["delivered"] > 0


async def halt_once(node, world, campaign: str, rng: random.Random) -> None:
    injector = Injector(node.smtp_port, connections=6)
    injecting = asyncio.ensure_future(injector.inject(mails(campaign, 2_500)))
    await asyncio.sleep(rng.uniform(0.3, 0.8))
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(has_begun, node, campaign):
            await asyncio.sleep(0.05)
    assert (await asyncio.to_thread(node.status))["connections"] >= 50
    answer, _, answered = await asyncio.to_thread(node.halt, campaign)
    await injecting
    report = await asyncio.to_thread(node.wait_completed, campaign)
    await asyncio.sleep(0.1)

    record = world.record()
    rows = {row["recipient"]: row for row in node.recipients(campaign)}
    stop = report["stop"]
    # Whatever the world read after the answer had been written before: it was in flight, and is counted there.
    late = [address for each in record.begun_after(campaign, answered) for address in each.recipients]
    open_then = [address for each in record.open_at(campaign, answered) for address in each.recipients]
    assert len(set(late) | set(open_then)) <= stop["in_flight_at_stop"]
    assert all(rows[address]["after_stop"] for address in late)
    # Nothing began that was not in flight, and long after the answer nothing at all.
    assert not record.begun_after(campaign, answered + 1_000_000_000)
    ended_after = [
        row
        for row in rows.values()
        if row["after_stop"] and (row["outcome"] in ("delivered", "bounced", "unknown") or row["code"] is not None)
    ]
    assert len(ended_after) == stop["in_flight_at_stop"]

    # The books, recipient by recipient.
    counts = report["counts"]
    delivered = record.delivered(campaign)
    assert {address for address, row in rows.items() if row["outcome"] == "delivered"} == set(delivered)
    assert set(delivered.values()) <= {1}
    assert counts["delivered"] == len(delivered)
    assert counts["accepted"] == len(injector.acknowledged) == len(rows)
    assert counts["refused"] == sum(1 for code in injector.answers.values() if code == 550) > 0
    assert answer["state"] in ("halting", "halted") and counts["queued"] == counts["in_flight"] == 0
    assert stop["kind"] == "stop"


async def test_the_law_holds_at_each_of_many_reads(tmp_path):
    """A report that is wrong for an instant is wrong when the monitoring reads it."""
    profile = {"*": {"latency": 0.005, "reject": 0.05, "defer": 0.05, "defer_end": 0.02, "hang_up": 0.02}}
    with (
        peer_world(tmp_path / "world", profile) as world,
        daemon(tmp_path / "node", route=world.port, extra='[delivery]\nretry = ["1s"]') as node,
    ):
        injector = Injector(node.smtp_port, connections=6)
        injecting = asyncio.ensure_future(
            injector.inject([mail for k in range(4) for mail in short_mails(f"c{k}", 700, domains=DOMAINS)])
        )
        reads = 0
        commands = {40: ("c0", "hold"), 80: ("c0", "release"), 120: ("c1", "halt"), 160: ("c2", "halt")}
        deadline = time.monotonic() + 4.0
        while time.monotonic() < deadline or reads < 200:
            documents = (await asyncio.to_thread(node.call, "GET", "/v1/campaigns"))[1]["campaigns"]
            for report in documents:
                check_law(report["counts"])
            check_law(node.status()["totals"])
            reads += 1
            if reads in commands:
                campaign, verb = commands[reads]
                body = {"confirm": campaign} if verb == "halt" else None
                status, answer = node.call("POST", f"/v1/campaigns/{campaign}/{verb}", body)
                assert status == 200, answer
            await asyncio.sleep(0)
        await injecting
        for campaign in ("c1", "c2"):
            report = await asyncio.to_thread(node.wait_completed, campaign)
            delivered = set(world.record().delivered(campaign))
            assert report["counts"]["delivered"] == len(delivered)
