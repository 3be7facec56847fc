"""mtactl top on a real terminal (tmux), before a real daemon with mail on its way."""

import asyncio
import re
import signal

import pytest

from tests.world.busy import busy_node
from tests.world.control import short_folder
from tests.world.daemon import daemon, free_port
from tests.world.tmux import tmux_screen

pytestmark = [pytest.mark.needs("tmux", "tmux"), pytest.mark.timeout(300)]

COLOUR = re.compile(r"\x1b\[[0-9;]*?\b(?:3[0-7]|38;|4[0-7]|48;|9[0-7]|10[0-7])")


async def test_a_night_before_the_screen():
    """Broken: at two in the morning the campaign can't be found, held, let go or stopped, or the wrong one is."""
    campaigns = {"autumn-sale": 30_000, "weekly-letter": 6_000, "members/2026": 3_000}
    async with short_folder() as folder, busy_node(folder, campaigns) as busy:
        node = busy.node
        async with tmux_screen(folder, node.socket, "top", "--interval", "0.5") as screen:
            shown = await screen.look("mx1  ok", "weekly-letter", "autumn-sale", "members/2026", "/s", "1 campaigns 3")
            rows = [line.split()[0] for line in shown.splitlines() if " active " in line]
            assert rows[0] == "autumn-sale", shown
            assert "q quit" in shown

            await screen.press("/")
            await screen.type("WEEKLY")
            await screen.look("weekly-letter", "/WEEKLY", without=("autumn-sale",))
            await screen.press("Enter")

            await screen.press("h")
            await screen.look("Hold weekly-letter?")
            await screen.press("n")
            await screen.look("weekly-letter", without=("Hold",))
            assert node.report("weekly-letter")["state"] == "active"
            await screen.press("h")
            await screen.look("Hold weekly-letter?")
            await screen.press("y")
            await screen.look("weekly-letter is held:", " held ")
            assert node.report("weekly-letter")["state"] == "held"
            await screen.press("r")
            await screen.look("Release weekly-letter?")
            await screen.press("y")
            await screen.look("weekly-letter is active:")
            assert node.report("weekly-letter")["state"] == "active"

            await screen.press("Escape")
            await screen.look("autumn-sale", without=("/WEEKLY",))
            await screen.press("Home")
            await screen.press("x")
            await screen.look("Halt autumn-sale on mx1", "Campaign ID >")
            await screen.type("autumn-sal")
            await screen.press("Enter")
            await screen.look("What was typed is not autumn-sale. Nothing was halted.")
            assert node.report("autumn-sale")["state"] == "active"
            await screen.type("e")
            await screen.look("> autumn-sale ")
            await screen.press("Tab")
            await asyncio.sleep(0.5)
            await screen.type("wrong [bold]prices[/]")
            await screen.look("> wrong [bold]prices[/]")
            await screen.press("Enter")
            await screen.look("autumn-sale is halted for good", "queue dropped")
            await screen.look("completed in")
            report = node.wait_completed("autumn-sale")
            assert report["stop"]["reason"] == "wrong [bold]prices[/]"
            await screen.press("4")
            await screen.look("✔ queue dropped", "✔ in flight finished", "✔ completed", "wrong [bold]prices[/]")

            await screen.press("3")
            await screen.look("hold", "halt_step", "campaign=autumn-sale")
            await screen.press("2")
            await screen.look("gmail.example", "20/20", "Ok: taken")
            await screen.press("1")
            assert node.stop() == 0
            gone = await screen.look("Trying again", "weekly-letter")
            assert "/s" not in gone, gone
            node.start()
            await screen.look("The daemon is back after", "; it was restarted.", without=("Trying again",))
            await screen.press("q")
            await screen.look("ended 0", without=("campaigns",))


@pytest.mark.parametrize(("columns", "lines"), [(40, 10), (120, 40)])
async def test_it_fits(columns, lines):
    """Broken: on a small terminal the screen crashes, or the table has no line left; or text overruns."""
    async with short_folder() as folder:
        with daemon(folder / "node", route=free_port()) as node:
            for number in range(40):
                node.call("POST", f"/v1/campaigns/campaign-{number}-{'x' * number}/hold")
            async with tmux_screen(folder, node.socket, "top", columns=columns, lines=lines) as screen:
                shown = await screen.look("mx1", "1 campaigns", "campaign-0", "held", "q quit")
                assert len(shown.splitlines()) <= lines
                for keys, text in (
                    ("2", "2 lanes"),
                    ("3", "hold        campaign=camp"),
                    ("4", "No halt is under way"),
                    ("1", "campaign-0"),
                    ("?", "Esc leave"),
                ):
                    await screen.press(keys)
                    await screen.look(text)
                await screen.press("Escape")
                await screen.look("campaign-0")
                await screen.press("x")
                await screen.look("Campaign ID")  # its title may be out of sight
                await screen.press("Escape")
                await screen.look("Nothing was halted.", "campaign-0")
                await screen.resize(33, 6)
                await screen.look("mx1")
                await screen.resize(columns, lines)
                await screen.look("mx1", "campaign-0")
                await screen.press("C-c")
                await screen.look("ended 0")


async def test_no_colours_where_none_are_wanted():
    """Broken: NO_COLOR gets colours, or the cursor can't be seen without them."""
    async with short_folder() as folder:
        with daemon(folder / "node", route=free_port()) as node:
            node.call("POST", "/v1/campaigns/c1/hold")
            for value, wanted in (("1", False), ("", True)):
                async with tmux_screen(folder, node.socket, "top", env={"NO_COLOR": value}) as screen:
                    await screen.look("c1", "held", "q quit")
                    drawn = await screen.read(escapes=True)
                    assert bool(COLOUR.search(drawn)) == wanted, drawn
                    assert "\x1b[7m" in drawn or "\x1b[1;7m" in drawn


async def test_leaving_while_a_halt_is_asked_for():
    """Broken: whoever quits then takes the halt for done, or for not asked for; or the daemon that hangs keeps him."""
    async with short_folder() as folder:
        with daemon(folder / "node", route=free_port()) as node:
            node.call("POST", "/v1/campaigns/c1/hold")
            async with tmux_screen(folder, node.socket, "top") as screen:
                await screen.look("c1", "held")
                node.process.send_signal(signal.SIGSTOP)
                await screen.press("x")
                await screen.look("Halt c1")
                await screen.type("c1")
                await screen.press("Enter")
                await screen.look("Asking the daemon")
                await screen.press("Escape")
                await screen.press("C-c")
                left = await screen.look("ended 3")
                assert "left before the daemon had answered the halt of c1" in left
                assert "mtactl show c1" in left
                assert "Traceback" not in left
                node.process.send_signal(signal.SIGCONT)
                await asyncio.to_thread(node.wait_completed, "c1")
