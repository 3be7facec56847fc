"""The live screen by textual's pilot, on a real daemon: each key, and what is said when something does not go."""

import asyncio
import grp
import os
import re
import signal
from contextlib import asynccontextmanager

import pytest
from textual.widgets import Input

from mtactl.cli.client import Client
from mtactl.cli.top.app import TopApp
from mtactl.cli.top.grid import Grid
from mtactl.cli.top.snapshot import Poller, Wanted
from tests.world.application import inject
from tests.world.control import short_folder
from tests.world.daemon import daemon, free_port
from tests.world.unruly import run_unruly_peer

pytestmark = pytest.mark.timeout(240)

CAMPAIGNS = {"large": 3, "Middle/2026": 2, "small+1": 1}


class Sight:
    """The app and its keys; `text` is what stands on the screen."""

    def __init__(self, app, pilot):
        self.app = app
        self.pilot = pilot

    @property
    def text(self):
        return "\n".join(strip.text.rstrip() for strip in self.app.screen._compositor.render_strips())

    async def look(self, *texts, without=(), seconds=60.0):
        """Wait until all the texts are on the screen, and none of the others."""
        try:
            async with asyncio.timeout(seconds):
                while not (all(each in self.text for each in texts) and not any(each in self.text for each in without)):
                    await self.pilot.pause(0.05)
        except TimeoutError:
            raise AssertionError(f"{texts} without {without} never came:\n{self.text}") from None
        return self.text

    async def until(self, holds, *, seconds=60.0):
        """Wait until a condition holds."""
        async with asyncio.timeout(seconds):
            while not holds():
                await self.pilot.pause(0.05)

    async def press(self, *keys):
        await self.pilot.press(*keys)

    async def type(self, text):
        await self.pilot.press(*({"+": "plus", "/": "slash", " ": "space"}.get(each, each) for each in text))


@asynccontextmanager
async def watching(node, *, size=(100, 30), interval=0.4):
    """Open the live screen on a node."""
    client = Client(str(node.socket))
    poller = Poller(client)
    first = await asyncio.to_thread(poller.poll, Wanted())
    app = TopApp(client, poller, first, interval=interval)
    async with app.run_test(size=size) as pilot:
        yield Sight(app, pilot)


@asynccontextmanager
async def holding(**options):
    """Run a node with three campaigns, all held, their mail in the queue."""
    async with short_folder() as folder:
        with daemon(folder / "node", route=free_port(), **options) as node:
            for campaign, recipients in CAMPAIGNS.items():
                quoted = campaign.replace("/", "%2F")
                assert node.call("POST", f"/v1/campaigns/{quoted}/hold")[0] == 200
                for number in range(recipients):
                    await asyncio.to_thread(inject, node.smtp_port, f"r{number}@one.example", campaign=campaign)
            yield node


def rows(text):
    """Give the first word of each row of the table of campaigns."""
    table = re.split(r"^campaign\S* +state .*$", text, flags=re.MULTILINE)[-1]
    return [line.split()[0] for line in table.splitlines() if " held " in line or " active " in line]


async def test_campaigns_by_their_queue_filtered_and_sorted():
    """Broken: the longest queue is not on top, the filter hides what fits, or a sort order fails."""
    async with holding() as node, watching(node) as sight:
        assert rows(await sight.look("Middle/2026", "small+1", "queued 6", "held 6")) == [
            "large",
            "Middle/2026",
            "small+1",
        ]
        await sight.press("S")
        await sight.look("by campaign", "campaign*")
        await sight.until(lambda: rows(sight.text) == ["Middle/2026", "large", "small+1"])
        for _ in range(7):
            await sight.press("s")
        await sight.press("slash")
        await sight.type("sMaLl+")
        await sight.press("enter")
        await sight.look("/sMaLl+", "1 of 1")
        assert rows(sight.text) == ["small+1"]
        assert not sight.app.query_one("#filter", Input).display
        await sight.press("escape")
        await sight.until(lambda: len(rows(sight.text)) == 3)
        assert "/sMaLl" not in sight.text


