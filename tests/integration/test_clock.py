"""A clock that jumps, by hours or years, in either direction: nothing is lost, nothing spins, halts don't care."""

from __future__ import annotations

import asyncio
import json
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mtactl.core import Core
from mtactl.schedule.clock import ClockWatch
from mtactl.schedule.ports import Ending
from mtactl.settings import DeliverySettings, Settings
from queue_store.records import NewMessage, NewRecipient, QueueFilter
from queue_store.store import QueueStore
from tests.world.application import inject
from tests.world.control import until
from tests.world.daemon import check_law, daemon
from tests.world.operator import log_lines, mtactl, waiting
from tests.world.scripted_relay import ScriptedRelay
from tests.world.unruly import run_unruly_peer

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
NOON = 1_800_000_000 * SECOND
BODY = b"Subject: x\r\n\r\nhello\r\n.\r\n"
JUMPS = [HOUR, -HOUR, 30 * DAY, -30 * DAY, 3650 * DAY, -3650 * DAY]


class Bench:
    """The core on a clock that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = NOON
        self.promotions = 0

    @asynccontextmanager
    async def running(self):
        self.relay = ScriptedRelay(lambda _: None)
        self.store = await QueueStore.open(self.folder, reserve=0, now=lambda: self.clock)
        delivery = DeliverySettings(retry=("5m", "1h"), expire_after="3d")
        self.core = Core(
            store=self.store, relay=self.relay, settings=Settings(delivery=delivery), now=lambda: self.clock
        )
        promote = self.store.promote

        def counted(*given, **named):
            self.promotions += 1
            return promote(*given, **named)

        self.store.promote = counted
        try:
            async with self.core:
                yield
        finally:
            await self.store.close()

    async def inject(self, campaign: str, lane: str) -> None:
        claimed = self.core.claim_for(lane, campaign, 1)
        recipients = [NewRecipient(address=f"r@{lane}", lane=lane, claimed=claimed)]
        message = NewMessage(
            campaign=campaign, reverse_path="s@x.test", received_at=self.clock, body=[BODY], recipients=recipients
        )
        self.core.enter(await self.store.append(message), message)

    async def answer(self, ending: Ending, transactions: int = 1) -> None:
        await until(lambda: len(self.relay.open) == transactions)
        for session in list(self.relay.open):
            session.end_message()
            session.answer(ending)
        await until(lambda: not self.core.ledger.total.in_flight)
        await self.core.settler.drain()

    def account(self, campaign: str):
        return self.core.ledger.account(campaign)


@pytest.mark.parametrize("jump", JUMPS)
async def test_mail_outlives_a_jump_of_the_clock(tmp_path, jump):
    """If it failed, a clock that is set right would expire the queue, or keep it waiting for years."""
    bench = Bench(tmp_path / "store")
    async with bench.running():
        await bench.inject("c", "one.test")
        await bench.inject("halted", "two.test")
        await bench.answer(Ending.TRANSIENT, 2)
        assert (bench.account("c").deferred, bench.account("halted").deferred) == (1, 1)
        bench.clock += jump
        halt = await bench.core.halter.halt("halted", reason=None, uid=0, user="root")
        assert halt.requested_at == bench.clock
        async with asyncio.timeout(20):
            while halt.completed_at is None:
                await asyncio.sleep(0.01)
        before = bench.promotions
        await asyncio.sleep(0.3)
        assert bench.promotions - before <= 8, "it does not spin"
        await bench.core.upkeep.promote_due()
        await bench.core.upkeep.expire_old()
        account = bench.account("c")
        assert account.accepted == account.queued + account.in_flight + account.delivered + account.expired
        assert account.expired == 0, "an hour is not enough to call it old, and a jump is no time that has passed"
        if jump < 0:
            assert account.queued == 1
            await bench.core.upkeep.recall()  # what is due in years would wait for years
            if jump == -HOUR:
                (row,) = await bench.store.queue(QueueFilter(campaign="c"), limit=9)
                assert row.due is not None and row.due - bench.clock < 2 * HOUR, "within what a retry may take"
                bench.clock = NOON + HOUR
                await bench.core.upkeep.promote_due()
        await bench.answer(Ending.DELIVERED)
        assert bench.account("c").delivered == 1
    bench.clock += jump
    async with bench.running():  # and between two runs
        assert bench.account("c").delivered == 1
        assert bench.core.halter.halts["halted"].completed_at is not None
        await bench.inject("c", "one.test")
        await bench.answer(Ending.DELIVERED)
        assert bench.account("c").delivered == 2


class ShiftedClock:
    """libfaketime's file, which a daemon reads at each look at its clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set("+0")

    def set(self, offset: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(f"{offset}\n")
        new.rename(self.path)

    @property
    def environment(self) -> dict[str, str]:
        library = subprocess.run(
            ["faketime", "-m", "1 hour ago", "printenv", "LD_PRELOAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        return {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self.path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }


@pytest.mark.needs("faketime", "faketime")
async def test_daemon_whose_clock_is_set(tmp_path):
    """If it failed, the first start before the clock is right, or a wrong time server, would lose mail or halts."""
    clock = ShiftedClock(tmp_path / "clock")
    async with run_unruly_peer("", "") as peer:
        with daemon(tmp_path, route=peer.port, extra='[delivery]\nretry = ["0.3s"]') as node:
            assert await asyncio.to_thread(node.stop) == 0
            for number, offset in enumerate(("-400d", "+400d")):
                clock.set(offset)
                node.start(env=clock.environment)
                assert node.call("POST", "/v1/campaigns/held/hold")[0] in (200, 409)
                assert inject(node.smtp_port, f"r{number}@one.example", campaign=f"c{number}")[0] == 250
                await until(lambda number=number: len(peer.delivered) == 2 * number + 1)
                clock.set("-3d")
                assert inject(node.smtp_port, f"s{number}@one.example", campaign=f"c{number}")[0] == 250
                await until(lambda number=number: len(peer.delivered) == 2 * number + 2)
                report, _, _ = await asyncio.to_thread(node.halt, f"c{number}")
                assert report["stop"]["requested_at"].endswith("Z")
                report = await asyncio.to_thread(node.wait_completed, f"c{number}")
                assert (report["counts"]["delivered"], report["counts"]["accepted"]) == (2, 2)
                clock.set("+20d")
                for earlier in range(number + 1):
                    assert node.report(f"c{earlier}")["state"] == "halted"
                    assert inject(node.smtp_port, "r@one.example", campaign=f"c{earlier}")[0] == 550
                check_law(node.status()["totals"])
                for command in (["status"], ["show", f"c{number}"]):
                    shown = await asyncio.to_thread(mtactl, node.socket, *command)
                    assert shown.returncode == 0, shown.stderr
                assert "-1 day" not in shown.stdout
                assert await asyncio.to_thread(node.stop) == 0
            assert node.fsck().returncode == 0, node.fsck().stdout
            assert not [line for line in log_lines(node) if line["level"] in ("error", "critical")]


@pytest.mark.needs("faketime", "faketime")
async def test_deferred_mail_is_tried_after_the_clock_was_set_back(tmp_path):
    """If it failed, mail that was deferred while the clock was a year ahead would wait for that year."""
    clock = ShiftedClock(tmp_path / "clock")
    clock.set("+300d")
    async with run_unruly_peer("rcpt", "hangs-up") as peer:
        extra = '[delivery]\nretry = ["0.3s"]\nexpire_after = "1h"'
        with daemon(tmp_path, route=peer.port, extra=extra) as node:
            assert await asyncio.to_thread(node.stop) == 0
            node.start(env=clock.environment)
            assert inject(node.smtp_port, "r@one.example", campaign="c")[0] == 250
            await until(lambda: peer.there >= 1)
            await until(lambda: bool(waiting(node)))
            assert await asyncio.to_thread(node.stop) == 0
            clock.set("+0")
            peer.behave()
            node.start(env=clock.environment)
            await until(lambda: node.report("c")["counts"]["delivered"] == 1, seconds=40)
            check_law(node.status()["totals"])
            assert json.dumps(node.status())
            assert await asyncio.to_thread(node.stop) == 0


def test_nothing_expires_for_an_hour_after_a_jump_ahead():
    """If it failed, setting the clock right after a start with a wrong one would end all mail that waits."""
    wall, steady = [NOON], [0.0]
    clock = ClockWatch(lambda: wall[0], lambda: steady[0])

    def passes(seconds: float, *, set_by: float = 0.0) -> bool:
        steady[0] += seconds
        wall[0] += int((seconds + set_by) * SECOND)
        return clock.lets_expire()

    assert passes(86_400)
    assert passes(60, set_by=500), "a correction is no jump"
    assert not passes(60, set_by=10 * 86_400)
    assert not passes(3_500)
    assert passes(200)
    assert not passes(1, set_by=3_600)
    assert passes(1, set_by=-3_600), "and it was set right"
    assert passes(1, set_by=-400 * 86_400)
