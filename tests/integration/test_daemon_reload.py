"""A reload takes effect: each kind of key, changed under a daemon that runs, and what the daemon then does."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import grp
import os
import shutil
import smtplib
import stat
import tempfile
import time
from pathlib import Path

import pytest

from tests.world.application import inject
from tests.world.control import curl, until
from tests.world.daemon import daemon, peer_world
from tests.world.dns_server import run_dns_server
from tests.world.injector import Injector
from tests.world.newsletter import short_mails
from tests.world.operator import log_lines, metrics, waiting
from tests.world.smtp_peer import Conversation, run_smtp_peer
from tests.world.unruly import run_unruly_peer

NOBODY = 65534


class Reloader:
    """Rewrites a daemon's file: what it began with, and the tables that are given."""

    def __init__(self, node) -> None:
        self.node = node
        self.base = node.config.read_text()

    def __call__(self, tables: str, *applied: str, base: tuple[str, str] = ("", "")) -> None:
        """Write, reload, and look at what is said to be applied."""
        self.node.config.write_text(self.base.replace(*base) + tables)
        status, report = self.node.call("POST", "/v1/reload")
        assert status == 200, report
        assert (set(report["applied"]), report["needs_restart"]) == (set(applied), []), report


def seconds_to_due(node, address: str) -> float:
    """Give how long a recipient still has to wait."""
    (row,) = [row for row in waiting(node, state="deferred") if row["recipient"] == address]
    return (dt.datetime.fromisoformat(row["due_at"]) - dt.datetime.now(dt.UTC)).total_seconds()


def longest_hold(node) -> int:
    """Give what EHLO says of FUTURERELEASE, in seconds."""
    with smtplib.SMTP("127.0.0.1", node.smtp_port, timeout=30) as session:
        session.ehlo()
        return int(session.esmtp_features["futurerelease"].split()[0])


async def test_what_waits_follows_the_new_times(tmp_path):
    """If it failed, mail would go on by yesterday's schedule, and outcomes be kept longer than the law allows."""
    profile = {"later.example": {"defer": 1.0}}
    with (
        peer_world(tmp_path / "world", profile) as world,
        daemon(tmp_path / "node", route=world.port) as node,
    ):
        reload = Reloader(node)
        reload('[delivery]\nretry = ["1h"]', "delivery.retry")
        assert inject(node.smtp_port, "one@later.example", campaign="c")[0] == 250
        await until(lambda: len(waiting(node, state="deferred")) == 1)
        reload('[delivery]\nretry = ["2h"]', "delivery.retry")
        assert inject(node.smtp_port, "two@later.example", campaign="c")[0] == 250
        await until(lambda: len(waiting(node, state="deferred")) == 2)
        assert 3300 < seconds_to_due(node, "one@later.example") <= 4050
        assert 6900 < seconds_to_due(node, "two@later.example") <= 8100

        assert longest_hold(node) == 36 * 3600
        reload('[delivery]\nretry = ["2h"]\nexpire_after = "4h"', "delivery.expire_after")
        assert longest_hold(node) == 2 * 3600

        assert inject(node.smtp_port, "r@one.example", campaign="kept")[0] == 250
        await until(lambda: len(node.recipients("kept")) == 1)
        await asyncio.sleep(1.2)  # all of it is older than a second now
        # Both clocks look at once, not when their turn comes in half a minute, or ten.
        tables = '[delivery]\nretry = ["1s"]\nexpire_after = "1s"\n'
        reload(tables, "delivery.retry", "delivery.expire_after")
        await until(lambda: node.report("c")["counts"]["expired"] == 2, seconds=20)
        base = ("[store]", '[store]\nkeep_outcomes = "1ms"')
        reload(tables, "store.keep_outcomes", base=base)
        await until(lambda: node.recipients("kept") == [], seconds=20)
        assert node.report("kept")["counts"]["delivered"] == 1, "counts are never pruned"
        assert await asyncio.to_thread(node.stop) == 0


