"""mtactl as a person sees it: the typed confirmation on a pseudo-terminal, and the screen of a halt in tmux."""

import asyncio
import re
import shlex
import sys
from contextlib import asynccontextmanager

import pytest

from mtactl.control.types import RequestedBy
from tests.integration.test_cli_halt import at_work, sending
from tests.world.control import serving, short_folder, until
from tests.world.memory_node import MemoryNode
from tests.world.terminal import environment, terminal


@asynccontextmanager
async def working(node: MemoryNode):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(at_work(node))
        yield
        task.cancel()


async def test_the_id_is_typed_and_the_halt_is_watched():
    """Broken: on a terminal a halt can't be confirmed, is not shown, or leaves the cursor hidden."""
    node = sending()
    async with serving(node) as api, terminal(api.path, "halt", "c1") as screen:
        await screen.expect("c1 on mx1: active, 30 queued, 4 in flight, 1 delivered")
        await screen.expect("Type the Campaign ID to go on (c1): ")
        assert node.asked == []
        screen.type("c1\n")
        await screen.expect("0 of 30")
        async with working(node):
            assert await screen.end() == 0
        report = screen.text.rpartition("╭─ ")[2]
        assert "halted (stop)" in report
        assert "4 of them after the stop" in report
        assert screen.shown.rfind("\x1b[?25h") >= screen.shown.rfind("\x1b[?25l")


@pytest.mark.parametrize("typed", ["C1\n", "c1x\n", "\n", "yes\n", "\x04", "\x03"])
async def test_anything_else_halts_nothing(typed):
    """Broken: a slip of the keyboard, Ctrl-D or Ctrl-C halts a campaign for ever."""
    node = sending()
    async with serving(node) as api, terminal(api.path, "halt", "c1") as screen:
        await screen.expect("go on (c1): ")
        screen.type(typed)
        assert await screen.end() == 2
        assert "Nothing was halted." in screen.text
        assert node.asked == []
        assert node.report("c1").state == "active"


async def test_a_campaign_never_seen_is_told_before_it_is_confirmed():
    """Broken: a mistyped id is halted without a word."""
    async with serving() as api, terminal(api.path, "halt", "nix") as screen:
        await screen.expect("nix has not been seen on this node.")
        await screen.expect("It can be halted all the same")
        screen.type("nix\n")
        await screen.expect("recorded")
        async with working(api.node):
            api.node.work()
            assert await screen.end() == 0


async def test_ctrl_c_while_watching_is_5():
    """Broken: Ctrl-C in the live screen is a traceback, or takes for finished what is not."""
    node = sending()
    async with serving(node) as api, terminal(api.path, "halt", "c1", "--confirm", "c1") as screen:
        await screen.expect("0 of 30")
        screen.type("\x03")
        assert await screen.end() == 5
        assert "The halt is recorded and goes on: mtactl show c1" in screen.text
        assert screen.shown.rfind("\x1b[?25h") > screen.shown.rfind("\x1b[?25l")


async def test_one_who_is_halted_already_is_not_asked_for():
    """Broken: whoever comes second has to type the id for nothing."""
    node = sending(queued=1, in_flight=0)
    await node.halt("c1", reason=None, by=RequestedBy(uid=7, user="alice"))
    node.work()
    async with serving(node) as api, terminal(api.path, "halt", "c1") as screen:
        assert await screen.end() == 0
        assert "c1 is halted already, asked for by alice" in screen.text


async def test_json_on_a_terminal_keeps_the_conversation_off_the_output():
    """Broken: `mtactl --json halt c1 > file` can't be confirmed, or writes the question into the file."""
    node = sending(queued=3, in_flight=0)
    pipe = {"stdout": asyncio.subprocess.PIPE}
    async with serving(node) as api, working(node), terminal(api.path, "--json", "halt", "c1", **pipe) as screen:
        await screen.expect("go on (c1): ")
        screen.type("c1\n")
        out = await screen.process.stdout.read()
        assert await screen.end() == 0
        assert out.startswith(b'{"campaign":"c1"')
        assert out.count(b"\n") == 1


async def test_a_drop_is_asked_for():
    """Broken: a drop on a terminal happens without a question, or with a wrong answer."""
    node = sending()
    async with serving(node) as api:
        for typed, code, told in (
            ("n\n", 2, "Nothing was dropped."),
            ("\n", 2, "Nothing"),
            ("y\n", 0, "30 recipients"),
        ):
            async with terminal(api.path, "queue", "drop", "--domain", "example.com") as screen:
                await screen.expect("Drop all queued recipients to example.com? It can't be undone. [y/N] ")
                screen.type(typed)
                assert await screen.end() == code
                assert told in screen.text


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
async def test_no_colours_where_none_are_wanted(env):
    """Broken: NO_COLOR or a dumb terminal gets escapes."""
    async with serving(sending()) as api, terminal(api.path, "show", "c1", env=env) as screen:
        assert await screen.end() == 0
        assert "\x1b" not in screen.shown
        assert "queued" in screen.text


@pytest.mark.parametrize("columns", [40, 80])
async def test_a_terminal_is_never_overrun(columns):
    """Broken: a long id wraps the table on an ordinary terminal."""
    node = MemoryNode()
    node.accept("x" * 128, ["y" * 60 + "@example.com"])
    async with serving(node) as api:
        for verb in (["campaigns"], ["queue", "ls"], ["show", "x" * 128], ["status"], ["lanes"]):
            async with terminal(api.path, *verb, columns=columns) as screen:
                assert await screen.end() == 0
                assert "\x1b" in screen.shown
                assert max(len(line) for line in screen.text.splitlines()) <= columns, screen.text


async def tmux(server: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *("tmux", "-L", server, "-f", "/dev/null", *arguments),
        env=environment(None, {"TERM": "xterm-256color"}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    return out.decode()


@pytest.mark.needs("tmux", "tmux")
async def test_the_screen_of_a_halt():
    """Broken: the live panel is not one panel: it flickers down the screen, wraps, or stays behind the report."""
    node = sending(queued=400, in_flight=7)
    async with serving(node) as api, short_folder() as folder:
        server = f"mtactl-{folder.name}"
        variables = [f"{name}={value}" for name, value in environment(api.path).items() if name in NEEDED]
        command = ["env", *variables, sys.executable, "-m", "mtactl.cli.main", "halt", "c1"]
        shell = f"{shlex.join(command)}; echo ended $?; sleep 60"
        await tmux(server, "new-session", "-d", "-x", "80", "-y", "24", "-s", "s", shell)

        async def look(*texts: str) -> str:
            async with asyncio.timeout(30):
                while True:
                    screen = await tmux(server, "capture-pane", "-p", "-t", "s")
                    if all(text in screen for text in texts):
                        return screen
                    await asyncio.sleep(0.05)

        try:
            await look("Type the Campaign ID")
            await tmux(server, "send-keys", "-t", "s", "c1", "Enter")
            await until(lambda: node.gate.is_closed("c1"))
            await look("0 of 400")
            node.work(recipients=150)
            node.finish("c1")
            halfway = await look("150 of 400", "1 of 7")
            assert halfway.count("╭") == halfway.count("╰") == 1
            assert re.search(r"✔ recorded +\+0\.", halfway)
            assert not re.search(r"✔ (queue dropped|completed)", halfway)
            async with working(node):
                final = await look("ended 0", "400 of 400", "7 of 7", "✔ completed")
            assert final.count("╭") == final.count("╰") == 1
            assert "7 of them after the stop" in final
        finally:
            await tmux(server, "kill-server")


NEEDED = ("PYTHONPATH", "MTACTL_SOCKET", "LANG", "TZ")
