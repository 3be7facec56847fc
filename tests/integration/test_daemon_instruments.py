"""Metrics, log, events and reports tell the same story, and it is what the world saw."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections import Counter

from tests.world.control import until
from tests.world.daemon import check_law, daemon, peer_world
from tests.world.injector import Injector
from tests.world.newsletter import short_mails
from tests.world.operator import log_lines, metrics, outcomes, waiting

PROFILE = {
    "*": {"reject": 0.1, "defer": 0.1, "defer_end": 0.05, "reject_end": 0.05, "hang_up": 0.03},
    "grey.example": {"greylist": True},
    "slow.example": {"latency": 0.4},
}
DOMAINS = ("one.example", "two.example", "grey.example", "one.example", "slow.example")
KINDS = ("delivered", "bounced", "expired", "dropped", "unknown")
TOTALS = ("accepted", *KINDS, "refused", "discarded", "delivered_after_stop")


async def test_all_instruments_agree_after_a_busy_scenario(tmp_path):
    """If it failed, the alarm, the log and the report would each tell another story of what went wrong."""
    with (
        peer_world(tmp_path / "world", PROFILE) as world,
        daemon(tmp_path / "node", route=world.port, extra='[delivery]\nretry = ["0.5s"]') as node,
    ):
        for name, halt in (("first", False), ("second", True), ("", False)):
            injector = Injector(node.smtp_port, connections=3)
            await injector.inject(short_mails(name, 150, domains=DOMAINS))
            assert set(injector.answers.values()) == {250}
            if halt:
                await until(lambda: len(world.record().open_transactions("second")) >= 5)
                await asyncio.to_thread(node.halt, name)
                await Injector(node.smtp_port).inject(short_mails(name, 20, first=1000))
        node.halt("third")
        second = await asyncio.to_thread(node.wait_completed, "second")
        await until(lambda: not waiting(node), seconds=30)

        totals, scraped = node.status()["totals"], metrics(node)
        check_law(totals)
        assert totals["accepted"] == 450
        for name in TOTALS:
            assert scraped[f"mtactl_recipients_{name}_total",] == totals[name], name
        for state in ("ready", "deferred", "scheduled", "held"):
            assert scraped["mtactl_queue_recipients", state] == 0
        assert scraped["mtactl_in_flight_transactions",] == 0
        assert (scraped["mtactl_halts_total", "stop"], scraped["mtactl_halts_total", "cancel"]) == (1, 1)
        assert scraped["mtactl_halt_ack_seconds_count",] == 2
        after = second["counts"]["delivered_after_stop"]
        assert after >= 1
        assert scraped["mtactl_campaign_delivered_after_stop", "second"] == after
        assert second["counts"]["refused"] == 20
        assert not any(label in key[1:] for key in scraped for label in ("first", "one.example"))

        # A line for each outcome of an attempt, and for each time a recipient had to wait.
        bulk = second["stop"]["queued_at_stop"]  # ended without an attempt: the report has them, one by one
        attempted = totals["accepted"] + int(scraped["mtactl_recipients_deferred_total",]) - bulk
        await until(lambda: len(outcomes(node)) >= attempted)
        lines = outcomes(node)
        final = [line for line in lines if line["outcome"] != "deferred"]
        assert len(lines) - len(final) == scraped["mtactl_recipients_deferred_total",] > 0
        kinds = Counter(line["outcome"] for line in final)
        attempts = {line["recipient"]: line["attempts"] for line in final}
        for campaign in ("first", "second"):
            rows = node.recipients(campaign)
            report = node.report(campaign)["counts"]
            assert Counter(row["outcome"] for row in rows) == Counter(
                {kind: report[kind] for kind in ("delivered", "bounced", "dropped", "unknown") if report[kind]}
            )
            logged = {line["recipient"]: line for line in final if line["campaign"] == campaign}
            silent = [row for row in rows if row["recipient"] not in logged]
            assert len(silent) == (bulk if campaign == "second" else 0)
            # Unknown: an attempt before the halt was cut off at its very end, and was to be made again.
            assert {row["outcome"] for row in silent} <= {"dropped", "unknown"}
            kinds.update(row["outcome"] for row in silent)
            for row in rows:
                if row in silent:
                    continue
                line = logged[row["recipient"]]
                for key in ("outcome", "message", "peer", "code", "reply", "at", "attempts", "after_stop"):
                    assert line[key] == row[key], (key, line, row)
                assert line["delay_seconds"] >= 0
            delivered = {row["recipient"] for row in rows if row["outcome"] == "delivered"}
            assert delivered == set(world.record().delivered(campaign))
            if campaign == "first":
                assert {address: attempts[address] for address in logged} == world.record().attempts(campaign)
        assert kinds == Counter({kind: totals[kind] for kind in KINDS if totals[kind]})
        (asked,) = [line for line in log_lines(node, "control_command_done") if line["campaign"] == "second"]
        assert (asked["user"], asked["command"]) == (pwd.getpwuid(os.getuid()).pw_name, "halt"), asked
        assert node.stop() == 0
    assert node.fsck().returncode == 0, node.fsck().stdout
