"""The queue as its operators see it: every state real, FUTURERELEASE, and retry and drop by what they name."""

from __future__ import annotations

import asyncio
import json
import time

from tests.world.application import inject, queue_id
from tests.world.control import until
from tests.world.daemon import check_law, daemon, peer_world
from tests.world.operator import mtactl, outcomes, waiting
from tests.world.unruly import run_unruly_peer


async def test_mail_with_a_release_time_waits_for_it(tmp_path):
    """If it failed, mail for tomorrow morning would go out now, or never, or after its campaign was stopped."""
    async with run_unruly_peer("", "") as peer:
        with daemon(tmp_path, route=peer.port) as node:
            begun = time.monotonic()
            for campaign, option in (("soon", "HOLDFOR=2"), ("stopped", "HOLDFOR=3"), ("later", "HOLDFOR=3600")):
                assert inject(node.smtp_port, "r@one.example", campaign=campaign, mail=[option])[0] == 250
            assert inject(node.smtp_port, "r@one.example", mail=["HOLDFOR=99999999"])[0] == 501
            assert inject(node.smtp_port, "r@one.example", mail=["HOLDUNTIL=yesterday"])[0] == 501
            states = {row["campaign"]: row for row in waiting(node)}
            assert {row["state"] for row in states.values()} == {"scheduled"}
            assert states["soon"]["due_at"] > states["soon"]["arrived_at"]
            assert node.status()["queue"] == {"ready": 0, "deferred": 0, "scheduled": 3, "held": 0}
            report, _, _ = node.halt("stopped")
            assert (report["stop"]["kind"], report["stop"]["queued_at_stop"]) == ("cancel", 1)
            assert node.wait_completed("stopped")["counts"]["dropped"] == 1
            assert not peer.delivered
            await until(lambda: peer.delivered)
            assert time.monotonic() - begun >= 2.0
            await until(lambda: node.report("soon")["counts"]["delivered"] == 1)
            (line,) = outcomes(node, "soon")
            assert line["delay_seconds"] >= 2.0
            # A restart does not forget the time.
            assert await asyncio.to_thread(node.stop) == 0
            node.start()
            await asyncio.sleep(1.2)  # the halted one would be due by now
            (row,) = waiting(node)
            assert (row["campaign"], row["state"], row["due_at"]) == ("later", "scheduled", states["later"]["due_at"])
            assert await asyncio.to_thread(node.stop) == 0
        assert len(peer.delivered) == 1


LANES = """
[lane."in-flight.example"]
route = ["127.0.0.1:{port}"]
[lane."slow.example"]
rate = "1/h"
[delivery]
retry = ["1h"]
"""


async def test_every_state_is_listed_shown_retried_and_dropped(tmp_path):
    """If it failed, an administrator would not find a message, or a retry or drop would hit the wrong ones."""
    world_of = {"deferred.example": {"greylist": True}, "again.example": {"greylist": True}}
    async with run_unruly_peer("dot", "silent") as peer:
        with peer_world(tmp_path / "world", world_of) as world:
            extra = LANES.format(port=peer.port)
            with daemon(tmp_path / "node", route=world.port, extra=extra) as node:
                assert node.call("POST", "/v1/campaigns/h/hold")[0] == 200
                assert inject(node.smtp_port, "first@slow.example")[0] == 250
                await until(lambda: node.status()["totals"]["delivered"] == 1)
                wanted = {
                    "in_flight": ("r@in-flight.example", "c", "a@news.example", ()),
                    "deferred": ("r@deferred.example", "c", "a@news.example", ()),
                    "ready": ("r@slow.example", "c", "b@news.example", ()),
                    "held": ("r@free.example", "h", "a@news.example", ()),
                    "scheduled": ("r@free.example", "s", "", ["HOLDFOR=3600"]),
                }
                ids = {
                    state: queue_id(inject(node.smtp_port, to, campaign=name, sender=sender, mail=options))
                    for state, (to, name, sender, options) in wanted.items()
                }
                two = queue_id(inject(node.smtp_port, "x@again.example", "y@free.example", campaign="c"))
                states = {ids[state]: state for state in ids} | {two: "deferred"}
                await until(lambda: {row["message"]: row["state"] for row in waiting(node)} == states)
                for state, number in ids.items():
                    found = [row["message"] for row in waiting(node, state=state)]
                    assert found == ([number, two] if state == "deferred" else [number]), state
                    shown = node.call("GET", f"/v1/queue/{number}")[1]
                    assert [row["state"] for row in shown["waiting"]] == [state]
                    assert shown["settled"] == []
                shown = node.call("GET", f"/v1/queue/{two.lower()}")[1]
                assert [row["recipient"] for row in shown["waiting"]] == ["x@again.example"]
                assert shown["waiting"][0]["last_reply"].startswith("450 ")
                assert [(row["recipient"], row["outcome"]) for row in shown["settled"]] == [
                    ("y@free.example", "delivered")
                ]
                run = await asyncio.to_thread(mtactl, node.socket, "--json", "queue", "ls", "--domain", "SLOW.example")
                assert [row["message"] for row in json.loads(run.stdout)["recipients"]] == [ids["ready"]]
                run = await asyncio.to_thread(mtactl, node.socket, "queue", "show", ids["deferred"])
                assert "r@deferred.example" in run.stdout
                assert node.call("GET", "/v1/queue/NOTHING1")[0] == 404
                assert [row["message"] for row in waiting(node, limit="2")] == sorted(states)[:2]

                # Retry: only what is named, and only what waits after a failure.
                assert node.call("POST", "/v1/queue/retry", {"id": ids["held"]})[1] == {"recipients": 0}
                run = await asyncio.to_thread(
                    mtactl, node.socket, "--json", "queue", "retry", "--domain", "deferred.example"
                )
                assert json.loads(run.stdout) == {"recipients": 1}
                await until(lambda: world.record().delivered("c") or len(waiting(node)) == 5)
                assert {row["message"] for row in waiting(node)} == set(states) - {ids["deferred"]}
                assert node.call("POST", "/v1/queue/retry", {"campaign": "c"}) == (200, {"recipients": 1})
                await until(lambda: len(waiting(node)) == 4)

                # Drop: what waits and not what is in flight.
                command = ("queue", "drop", "--sender", "b@news.example")
                run = await asyncio.to_thread(mtactl, node.socket, "--json", *command, "--confirm")
                assert json.loads(run.stdout) == {"recipients": 1}
                assert node.call("POST", "/v1/queue/drop", {"domain": "in-flight.example"})[1] == {"recipients": 0}
                assert node.call("POST", "/v1/queue/drop", {})[0] == 422
                assert node.call("POST", "/v1/queue/drop", {"sender": "<>"})[1] == {"recipients": 1}
                assert node.call("POST", "/v1/queue/drop", {"id": ids["held"]})[1] == {"recipients": 1}
                assert [row["message"] for row in waiting(node)] == [ids["in_flight"]]
                (settled,) = node.call("GET", f"/v1/queue/{ids['ready']}")[1]["settled"]
                assert (settled["outcome"], settled["after_stop"]) == ("dropped", False)
                peer.answer(b"250 2.0.0 ok\r\n")
                await until(lambda: not waiting(node))
                totals = node.status()["totals"]
                check_law(totals)
                assert (totals["delivered"], totals["dropped"]) == (5, 3)
                assert await asyncio.to_thread(node.stop) == 0
        assert node.fsck().returncode == 0, node.fsck().stdout