async def test_the_cursor_stays_on_its_campaign():
    """Broken: the rows change places just before a key is pressed, and another campaign is held or halted."""
    async with holding() as node, watching(node) as sight:
        await sight.look("small+1")
        await sight.press("end")
        grid = sight.app.query_one("#campaigns", Grid)
        assert grid.key == "small+1"
        for number in range(5):
            await asyncio.to_thread(inject, node.smtp_port, f"s{number}@one.example", campaign="small+1")
        await sight.look("queued 11")
        assert rows(sight.text)[0] == "small+1"
        assert grid.key == "small+1"
        await sight.press("home")
        for number in range(9):
            await asyncio.to_thread(inject, node.smtp_port, f"t{number}@one.example", campaign="large")
        await sight.look("queued 20")
        assert (rows(sight.text)[0], grid.key) == ("large", "large")


async def test_hold_and_release():
    """Broken: a key changes a campaign without a question, or what is typed ahead answers another one."""
    async with holding() as node, watching(node) as sight:
        await sight.look("large")
        await sight.press("h")
        await sight.look("large is held already.")
        await sight.press("r")
        await sight.look("Release large?", "3 queued may go out.")
        for key in ("n", "escape", "enter"):
            await sight.press(key)
            await sight.look("large", without=("Release",))
            assert node.report("large")["state"] == "held"
            await sight.press("r")
            await sight.look("Release large?")
        await sight.press("y")
        await sight.look("large is active: 3 queued may go out.")
        assert node.report("large")["state"] == "active"
        await sight.press("h", "y")
        await sight.look("large is held: 3 queued, 0 in flight.")
        await sight.press("enter")
        await sight.look("accepted", "queued      3", "Esc leave")
        await sight.press("r")
        await sight.look("Release large?")
        await sight.press("y")
        await sight.look("large is active: 3 queued may go out.")


async def test_a_halt_with_the_id_typed():
    """Broken: a wrong id halts, the right one does not, or what follows is not shown."""
    async with holding() as node, watching(node, size=(80, 24)) as sight:
        await sight.look("Middle/2026")
        await sight.press("down", "x")
        await sight.look("Halt Middle/2026 on mx1", "held: 2 queued, 0 in flight, 0 delivered")
        for typed, said in (("", "No Campaign ID was typed."), ("middle/2026", "What was typed is not Middle/2026.")):
            await sight.type(typed)
            await sight.press("enter")
            await sight.look(said, "Nothing was halted.")
            assert node.report("Middle/2026")["stop"] is None
        await sight.press("escape")
        await sight.look("Nothing was halted.", "small+1", without=("Campaign ID >",))
        await sight.press("x")
        await sight.type("Middle/2026")
        await sight.press("tab")
        await sight.type("[red]why")
        await sight.look("> Middle/2026", "> [red]why")
        await sight.press("enter")
        await sight.look("Middle/2026 is halted for good", "completed in")
        report = node.report("Middle/2026")
        assert (report["state"], report["stop"]["reason"], report["counts"]["dropped"]) == ("halted", "[red]why", 2)
        await sight.press("4")
        await sight.look("Middle/2026 on mx1  halted (cancel)", "2 of 2", "✔ completed", ": [red]why")
        await sight.press("3")
        await sight.look("reason=[red]why", "step=completed")
        await sight.press("1", "h")
        await sight.look("Middle/2026 is halted, asked for by")
        await sight.press("enter")
        await sight.look("dropped     2  100.0 %", "Esc leave")
        await sight.press("escape")
        await sight.look("small+1")


async def test_a_halt_from_elsewhere_is_seen():
    """Broken: whoever watches does not see that someone else has halted a campaign a moment ago."""
    async with holding() as node, watching(node, interval=1.0) as sight:
        await sight.look("large")
        node.halt("large")
        await sight.look("large  halted  completed in", "✔ queue dropped", "halt_step")
        assert "by root" in sight.text


