"""mtactl top where there is no terminal: lines of JSON, and how it ends."""

import asyncio
import json
import subprocess
import sys

from mtactl.control.types import RequestedBy
from tests.world.control import serving
from tests.world.memory_node import MemoryNode, fill
from tests.world.terminal import environment, run, running, terminal


async def test_a_line_for_each_look():
    """Broken: a program that watches gets half a document, no rates, or rates that were not measured."""
    node = fill(MemoryNode(), recipients=40)
    await node.halt("welcome@shop", reason="[x]", by=RequestedBy(uid=0, user="root"))
    async with serving(node) as api, running(api.path, "--json", "top", "--interval", "0.2") as process:
        first = json.loads(await process.stdout.readline())
        assert set(first["rates"].values()) == {None}
        assert first["status"]["node"] == "mx1"
        queued = [row["counts"]["queued"] for row in first["campaigns"]]
        assert queued == sorted(queued, reverse=True)
        assert first["campaigns_total"] == 3
        assert [report["campaign"] for report in first["halts"]] == ["welcome@shop"]
        assert first["lanes"]
        assert first["lanes_total"] == len(first["lanes"])
        second = json.loads(await process.stdout.readline())
        assert second["at"] > first["at"]
        assert set(second["rates"]) == {"accepted", "delivered", "deferred", "bounced"}
        assert None not in second["rates"].values()
        assert None not in [row["delivered_rate"] for row in second["campaigns"]]


async def test_who_reads_no_further_ends_it():
    """Broken: `mtactl --json top | head -1` goes on for ever, or with a traceback."""
    async with serving(fill(MemoryNode(), recipients=40)) as api:
        command = f"{sys.executable} -m mtactl.cli.main --json top --interval 0.2 | head -1"
        shell = await asyncio.create_subprocess_shell(
            command, env=environment(api.path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await asyncio.wait_for(shell.communicate(), 60)
        assert out.count(b"\n") == 1
        assert not err


async def test_how_it_ends():
    """Broken: a program can't tell a daemon that is not there from a command that was wrong."""
    async with serving() as api:
        refused = await run(api.path, "top")
        assert (refused.code, refused.out) == (2, "")
        assert "mtactl --json top" in refused.err
        assert (await run(api.path, "top", "--interval", "0.01")).code == 2
        async with terminal(api.path, "top", env={"TERM": "dumb"}) as screen:
            assert await screen.end() == 2
            assert "\x1b" not in screen.shown
        path = api.path
    for arguments in (("--json", "top"),):
        ended = await run(path, *arguments)
        assert ended.code == 3
    async with terminal(path, "top") as screen:
        assert await screen.end() == 3
        assert "no control socket" in screen.text


def test_nothing_else_waits_for_textual():
    """Broken: every command takes a tenth of a second longer, for a screen that it does not show."""
    code = (
        "import sys; from mtactl.cli import main; "
        "[main.program.get_command(None, name) for name in main._VERBS]; print('textual' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment(None), capture_output=True, text=True, check=True
    )
    assert ended.stdout == "False\n"
