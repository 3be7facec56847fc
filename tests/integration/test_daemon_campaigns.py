"""Halts of campaigns in every condition, by every way in: mail, API, client."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import urllib.parse

import pytest

from tests.world.application import inject
from tests.world.control import until
from tests.world.daemon import check_law, daemon
from tests.world.operator import mtactl, waiting
from tests.world.unruly import UnrulyPeer, run_unruly_peer

ODD = "a/b+c=d@e:f.g"


def documents(run) -> dict:
    assert run.returncode == 0, run
    return json.loads(run.stdout)


async def client(node, *arguments: str) -> dict:
    """Run the client while the peers of this loop go on; give its JSON document."""
    return documents(await asyncio.to_thread(mtactl, node.socket, "--json", *arguments))


async def test_mail_of_an_unknown_campaign_that_was_halted_is_refused(tmp_path):
    """If it failed, a campaign could not be stopped before its first mail comes."""
    async with run_unruly_peer("", "") as peer:
        with daemon(tmp_path, route=peer.port) as node:
            report = await client(node, "halt", "not-yet", "--confirm", "not-yet", "--reason", "wrong price")
            assert report["state"] == "halted"
            stop = report["stop"]
            assert (stop["kind"], stop["reason"]) == ("cancel", "wrong price")
            assert (stop["queued_at_stop"], stop["in_flight_at_stop"]) == (0, 0)
            assert stop["requested_by"] == {"uid": os.getuid(), "user": pwd.getpwuid(os.getuid()).pw_name}
            assert [step["name"] for step in report["steps"] if step["at"]] == [
                *("gate_closed", "recorded", "queue_dropped", "in_flight_finished", "completed")
            ]
            code, text = inject(node.smtp_port, "r@one.example", "s@two.example", campaign="not-yet")
            assert code == 550
            assert text.startswith("5.7.1 ")
            assert "not-yet" in text
            assert node.report("not-yet")["counts"]["refused"] == 2
            assert node.report("not-yet")["counts"]["accepted"] == 0
            # Another one's mail is not touched, nor is mail that belongs to none; ids know upper from lower case.
            for campaign in ("Not-Yet", None):
                assert inject(node.smtp_port, "r@one.example", campaign=campaign)[0] == 250
            await until(lambda: node.status()["totals"]["delivered"] == 2)

            # Twice: the same answer, whatever is said the second time.
            halt = "/v1/campaigns/not-yet/halt"
            again = node.call("POST", halt, {"confirm": "not-yet", "reason": "another reason"})[1]
            assert again["stop"] == stop
            assert again["steps"] == report["steps"]
            assert await asyncio.to_thread(node.stop) == 0
        assert len(peer.delivered) == 2


async def test_discard_takes_the_mail_and_throws_it_away(tmp_path):
    """If it failed, an application that can't cope with 550 would send it anyway, or the books would not balance."""
    async with run_unruly_peer("", "") as peer:
        with daemon(tmp_path, route=peer.port, extra='[campaign]\nafter_halt = "discard"') as node:
            node.halt("c")
            code, text = inject(node.smtp_port, "r@one.example", "s@one.example", campaign="c")
            assert code == 250
            assert "discard" in text
            assert inject(node.smtp_port, "r@one.example", campaign="other")[0] == 250
            await until(lambda: node.report("other")["counts"]["delivered"] == 1)
            counts = node.report("c")["counts"]
            assert (counts["discarded"], counts["refused"], counts["accepted"]) == (2, 0, 0)
            assert await asyncio.to_thread(node.stop) == 0
            node.start()
            assert node.report("c")["counts"] == counts
            assert await asyncio.to_thread(node.stop) == 0
        assert len(peer.delivered) == 1