async def test_figures_that_are_not_fresh():
    """Broken: figures of an hour ago look like those of now: paused, of a daemon that hangs, or of one that is gone."""
    async with holding() as node, watching(node) as sight:
        await sight.look("delivered", "0/s")
        await sight.press("p")
        await sight.look("Paused: the figures are of", without=("0/s",))
        await asyncio.to_thread(inject, node.smtp_port, "z@one.example", campaign="large")
        await sight.pilot.pause(1.0)
        assert "queued 6" in sight.text
        await sight.press("p")
        await sight.look("queued 7", "0/s", without=("Paused",))
        node.process.send_signal(signal.SIGSTOP)
        try:
            await sight.look("No answer from the daemon; the figures are of", without=("0/s",))
            await sight.press("x")
            await sight.look("Halt large on mx1")
            await sight.press("escape")
        finally:
            node.process.send_signal(signal.SIGCONT)
        await sight.look("0/s", without=("No answer",))
        await asyncio.to_thread(node.kill9)
        await sight.look("Nothing listens on", "Trying again; the figures are of", "large", without=("0/s",))
        await sight.press("r", "y")
        await sight.look("nothing listens on")
        await asyncio.to_thread(node.start)
        await sight.look("The daemon is back after", "it was restarted", "0/s", without=("Trying again",))


async def test_replies_and_outcomes_are_shown_as_they_are():
    """Broken: a reply that a stranger wrote colours the screen, moves the cursor, or ends the client."""
    async with short_folder() as folder, run_unruly_peer("dot", "silent") as peer:
        peer.answer(b"450 4.2.0 [bold red]later[/] [/nope] \x1b[31m\r\n")
        with daemon(folder / "node", route=peer.port) as node:
            async with watching(node, size=(160, 30)) as sight:
                await sight.press("3", "o")
                await sight.look("3 log with outcomes")
                await sight.pilot.pause(1.0)
                await asyncio.to_thread(inject, node.smtp_port, "a@one.example", campaign="c1")
                await sight.look("deferred", "c1  a@one.example", "[/nope]")
                await sight.press("2")
                await sight.look("one.example", "[bold red]later[/] [/nope]")
                assert "\x1b" not in sight.text
                assert node.status()["deferrals"] >= 1
                await sight.press("slash")
                await sight.type("none.such")
                await sight.look("0 of 0", without=("one.example   ", "0/20"))


@pytest.mark.root_only
async def test_an_observer_is_told_that_he_may_not():
    """Broken: one who may only look sees nothing happen when he presses a key, or is thrown out."""
    nobody = 65534
    group = grp.getgrgid(nobody).gr_name
    async with short_folder() as folder:
        with daemon(folder / "node", route=free_port()) as node:
            text = node.config.read_text()
            node.stop()
            more = f'mode = "0666"\nobservers = ["{group}"]'
            node.config.write_text(text.replace(f'socket = "{node.socket}"', f'socket = "{node.socket}"\n{more}'))
            node.folder.chmod(0o755)
            node.start()
            node.call("POST", "/v1/campaigns/c1/hold")
            os.setegid(nobody)
            os.seteuid(nobody)
            try:
                async with watching(node) as sight:
                    await sight.look("c1", "held")
                    await sight.press("r", "y")
                    await sight.look("User nobody", "control.operators")
                    await sight.press("x")
                    await sight.type("c1")
                    await sight.press("enter")
                    await sight.look("Halt c1", "User nobody", "control.operators")
                    await sight.press("escape")
                    await sight.look("Nothing was halted.")
            finally:
                os.seteuid(0)
                os.setegid(0)
            assert node.report("c1")["state"] == "held"


async def test_any_size():
    """Broken: a window that is dragged small ends the client."""
    async with holding() as node, watching(node) as sight:
        for size in ((250, 80), (40, 10), (1, 1), (60, 16)):
            await sight.pilot.resize_terminal(*size)
            for key in (
                "2",
                "3",
                "4",
                "1",
                "question_mark",
                "escape",
                "enter",
                "escape",
                "x",
                "escape",
                "slash",
                "escape",
            ):
                await sight.press(key)
            assert all(len(line) <= size[0] for line in sight.text.splitlines())
        await sight.look("mx1", "large", "q quit")
        assert re.search(r"^mx1 .* \d\d:\d\d:\d\d$", sight.text.splitlines()[0])
        assert len(rows(sight.text)) == 3
