"""The daemon's start, stop and reload: nothing is lost, and what was promised before holds after."""

from __future__ import annotations

import asyncio
import signal
import socket
import stat

from tests.world.application import inject, message
from tests.world.control import until
from tests.world.daemon import check_law, daemon
from tests.world.operator import eventually, log_lines, mtactl, outcomes
from tests.world.unruly import run_unruly_peer


class Client:
    """An SMTP client that is in the middle of something."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.file = self.socket.makefile("rb")
        assert self.reply() == 220
        self.say(b"HELO app.example\r\n")
        assert self.reply() == 250

    def say(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def reply(self) -> int:
        """Read a reply of one line; 0 when the connection was closed."""
        return int(self.file.readline()[:3] or b"0")

    def send_half(self, recipient: str, campaign: str) -> None:
        """Send a message up to its middle."""
        self.say(b"MAIL FROM:<a@news.example>\r\nRCPT TO:<%b>\r\nDATA\r\n" % recipient.encode())
        assert [self.reply() for _ in range(3)] == [250, 250, 354]
        self.say(message(campaign))

    def close(self) -> None:
        self.file.close()
        self.socket.close()


async def test_orderly_stop_finishes_what_is_under_way(tmp_path):
    """If it failed, an upgrade of the daemon would deliver mail twice, or lose mail that was answered 250."""
    async with run_unruly_peer("dot", "silent") as peer:
        with daemon(tmp_path, route=peer.port) as node:
            assert node.call("POST", "/v1/campaigns/held/hold")[0] == 200
            assert inject(node.smtp_port, "r@held.example", campaign="held")[0] == 250
            assert inject(node.smtp_port, "r@one.example", campaign="flying")[0] == 250
            await until(lambda: peer.there == 1)
            idle, busy = Client(node.smtp_port), Client(node.smtp_port)
            busy.send_half("s@two.example", "late")
            node.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(idle.reply) == 421
            assert await asyncio.to_thread(idle.reply) == 0
            assert not node.is_ready()
            busy.say(b".\r\n")
            assert await asyncio.to_thread(busy.reply) == 250
            assert await asyncio.to_thread(busy.reply) == 421
            assert node.process.poll() is None, "a transaction is in flight"
            peer.behave()
            peer.answer(b"250 2.0.0 taken at the last moment\r\n")
            assert await asyncio.to_thread(node.process.wait, 20) == 0
            for client in (idle, busy):
                client.close()
            assert node.fsck().returncode == 0, node.fsck().stdout
            assert not node.socket.exists()

            node.start()
            counts = node.report("flying")["counts"]
            assert (counts["accepted"], counts["delivered"]) == (1, 1)
            assert node.report("held")["state"] == "held"
            assert node.report("held")["counts"]["queued"] == 1
            await until(lambda: node.report("late")["counts"]["delivered"] == 1)
            assert [line["event"] for line in log_lines(node) if "last run" in line["event"]] == []
            assert await asyncio.to_thread(node.stop) == 0
        named = sorted(line for line in peer.heard if line.startswith(b"RCPT"))
        assert named == [b"RCPT TO:<r@one.example>\r\n", b"RCPT TO:<s@two.example>\r\n"], "nothing is sent twice"


async def test_stop_waits_no_longer_than_the_limit(tmp_path):
    """If it failed, one peer that hangs would keep the service manager waiting until it kills the daemon."""
    async with run_unruly_peer("dot", "silent") as peer:
        extra = '[delivery]\nshutdown_timeout = "0.5s"\nretry = ["0.2s"]'
        with daemon(tmp_path, route=peer.port, extra=extra) as node:
            for campaign in ("goes-on", "stopped"):
                assert inject(node.smtp_port, f"r@{campaign}.example", campaign=campaign)[0] == 250
            await until(lambda: peer.there == 2)
            report, _, _ = node.halt("stopped")
            assert report["stop"]["in_flight_at_stop"] == 1
            assert report["state"] == "halting"
            assert await asyncio.to_thread(node.stop, 20) == 0
            assert node.fsck().returncode == 0, node.fsck().stdout
            peer.behave()
            node.start()
            report = await asyncio.to_thread(node.wait_completed, "stopped")
            assert report["counts"]["unknown"] == 1, "its end had been written, and nobody heard the answer"
            await until(lambda: node.report("goes-on")["counts"]["delivered"] == 1)
            check_law(node.status()["totals"])
            assert await asyncio.to_thread(node.stop) == 0
        assert len(peer.delivered) == 1


async def test_halt_and_hold_survive_a_restart(tmp_path):
    """If it failed, a campaign that was stopped in the evening would go out after the reboot at night."""
    async with run_unruly_peer("", "") as peer:
        with daemon(tmp_path, route=peer.port) as node:
            for name in ("held", "paused-then-halted"):
                assert node.call("POST", f"/v1/campaigns/{name}/hold")[0] == 200
                assert inject(node.smtp_port, "r@one.example", campaign=name)[0] == 250
            halted, _, _ = node.halt("never-seen")
            node.halt("paused-then-halted")
            before = node.wait_completed("paused-then-halted"), node.wait_completed("never-seen")
            assert before[0]["counts"]["dropped"] == 1
            assert halted["stop"]["kind"] == before[0]["stop"]["kind"] == "cancel"
            node.kill9()  # leaves its socket behind
            assert stat.S_ISSOCK(node.socket.stat().st_mode)
            node.start()
            assert (node.report("paused-then-halted"), node.report("never-seen")) == before
            assert node.report("held")["state"] == "held"
            for name in ("never-seen", "paused-then-halted"):
                code, text = inject(node.smtp_port, "s@one.example", campaign=name)
                assert code == 550
                assert text.startswith("5.7.1 ")
                assert name in text
            assert inject(node.smtp_port, "s@one.example", campaign="held")[0] == 250
            assert node.report("held")["counts"]["queued"] == 2
            status, problem = node.call("POST", "/v1/campaigns/never-seen/release")
            assert status == 409, problem
            assert node.call("POST", "/v1/campaigns/held/release")[0] == 200
            await until(lambda: node.report("held")["counts"]["delivered"] == 2)
            assert await asyncio.to_thread(node.stop) == 0
        assert len(peer.delivered) == 2
        assert node.fsck().returncode == 0, node.fsck().stdout


def rewrite(node, *changes: tuple[str, str]) -> None:
    text = node.config.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    node.config.write_text(text)


async def test_reload_applies_what_it_can_and_says_the_rest(tmp_path):
    """If it failed, an administrator would have to restart, and stop all mail, to slow one destination down."""
    async with run_unruly_peer("", "") as peer:
        extra = '[delivery]\nretry = ["1h"]\n[campaign]\nafter_halt = "reject"\n[log]\nlevel = "info"'
        with daemon(tmp_path, route=peer.port, lane='rate = "1000/s"', extra=extra) as node:
            assert inject(node.smtp_port, "r@one.example", campaign="c")[0] == 250
            await until(lambda: len(outcomes(node)) == 1)
            node.halt("gone")
            good = node.config.read_text()

            # A bad file: nothing changes, not even what is good in it.
            rewrite(node, ('rate = "1000/s"', 'rate = "5/s"'), ('level = "info"', 'level = "loud"\ncolour = true'))
            status, problem = node.call("POST", "/v1/reload")
            assert status == 422, problem
            assert {"log.level", "log.colour"} <= {
                key for text in problem["problems"] for key in ("log.level", "log.colour") if key in text
            }
            run = mtactl(node.socket, "reload")
            assert run.returncode == 1
            assert "log.colour" in run.stderr
            node.process.send_signal(signal.SIGHUP)
            (line,) = eventually(lambda: [each for each in log_lines(node) if "not reloaded" in each["event"]])
            assert any("log.colour" in text for text in line["problems"])
            assert node.call("GET", "/v1/lanes")[1]["lanes"][0]["rate"] == 1000
            assert inject(node.smtp_port, "r@one.example", campaign="gone")[0] == 550

            # A good one.
            node.config.write_text(good)
            other = tmp_path / "elsewhere"
            rewrite(
                node,
                ('rate = "1000/s"', 'rate = "500/s"'),
                ('"reject"', '"discard"'),
                ('["1h"]', '["2h"]'),
                (f'path = "{tmp_path}/store"', f'path = "{other}"'),
                ('name = "mx1"', 'name = "mx2"'),
                ("[control]", '[control]\nmode = "0600"'),
            )
            status, report = node.call("POST", "/v1/reload")
            assert status == 200, report
            assert set(report["applied"]) == {'lane."*".rate', "campaign.after_halt", "delivery.retry"}
            assert set(report["needs_restart"]) == {"node.name", "store.path", "control.mode"}
            assert not other.exists()
            assert node.call("GET", "/v1/lanes")[1]["lanes"][0]["rate"] == 500
            assert inject(node.smtp_port, "r@one.example", campaign="gone")[0] == 250
            counts = node.report("gone")["counts"]
            assert (counts["refused"], counts["discarded"], counts["accepted"]) == (1, 1, 0)
            assert node.status()["node"] == "mx1"
            # What waits for a restart is told again, until there is one.
            status, report = node.call("POST", "/v1/reload")
            assert set(report["needs_restart"]) == {"node.name", "store.path", "control.mode"}, report

            # By signal, and the log's level.
            rewrite(node, ('level = "info"', 'level = "warning"'), ('rate = "500/s"', 'rate = "400/s"'))
            node.process.send_signal(signal.SIGHUP)
            await until(lambda: node.call("GET", "/v1/lanes")[1]["lanes"][0]["rate"] == 400)
            before = len(outcomes(node))
            assert inject(node.smtp_port, "r@one.example", campaign="c")[0] == 250
            await until(lambda: node.report("c")["counts"]["delivered"] == 2)
            assert len(outcomes(node)) == before
            assert await asyncio.to_thread(node.stop) == 0
