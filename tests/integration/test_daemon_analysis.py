"""What a real daemon says of when, where to and with which replies a campaign went, against its own counts."""

from __future__ import annotations

import asyncio
import itertools

from tests.world.application import inject
from tests.world.control import until
from tests.world.daemon import daemon
from tests.world.operator import mtactl
from tests.world.smtp_peer import EHLO_PLAIN, Conversation, run_smtp_peer

QUEUE_IDS = itertools.count(0x4F00AA10)


async def choose(talk: Conversation) -> None:
    """Take mail, save that of people whose names begin with no (for ever) or later (for now)."""
    talk.say(b"220 peer.test ESMTP\r\n")
    while line := await talk.reader.readline():
        if line.startswith(b"EHLO"):
            talk.say(EHLO_PLAIN)
        elif line.startswith(b"RCPT TO:<no"):
            talk.say(b"550 5.1.1 %b: User unknown\r\n" % line[8:].strip())
        elif line.startswith(b"RCPT TO:<later"):
            talk.say(b"450 4.2.0 Mailbox busy\r\n")
        elif line.startswith(b"DATA"):
            talk.say(b"354 go\r\n")
            await talk.hear_message()
            talk.say(b"250 2.0.0 Ok: queued as %X\r\n" % next(QUEUE_IDS))
        elif line.startswith(b"QUIT"):
            talk.say(b"221 2.0.0 bye\r\n")
            return
        else:
            talk.say(b"250 2.0.0 Ok\r\n")


def analysis(node, campaign: str) -> dict:
    status, document = node.call("GET", f"/v1/campaigns/{campaign}/analysis")
    assert status == 200, document
    return document


def agree(found: dict, counts: dict) -> None:
    """Assert that the destinations and the times add up to the counts."""
    lanes = [*found["lanes"], *([found["others"]] if found["others"] else [])]
    for name in ("queued", "in_flight", "delivered", "bounced", "expired", "dropped", "unknown"):
        assert sum(lane[name] for lane in lanes) == counts[name], (name, found, counts)
    for name in ("delivered", "delivered_after_stop", "bounced", "expired", "dropped", "unknown"):
        assert sum(found["timeline"][name]) == counts[name], (name, found["timeline"], counts)
    assert found["forgotten"] == 0


async def test_it_agrees_with_the_report(tmp_path):
    """If it failed, the table of destinations or the picture would tell something else than the counts above it."""
    async with run_smtp_peer(choose) as peer:
        with daemon(tmp_path, route=peer.port) as node:
            for number in range(12):
                names = [f"yes{number}@one.example", f"yes{number}@two.example", f"later{number}@one.example"]
                if number % 3 == 0:
                    names.append(f"no{number}@two.example")
                assert inject(node.smtp_port, *names, campaign="c1")[0] == 250
            await until(lambda: node.report("c1")["counts"]["in_flight"] == 0, seconds=60)
            await until(lambda: node.status()["queue"]["deferred"] == 12, seconds=60)
            counts = node.report("c1")["counts"]
            assert (counts["delivered"], counts["bounced"], counts["queued"]) == (24, 4, 12)
            found = analysis(node, "c1")
            agree(found, counts)
            assert [lane["lane"] for lane in found["lanes"]] == ["one.example", "two.example"]
            assert [lane["deferred"] for lane in found["lanes"]] == [12, 0]
            assert found["around_stop"] is None
            replies = {(row["outcome"], row["code"], row["text"]): row["recipients"] for row in found["replies"]}
            assert replies == {
                ("delivered", 250, "2.0.0 Ok: queued as *"): 24,
                ("bounced", 550, "5.1.1 *: User unknown"): 4,
                ("deferred", 450, "4.2.0 Mailbox busy"): 12,
            }
            assert analysis(node, "c1") == found  # kept
            shown = await asyncio.to_thread(mtactl, node.socket, "show", "c1")
            assert shown.returncode == 0, shown
            assert "550 5.1.1 *: User unknown" in shown.stdout

            node.halt("c1")
            await until(lambda: node.report("c1")["state"] == "halted", seconds=60)
            counts = node.report("c1")["counts"]
            assert counts["dropped"] == 12
            several = await asyncio.gather(*(asyncio.to_thread(analysis, node, "c1") for _ in range(4)))
            agree(several[0], counts)
            assert all(one == several[0] for one in several)
            assert sum(several[0]["around_stop"]["dropped"]) == 12

            # Of one that was only ever halted there is nothing to tell, and of one never seen even less.
            node.halt("c2")
            empty = analysis(node, "c2")
            assert (empty["timeline"], empty["lanes"], empty["others"], empty["replies"]) == (None, [], None, [])
            assert node.call("GET", "/v1/campaigns/c3/analysis")[0] == 404
            assert node.call("GET", "/v1/campaign-ids")[1] == {"campaigns": ["c1", "c2"], "truncated": False}
            assert node.call("GET", "/v1/campaign-ids?state=active")[1]["campaigns"] == []
            assert node.call("GET", "/v1/campaign-ids?prefix=c&limit=1")[1] == {"campaigns": ["c1"], "truncated": True}
            assert await asyncio.to_thread(node.stop) == 0