class Talker:
    """A peer that takes mail and notes how it was spoken to: a list of facts for each connection."""

    def __init__(self) -> None:
        self.sessions: list[dict] = []

    async def converse(self, talk: Conversation) -> None:
        facts = {"starttls": False, "pipelined": None, "messages": 0, "recipients": []}
        self.sessions.append(facts)
        talk.say(b"220 peer.test ESMTP\r\n")
        while line := await talk.reader.readline():
            talk.heard.append(line)
            match line[:4].upper():
                case b"EHLO":
                    talk.say(b"250-peer.test\r\n250-STARTTLS\r\n250 PIPELINING\r\n")
                case b"STAR":
                    facts["starttls"] = True
                    talk.say(b"454 4.7.0 not today\r\n")
                case b"MAIL":
                    if facts["pipelined"] is None:
                        # What is pipelined comes behind it although nothing was answered.
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(1.0):
                                while not talk.reader._buffer:
                                    await asyncio.sleep(0.01)
                        facts["pipelined"] = bool(talk.reader._buffer)
                    facts["recipients"].append(0)
                    talk.say(b"250 ok\r\n")
                case b"RCPT":
                    facts["recipients"][-1] += 1
                    talk.say(b"250 ok\r\n")
                case b"DATA":
                    talk.say(b"354 go\r\n")
                    await talk.hear_message()
                    facts["messages"] += 1
                    talk.say(b"250 2.0.0 taken\r\n")
                case _:
                    talk.say(b"221 bye\r\n")
                    return


async def test_new_connections_follow_the_new_limits(tmp_path):
    """If it failed, a destination that asked for less would get as much as before, until the next restart."""
    one, two = Talker(), Talker()
    async with run_smtp_peer(one.converse) as first, run_smtp_peer(two.converse) as second:
        at_once = '[delivery]\nidle_connection = "0s"\n'
        with daemon(tmp_path, route=first.port, extra=at_once) as node:
            reload = Reloader(node)
            star = node.config.read_text().index('[lane."*"]')
            base = reload.base

            async def deliver(*recipients: str) -> None:
                before = node.status()["totals"]["delivered"]
                assert (await asyncio.to_thread(inject, node.smtp_port, *recipients))[0] == 250
                await until(lambda: node.status()["totals"]["delivered"] == before + len(recipients), seconds=30)

            await deliver("a@x.example", "b@x.example", "c@x.example")
            (used,) = [facts for facts in one.sessions if facts["messages"]]
            assert used == {"starttls": True, "pipelined": True, "messages": 1, "recipients": [3]}
            before = len(one.sessions)

            reload.base = f'{base[:star]}[delivery]\nidle_connection = "0s"\ntls = "none"\n'
            limits = "pipelining = false\nmax_recipients_per_transaction = 1\nmax_connections = 1\n"
            reload(
                f'[lane."*"]\nroute = ["127.0.0.1:{second.port}"]\n{limits}',
                "delivery.tls",
                *(f'lane."*".{key}' for key in ("route", "pipelining", "max_recipients_per_transaction")),
                'lane."*".max_connections',
            )
            await deliver("a@x.example", "b@x.example", "c@x.example")
            assert len(one.sessions) == before, "it goes elsewhere now"
            assert sum(len(facts["recipients"]) for facts in two.sessions) == 3
            for facts in [facts for facts in two.sessions if facts["messages"]]:
                assert (facts["starttls"], facts["pipelined"]) == (False, False)
                assert set(facts["recipients"]) == {1}

            # One message a connection, then any number; connections that are kept, then none.
            reload.base = f'{base[:star]}[delivery]\nidle_connection = "30s"\n'
            lane = f'[lane."*"]\nroute = ["127.0.0.1:{second.port}"]\n'
            reload(
                f"{lane}max_connections = 1\nmax_deliveries_per_connection = 1\n",
                "delivery.tls",
                "delivery.idle_connection",
                *(f'lane."*".{key}' for key in ("pipelining", "max_recipients_per_transaction")),
                'lane."*".max_deliveries_per_connection',
            )
            before = len(two.sessions)
            for _ in range(3):
                await deliver("a@y.example")
            assert len(two.sessions) == before + 3
            reload(f"{lane}max_connections = 1\n", 'lane."*".max_deliveries_per_connection')
            for _ in range(3):
                await deliver("a@y.example")
            assert len(two.sessions) == before + 4

            # A rate, and none.
            reload(
                f'{lane}rate = "1/h"\nburst = 2\n', *(f'lane."*".{key}' for key in ("rate", "burst", "max_connections"))
            )
            (row,) = node.call("GET", "/v1/lanes?lane=y.example")[1]["lanes"]
            assert row["rate"] == pytest.approx(1 / 3600)
            await deliver("a@y.example", "b@y.example")
            assert inject(node.smtp_port, "c@y.example")[0] == 250
            await until(lambda: node.call("GET", "/v1/lanes?lane=y.example")[1]["lanes"][0]["state"] == "throttled")
            before = node.status()["totals"]["delivered"]
            reload(lane, *(f'lane."*".{key}' for key in ("rate", "burst")))
            await until(lambda: node.status()["totals"]["delivered"] == before + 1, seconds=30)
            assert await asyncio.to_thread(node.stop) == 0


