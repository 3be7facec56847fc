"""mtactl halt without a terminal: confirmation, progress, endings."""

import asyncio
import signal

import pytest

from mtactl.control.types import RequestedBy
from queue_store.errors import StoreFailed
from tests.world.control import serving, until
from tests.world.memory_node import MemoryNode
from tests.world.terminal import end, run, running

CONFIRMED = ("halt", "c1", "--confirm", "c1")


def sending(*, queued: int = 30, in_flight: int = 4) -> MemoryNode:
    """Give a node with a campaign of which some are in flight, one was delivered and the rest is queued."""
    node = MemoryNode()
    node.accept("c1", [f"r{number}@example.com" for number in range(queued + in_flight + 1)])
    node.begin("c1", in_flight + 1)
    node.finish("c1")
    return node


async def at_work(node: MemoryNode) -> None:
    """Drop a few at a time and let what is in flight finish, until cancelled."""
    while True:
        await asyncio.sleep(0.03)
        if node.gate.is_closed("c1") and node.ledger.account("c1").in_flight:
            node.finish("c1")
        node.work(recipients=10)


async def finishing(node: MemoryNode, path, *arguments: str, **options):
    """Run the client while the node works."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(at_work(node))
        ended = await run(path, *arguments, **options)
        working.cancel()
    return ended


@pytest.mark.parametrize("verb", ["halt", "stop", "cancel"])
async def test_a_confirmed_halt_is_followed_to_its_end(verb):
    """Broken: the one command that this project exists for does not halt, or ends before nothing is left."""
    node = sending()
    async with serving(node) as api:
        ended = await finishing(node, api.path, verb, "c1", "--confirm", "c1", "--reason", "wrong prices")
        assert ended.code == 0, ended
        steps = [line.split(":")[1].split("+")[0].strip() for line in ended.err.splitlines()]
        assert steps[:2] == ["gate closed", "recorded"]
        assert sorted(steps[2:4]) == ["in flight finished", "queue dropped"]
        assert steps[4:] == ["completed"]
        assert "c1 on mx1  halted (stop)" in ended.out
        assert "30 of 30" in ended.out
        assert "4 of them after the stop" in ended.out
        assert "wrong prices" in ended.out
        assert max(map(len, ended.out.splitlines())) <= 80
        assert "\x1b" not in ended.out + ended.err


async def test_json_is_the_final_report_alone():
    """Broken: a script gets a report of the halt's beginning, or lines of progress in its JSON."""
    node = sending()
    async with serving(node) as api:
        ended = await finishing(node, api.path, "--json", *CONFIRMED)
        assert (ended.code, ended.err) == (0, "")
        assert ended.json["state"] == "halted"
        assert ended.json == (await run(api.path, "show", "c1", "--json")).json


async def test_without_a_confirmation_nothing_is_sent():
    """Broken: a script without --confirm halts a campaign, or waits for ever for someone to type."""
    node = sending()
    async with serving(node) as api:
        for arguments in (["halt", "c1"], ["halt", "c1", "--confirm", "C1"], ["--json", "halt", "c1", "--confirm", ""]):
            ended = await run(api.path, *arguments)
            assert ended.code == 2
            assert "Nothing was halted." in ended.err
        assert "--confirm c1" in (await run(api.path, "halt", "c1")).err
        fed = await run(api.path, "halt", "c1", "--json")
        assert fed.json["type"] == "urn:mtactl:problem:not-confirmed"
        assert node.asked == []


async def test_no_wait_ends_with_the_durable_answer():
    """Broken: a script that has to go on is held up by slow peers, or is told before the halt is on disk."""
    node = sending()
    node.halt_gate = asyncio.Event()
    async with serving(node) as api, running(api.path, "--json", *CONFIRMED, "--no-wait") as process:
        await until(lambda: node.asked)
        await asyncio.sleep(0.3)
        assert process.returncode is None
        node.halt_gate.set()
        ended = await end(process)
        assert ended.code == 0
        assert ended.json["state"] == "halting"
        assert ended.json["counts"]["queued"] == 30


