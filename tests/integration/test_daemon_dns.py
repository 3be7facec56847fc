"""The way of mail by MX records, with a name server of the test's and hosts on several loopback addresses."""

from __future__ import annotations

import asyncio
import contextlib

import dns.rcode

from tests.world.application import inject
from tests.world.control import until
from tests.world.daemon import check_law, daemon
from tests.world.dns_server import run_dns_server
from tests.world.operator import log_lines, outcomes, waiting
from tests.world.unruly import run_unruly_peer

HOSTS = {"first.test": "127.0.0.1", "second.test": "127.0.0.2", "third.test": "127.0.0.3"}


async def test_mail_goes_where_the_mx_records_say(tmp_path):
    """If it failed, mail would go to the wrong host, bounce for a DNS server that is down, or wait for no one."""
    async with contextlib.AsyncExitStack() as stack:
        peers = {"first.test": await stack.enter_async_context(run_unruly_peer("", ""))}
        port = peers["first.test"].port
        for name in ("second.test", "third.test"):
            peers[name] = await stack.enter_async_context(run_unruly_peer("", ""))
            server = await asyncio.start_server(peers[name].serve, HOSTS[name], port)
            stack.callback(server.close)
        names = await stack.enter_async_context(run_dns_server())
        for name, address in HOSTS.items():
            names.host(name, address)
        names.host("down.test", "127.0.0.9")  # where nobody listens
        names.mx("preferred.example", (20, "second.test"), (10, "first.test"))
        names.mx("fallback.example", (10, "down.test"), (30, "third.test"), (20, "second.test"))
        names.host("implicit.example", HOSTS["third.test"])
        names.records["alias.example. CNAME"] = ["preferred.example."]
        names.mx("null.example", (0, ""))
        names.mx("silent.example", (10, "first.test"))
        names.broken["silent.example. MX"] = "drop"
        names.mx("broken.example", (10, "first.test"))
        names.broken["broken.example. MX"] = dns.rcode.SERVFAIL
        names.mx("nowhere.example", (10, "nowhere.test"))

        extra = f"""
        max_connections = 1
        backoff = ["0.5s"]
        [delivery]
        port = {port}
        [dns]
        nameservers = ["{names.nameserver}"]
        timeout = "0.3s"
        lifetime = "0.6s"
        """
        with daemon(tmp_path, extra=extra) as node:
            domains = ("preferred", "fallback", "implicit", "alias", "null", "silent", "broken", "nowhere", "nxdomain")
            recipients = [f"r@{name}.example" for name in domains]
            assert (await asyncio.to_thread(inject, node.smtp_port, *recipients, campaign="c"))[0] == 250
            # One by IP address, which no name server is asked about.
            assert (await asyncio.to_thread(inject, node.smtp_port, "r@[127.0.0.2]", campaign="c"))[0] == 250
            await until(lambda: len(outcomes(node, "c")) == 8)
            ended = {line["recipient"].removeprefix("r@"): line for line in outcomes(node, "c")}
            went = {domain: line["peer"] for domain, line in ended.items() if line["outcome"] == "delivered"}
            assert went == {
                "preferred.example": f"first.test[127.0.0.1]:{port}",
                "fallback.example": f"second.test[127.0.0.2]:{port}",
                "implicit.example": f"implicit.example[127.0.0.3]:{port}",
                "alias.example": f"first.test[127.0.0.1]:{port}",
                "[127.0.0.2]": f"127.0.0.2[127.0.0.2]:{port}",
            }
            refused = {domain: line for domain, line in ended.items() if line["outcome"] == "bounced"}
            assert {domain: line["code"] for domain, line in refused.items()} == {
                "null.example": 556,  # RFC 7505 §4.2
                "nxdomain.example": 550,
                "nowhere.example": 550,
            }
            assert refused["null.example"]["reply"].startswith("5.1.10 ")
            assert all(line["peer"] == "" and line["after_stop"] is False for line in refused.values())

            # The two whose name server fails: the lane backs off, and it costs the recipients no attempt.
            await until(
                lambda: (
                    {"silent.example", "broken.example"} <= {line["lane"] for line in log_lines(node, "lane backs off")}
                )
            )
            rows = {row["lane"]: row for row in waiting(node)}
            assert set(rows) == {"silent.example", "broken.example"}
            assert {(row["state"], row["attempts"]) for row in rows.values()} == {("ready", 0)}
            lanes = {row["lane"]: row for row in node.call("GET", "/v1/lanes")[1]["lanes"]}
            assert "no name server answered" in lanes["silent.example"]["last_reply"]
            assert lanes["broken.example"]["last_reply"].startswith("451 4.4.3 ")
            names.broken.clear()
            await until(lambda: node.report("c")["counts"]["delivered"] == 7)
            check_law(node.report("c")["counts"])
            assert await asyncio.to_thread(node.stop) == 0
        assert {name: len(peer.delivered) for name, peer in peers.items()} == {
            "first.test": 4,
            "second.test": 2,
            "third.test": 1,
        }
        assert not any(key.startswith("[") or "127" in key for key in names.asked)