async def test_open_connections_follow_the_new_limits(tmp_path):
    """If it failed, a destination that is to be slowed down, or left, would get what its connections may carry."""
    slow = {"*": {"latency": 0.2}}
    with peer_world(tmp_path / "one", slow) as one, peer_world(tmp_path / "two", slow) as two:
        idle = '[delivery]\nidle_connection = "60s"\n'
        with daemon(
            tmp_path / "node", route=one.port, lane="max_deliveries_per_connection = 10000\n", extra=idle
        ) as node:
            reload = Reloader(node)

            def lane() -> dict:
                return (node.call("GET", "/v1/lanes?lane=one.example")[1]["lanes"] or [{"connections": 0}])[0]

            await Injector(node.smtp_port).inject(short_mails("c", 250))
            # It has a full window all the time: what opens another connection is that the others do well.
            await until(lambda: lane()["connections"] >= 8, seconds=30)
            reload("", 'lane."*".max_connections', base=("max_deliveries", "max_connections = 2\nmax_deliveries"))
            await until(lambda: lane()["connections"] <= 2)
            assert lane()["window"] > 0, "there was plenty to do"
            elsewhere = reload.base.replace(str(one.port), str(two.port))
            reload.base = elsewhere.replace("max_deliveries", "max_connections = 20\nmax_deliveries")
            reload("", 'lane."*".max_connections', 'lane."*".route')
            await until(lambda: node.report("c")["counts"]["delivered"] == 250, seconds=60)
            delivered = one.record().delivered("c"), two.record().delivered("c")
            assert sum(map(len, delivered)) == 250
            assert len(delivered[1]) > 50
            assert await asyncio.to_thread(node.stop) == 0


async def test_where_mail_goes_follows_the_new_name_servers_and_port(tmp_path):
    """If it failed, a name server that lies could only be left by a restart."""
    async with contextlib.AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(run_unruly_peer("", "")) for _ in range(2)]
        names = [await stack.enter_async_context(run_dns_server()) for _ in range(2)]
        server = await asyncio.start_server(second.serve, "127.0.0.2", first.port)
        stack.callback(server.close)
        names[0].host("x.example", "127.0.0.1")
        names[1].host("x.example", "127.0.0.2")
        extra = '[delivery]\nport = {port}\nidle_connection = "0s"\n[dns]\nnameservers = ["{names}"]\n'
        begun = extra.format(port=first.port, names=names[0].nameserver)
        with daemon(tmp_path, extra=begun) as node:
            reload = Reloader(node)

            async def goes_to(peer, address: str) -> None:
                before = len(peer.delivered)
                assert (await asyncio.to_thread(inject, node.smtp_port, address))[0] == 250
                await until(lambda: len(peer.delivered) == before + 1)

            await goes_to(first, "r@x.example")
            reload("", "dns.nameservers", base=(begun, extra.format(port=first.port, names=names[1].nameserver)))
            await goes_to(second, "r@x.example")
            await goes_to(first, "r@[127.0.0.1]")
            reload("", "delivery.port", base=(begun, extra.format(port=second.port, names=names[1].nameserver)))
            await goes_to(second, "r@[127.0.0.1]")
            assert await asyncio.to_thread(node.stop) == 0