async def test_hold_release_and_the_halt_of_a_held_campaign(tmp_path):
    """If it failed, a campaign could not be paused while someone thinks, or a paused one could not be stopped."""
    async with run_unruly_peer("", "") as peer:
        with daemon(tmp_path, route=peer.port) as node:
            assert (await client(node, "hold", "paused"))["state"] == "held"
            assert node.call("POST", "/v1/campaigns/stopped/hold")[1]["state"] == "held"
            for campaign in ("paused", "stopped"):
                for number in range(3):
                    assert inject(node.smtp_port, f"r{number}@one.example", campaign=campaign)[0] == 250
            assert inject(node.smtp_port, "r@one.example", campaign="free")[0] == 250
            await until(lambda: node.report("free")["counts"]["delivered"] == 1)
            await until(lambda: {row["state"] for row in waiting(node)} == {"held"})  # the other's outcome is on disk
            assert len(waiting(node, state="held", campaign="paused")) == 3
            assert node.status()["queue"] == {"ready": 0, "deferred": 0, "scheduled": 0, "held": 6}
            assert node.status()["campaigns"] == {"active": 1, "held": 2, "halting": 0, "halted": 0}

            node.halt("stopped")
            report = await asyncio.to_thread(node.wait_completed, "stopped")
            assert (report["state"], report["stop"]["kind"]) == ("halted", "cancel")
            assert report["stop"]["queued_at_stop"] == 3
            assert report["counts"]["dropped"] == 3
            run = await asyncio.to_thread(mtactl, node.socket, "release", "stopped")
            assert run.returncode == 1, run
            assert "halted" in run.stderr
            assert node.call("POST", "/v1/campaigns/stopped/hold")[0] == 409
            assert (await client(node, "release", "paused"))["state"] == "active"
            assert node.call("POST", "/v1/campaigns/paused/release")[1]["state"] == "active"
            await until(lambda: node.report("paused")["counts"]["delivered"] == 3)
            check_law(node.status()["totals"])
            assert await asyncio.to_thread(node.stop) == 0
        assert len(peer.delivered) == 4
        assert node.fsck().returncode == 0, node.fsck().stdout


@pytest.fixture
async def dot_peer():
    async with run_unruly_peer("dot", "silent") as peer:
        yield peer


async def test_odd_characters_in_a_campaign_id_work_everywhere(tmp_path, dot_peer: UnrulyPeer):
    """If it failed, a campaign with a slash in its name could be sent, but not be stopped."""
    with daemon(tmp_path, route=dot_peer.port) as node:
        assert inject(node.smtp_port, "r@one.example", campaign=ODD)[0] == 250
        await until(lambda: dot_peer.there == 1)
        assert node.report(ODD)["campaign"] == ODD
        assert (await client(node, "show", ODD))["counts"]["in_flight"] == 1
        assert [each["campaign"] for each in node.call("GET", "/v1/campaigns")[1]["campaigns"]] == [ODD]
        quoted = urllib.parse.quote(ODD, safe="")
        (row,) = waiting(node, campaign=quoted)
        assert row["campaign"] == ODD
        # A client may leave the slash and the other characters that a path may have as they are.
        assert node.call("GET", f"/v1/campaigns/{ODD}")[1]["campaign"] == ODD
        run = await asyncio.to_thread(mtactl, node.socket, "halt", ODD, "--confirm", ODD, "--timeout", "0.3")
        assert run.returncode == 5, run
        assert ODD in run.stdout
        dot_peer.answer(b"250 2.0.0 got it\r\n")
        report = await asyncio.to_thread(node.wait_completed, ODD)
        assert report["stop"]["kind"] == "stop"
        assert report["counts"]["delivered_after_stop"] == 1
        code, text = inject(node.smtp_port, "r@one.example", campaign=ODD)
        assert (code, ODD in text) == (550, True)
        lines = await asyncio.to_thread(mtactl, node.socket, "recipients", ODD, "--format", "csv")
        assert "r@one.example" in lines.stdout
        assert await asyncio.to_thread(node.stop) == 0