@pytest.mark.parametrize("limit", ["0", "0.3"])
async def test_a_halt_that_is_not_completed_in_time_is_5(limit):
    """Broken: a script believes that all is over while mail of the campaign is in flight."""
    node = sending()
    async with serving(node) as api:
        ended = await run(api.path, *CONFIRMED, "--timeout", limit)
        assert ended.code == 5
        assert "still open: 30 queued, 4 in flight" in ended.err
        assert "mtactl show c1" in ended.err
        assert "c1 on mx1  halting (stop)" in ended.out
        told = await run(api.path, "--json", *CONFIRMED, "--timeout", limit)
        assert (told.code, told.json["state"]) == (5, "halting")


async def test_ctrl_c_leaves_the_halt_running_and_says_so():
    """Broken: an impatient administrator believes to have taken the halt back."""
    node = sending()
    async with serving(node) as api, running(api.path, *CONFIRMED) as process:
        assert b"gate closed" in await process.stderr.readline()
        process.send_signal(signal.SIGINT)
        ended = await end(process)
        assert ended.code == 5
        assert "The halt is recorded and goes on" in ended.err
        node.work()
        assert node.report("c1").state == "halting"  # four are still in flight


async def test_a_campaign_never_seen_can_be_halted():
    """Broken: a campaign can't be stopped before its first mail arrives."""
    node = MemoryNode()
    async with serving(node) as api:
        ended = await finishing(node, api.path, "--json", "halt", "2026/11/a+b", "--confirm", "2026/11/a+b")
        assert ended.code == 0
        assert ended.json["stop"]["kind"] == "cancel"
        assert ended.json["campaign"] == "2026/11/a+b"


async def test_a_campaign_halted_already_says_when_and_by_whom():
    """Broken: halting twice looks like a failure, or hides who was first."""
    node = sending(queued=2, in_flight=0)
    await node.halt("c1", reason="first", by=RequestedBy(uid=7, user="alice"))
    node.work()
    async with serving(node) as api:
        ended = await run(api.path, *CONFIRMED, "--reason", "second")
        assert ended.code == 0
        assert "c1 is halted already, asked for by alice at " in ended.err
        assert "first" in ended.out
        assert "second" not in ended.out
        assert (await run(api.path, "--json", *CONFIRMED)).json["stop"]["requested_by"]["user"] == "alice"


async def test_a_halt_that_could_not_be_made_durable_is_told():
    """Broken: a halt that a restart forgets is taken for done; or it can't be asked for again."""
    node = sending()
    node.failures["halt"] = StoreFailed("the disk is broken")
    async with serving(node) as api:
        for _ in range(2):
            ended = await run(api.path, *CONFIRMED)
            assert ended.code == 1
            assert "could not be made durable" in ended.err
            assert "halted already" not in ended.err
        node.failures.clear()
        assert (await finishing(node, api.path, "--json", *CONFIRMED)).json["state"] == "halted"


async def test_a_restart_of_the_daemon_is_waited_for():
    """Broken: the progress of a halt is lost when the daemon restarts in the middle of it."""
    node = sending()
    async with serving(node) as api, running(api.path, "--json", *CONFIRMED) as process:
        await until(lambda: node.ledger.account("c1").queued and node.gate.is_closed("c1"))
        await asyncio.sleep(0.5)
        await api.server.stop()
        await asyncio.sleep(0.5)
        assert process.returncode is None
        while node.ledger.account("c1").in_flight:
            node.finish("c1")
        node.work()
        await api.server.start()
        ended = await end(process)
        assert (ended.code, ended.json["state"]) == (0, "halted")


async def test_a_daemon_that_stays_away_is_3_and_the_halt_is_not_in_doubt():
    """Broken: the client waits for ever, or does not say that the halt is on record."""
    node = sending()
    async with serving(node) as api, running(api.path, "--json", *CONFIRMED) as process:
        await until(lambda: node.gate.is_closed("c1"))
        await asyncio.sleep(0.5)
        await api.server.stop()
        ended = await end(process)
        assert (ended.code, ended.json["state"]) == (3, "halting")
        assert "The halt is recorded: c1 stays halted." in ended.err


async def test_no_answer_to_the_halt_leaves_it_in_doubt():
    """Broken: an administrator whose daemon died under the command believes that the campaign is halted, or is not."""
    node = sending()
    node.halt_gate = asyncio.Event()
    async with serving(node) as api, running(api.path, *CONFIRMED) as process:
        await until(lambda: node.asked)
        process.send_signal(signal.SIGINT)
        ended = await end(process)
        assert ended.code == 3
        assert "is not known: mtactl show c1" in ended.err
        node.halt_gate.set()