async def test_how_long_is_waited_follows_the_new_times(tmp_path):
    """If it failed, a peer that hangs would cost what it cost before, whatever is written down."""
    async with run_unruly_peer("dot", "silent") as peer:
        with daemon(tmp_path, route=peer.port) as node:
            reload = Reloader(node)
            assert (await asyncio.to_thread(inject, node.smtp_port, "r@x.example"))[0] == 250
            await until(lambda: peer.there == 1)
            reload(
                '[delivery.timeouts]\ndata_end = "0.5s"\n[lane."y.example"]\nbackoff = ["1h"]\nmax_connections = 1\n',
                "delivery.timeouts.data_end",
                'lane."y.example"',
            )
            assert (await asyncio.to_thread(inject, node.smtp_port, "r@y.example"))[0] == 250

            def row() -> dict:
                return (node.call("GET", "/v1/lanes?lane=y.example")[1]["lanes"] or [{}])[0]

            await until(lambda: "no reply to the end of the message within" in row().get("last_reply", ""), seconds=30)
            await until(lambda: row()["state"] == "backoff")
            pause = dt.datetime.fromisoformat(row()["backoff_until"]) - dt.datetime.now(dt.UTC)
            assert 3000 < pause.total_seconds() <= 3600
            assert metrics(node)["mtactl_lanes_in_backoff",] == 1
            reload(
                '[delivery]\nshutdown_timeout = "0.2s"\n',
                "delivery.shutdown_timeout",
                "delivery.timeouts.data_end",
                'lane."y.example"',
            )
            begun = time.monotonic()
            assert await asyncio.to_thread(node.stop) == 0
            assert time.monotonic() - begun < 25, "it was 30 s, and one is still in flight"


async def test_the_log_and_the_metrics_of_a_reload(tmp_path):
    """If it failed, a file that is bad would only be found out at the next start, at night."""
    with daemon(tmp_path) as node:
        reload = Reloader(node)
        assert metrics(node)["mtactl_config_last_reload_successful",] == 1
        node.config.write_text("[node]\nname = 5\n[lgo]\n")
        status, problem = node.call("POST", "/v1/reload")
        assert status == 422
        assert [text.partition(": ")[0] for text in problem["problems"]] == [f"{node.config}:{line}" for line in (2, 3)]
        scraped = metrics(node)
        assert scraped["mtactl_config_last_reload_successful",] == 0
        assert scraped["mtactl_config_keys_awaiting_restart",] == 0
        node.config.write_text(
            reload.base.replace("[metrics]", "[metrics]\n# moved").replace(str(node.metrics_port), "1234")
        )
        assert node.call("POST", "/v1/reload")[1] == {"applied": [], "needs_restart": ["metrics.listen"]}
        scraped = metrics(node)
        assert scraped["mtactl_config_last_reload_successful",] == 1
        assert scraped["mtactl_config_keys_awaiting_restart",] == 1
        assert len(log_lines(node)) > 0, "all of it is JSON"
        reload('[log]\nformat = "console"\n', "log.format")
        assert metrics(node)["mtactl_config_keys_awaiting_restart",] == 0
        before = node.log.stat().st_size
        assert node.call("POST", "/v1/queue/retry")[0] == 200
        await until(lambda: "control_command_done" in node.log.read_text()[before:])
        assert not node.log.read_text()[before:].lstrip().startswith("{")
        assert await asyncio.to_thread(node.stop) == 0


@pytest.mark.root_only
@pytest.mark.needs("curl", "curl")
async def test_who_may_do_what_follows_the_new_groups():
    """If it failed, someone who was taken out of the operators could go on stopping mail."""
    folder = Path(tempfile.mkdtemp(prefix="mtactl-reload-", dir="/tmp"))
    folder.chmod(0o755)
    mail, games = (grp.getgrnam(name).gr_gid for name in ("mail", "games"))
    operator = {"user": NOBODY, "group": mail, "extra_groups": []}
    try:
        with daemon(folder) as node:
            reload = Reloader(node)

            async def may(*arguments: str, **who) -> int:
                return (await curl(node.socket, *arguments, **who))[0]

            read, change = ("http://x/v1/status",), ("-d", "{}", "http://x/v1/queue/retry")
            assert os.stat(node.socket).st_gid != mail
            assert await may(*read, **operator) == 0, "the socket's mode keeps it out"
            reload("", "control.operators", base=("[control]", '[control]\noperators = ["mail", "no-such-group"]'))
            found = os.stat(node.socket)
            assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (mail, 0o660)
            assert (await may(*read, **operator), await may(*change, **operator)) == (200, 200)
            reload(
                "",
                "control.operators",
                "control.observers",
                base=("[control]", '[control]\noperators = ["games"]\nobservers = ["mail"]'),
            )
            both = operator | {"extra_groups": [games]}
            assert (await may(*read, **both), await may(*change, **both)) == (200, 200)
            node.socket.chmod(0o666)
            assert (await may(*read, **operator), await may(*change, **operator)) == (200, 403)
            assert await asyncio.to_thread(node.stop) == 0
    finally:
        shutil.rmtree(folder)
