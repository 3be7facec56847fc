"""mtactl show: the report with times, destinations and replies, on terminals of any width, as JSON, and as a page."""

import os
import re

import pytest

from mtactl.campaign.ledger import Final
from mtactl.control.types import RequestedBy
from queue_store.errors import StoreFailed
from tests.world.control import serving
from tests.world.memory_node import MemoryNode, wall_clock
from tests.world.terminal import run, terminal

EVIL = "e\x1b[Jvil\u202e"


class Clock:
    """Gives the time, and can be put forward. It begins forty minutes ago."""

    def __init__(self) -> None:
        self.at = wall_clock() - 40 * 60_000_000

    def __call__(self) -> int:
        return self.at

    def go_on(self, seconds: float) -> None:
        self.at += int(seconds * 1_000_000)


async def halted_node() -> MemoryNode:
    """Give a node whose campaign went on for twenty minutes to fifteen destinations, and was stopped."""
    clock = Clock()
    node = MemoryNode(now=clock)
    for number in range(900):
        node.accept("sale", [f"r{number}@d{number % 15}.example"])
    for minute in range(20):
        node.begin("sale", 30)
        for number in range(30):
            if number == 7:
                reply = f"5.1.1 <r{minute}@x.example>: {EVIL} User unknown"
                node.finish("sale", Final.BOUNCED, code=550, reply=reply)
            elif number == 8:
                node.defer("sale")
            else:
                node.finish("sale", reply=f"2.0.0 Ok: queued as {minute:02}AB{number:06}")
        clock.go_on(60)
    node.begin("sale", 10)
    await node.halt("sale", reason="wrong prices", by=RequestedBy(uid=0, user="root"))
    clock.go_on(2)
    for _ in range(10):
        node.finish("sale", reply="2.0.0 Ok: queued as 99AB000000")
    node.work()
    return node


async def test_what_became_of_a_campaign_is_shown():
    """Broken: who asks what went out, when, where to and why not, has to compute it from the list of recipients."""
    async with serving(await halted_node()) as api:
        told = await run(api.path, "show", "sale")
        assert (told.code, told.err) == (0, "")
        for expected in (
            "10 of them after the stop",
            "deliveries a minute, in steps of 30 s",
            "peak 56",
            "▲ stop ",
            "5 more",
            "250 2.0.0 Ok: queued as *",
            "550 5.1.1 *: e\\x1b[Jvil\\u202e User unknown",
        ):
            assert expected in told.out, told.out
        assert re.search(r"^delivered +570  250 ", told.out, re.MULTILINE)
        assert re.search(r"^d0.example +0 ", told.out, re.MULTILINE)
        brief = await run(api.path, "show", "sale", "--brief")
        assert told.out.startswith(brief.out)
        assert "deliveries" not in brief.out
        few = await run(api.path, "show", "sale", "--top", "2")
        assert "13 more" in few.out
        assert "d3.example" not in few.out
        ascii_only = await run(
            api.path, "show", "sale", env={"LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        )
        assert ascii_only.code == 0
        assert ascii_only.out.isascii()
        assert "^ stop" in ascii_only.out


async def test_with_json_it_is_asked_for():
    """Broken: a script that polls the report makes the daemon count a million outcomes each time."""
    async with serving(await halted_node()) as api:
        assert "analysis" not in (await run(api.path, "--json", "show", "sale")).json
        told = (await run(api.path, "show", "sale", "--json", "--analysis")).json
        assert told["counts"]["delivered"] == 570
        assert sum(told["analysis"]["around_stop"]["delivered"]) == 570
        assert sum(told["analysis"]["around_stop"]["delivered_after_stop"]) == 10
        assert {lane["lane"] for lane in told["analysis"]["lanes"]} == {f"d{number}.example" for number in range(15)}
        assert told["analysis"]["replies"][0]["exact"] is True


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
async def test_no_terminal_is_overrun(columns):
    """Broken: a chart or a table wraps on somebody's terminal."""
    node = await halted_node()
    node.accept("x" * 128, ["a@" + "long." * 30 + "example"])
    async with serving(node) as api:
        for verb in (["show", "sale"], ["show", "x" * 128]):
            async with terminal(api.path, *verb, columns=columns) as screen:
                assert await screen.end() == 0
                assert max(len(line) for line in screen.text.splitlines()) <= columns, screen.text
                assert "\x1b" in screen.shown


async def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    """Broken: a full disk leaves half a page in the place of yesterday's."""
    node = await halted_node()
    async with serving(node) as api:
        target = tmp_path / "sale.html"
        told = await run(api.path, "show", "sale", "--html", str(target))
        assert (told.code, told.out) == (0, "")
        assert told.err == f"Written: {target}\n"
        text = target.read_text("utf-8")
        assert text.startswith("<!DOCTYPE html>")
        assert text.rstrip().endswith("</html>")
        assert "wrong prices" in text
        assert "e\\x1b[Jvil\\u202e" in text
        assert "&lt;r0@" not in text
        mask = os.umask(0)
        os.umask(mask)
        assert target.stat().st_mode & 0o777 == 0o666 & ~mask
        piped = await run(api.path, "show", "sale", "--html", "-")
        assert piped.err == ""
        assert re.sub(r"Made by .*", "", piped.out) == re.sub(r"Made by .*", "", text)
        brief = await run(api.path, "show", "sale", "--html", "-", "--brief")
        assert "Destinations" not in brief.out
        node.failures["analysis"] = StoreFailed("EIO")
        failed = await run(api.path, "show", "sale", "--html", str(target))
        assert failed.code == 1
        assert target.read_text("utf-8") == text
        nowhere = await run(api.path, "show", "sale", "--brief", "--html", str(tmp_path / "none" / "x.html"))
        assert nowhere.code == 1
        assert "can't be written: No such file or directory" in nowhere.err
        assert (await run(api.path, "--json", "show", "sale", "--html", "-")).code == 2
        assert sorted(path.name for path in tmp_path.iterdir()) == ["sale.html"]


async def test_the_counts_are_shown_where_the_rest_can_not_be():
    """Broken: with a broken disk the report itself is not to be had."""
    node = await halted_node()
    node.failures["analysis"] = StoreFailed("EIO")
    async with serving(node) as api:
        told = await run(api.path, "show", "sale")
        assert told.code == 1
        assert re.search(r"delivered +570", told.out)
        assert "EIO" in told.err
        node.accept("new", ["a@example.com"])
        node.failures.clear()
        fresh = await run(api.path, "show", "new")
        assert (fresh.code, fresh.err) == (0, "")
        assert "example.com       1" in fresh.out
