"""Peers that go wrong at each stage of a session: the daemon says what it met, loses nothing, and halts rightly."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket

import pytest

from tests.world.application import inject, message
from tests.world.control import until
from tests.world.daemon import check_law, daemon, free_port
from tests.world.operator import log_lines, waiting
from tests.world.unruly import MANNERS, STAGES, run_unruly_peer

TIMEOUTS = ("connect", "greeting", "ehlo", "mail", "rcpt", "data", "data_block", "data_end", "quit")
SMALL = message("c")
BIG = message("c", body=(b"x" * 998 + b"\r\n") * 4000)  # more than the kernel's buffers hold

# What is told of a peer, by stage and manner. Before MAIL FROM it is the lane's trouble, then the recipient's too.
TOLD = {
    ("connect", "hangs-up"): "no connection: Connection refused",
    ("connect", "silent"): "no connection within",
    ("banner", "garbage"): "greeting",
    ("banner", "hangs-up"): "greeting",
    ("banner", "silent"): "greeting: time-out",
    ("ehlo", "garbage"): "EHLO",
    ("ehlo", "hangs-up"): "EHLO",
    ("ehlo", "silent"): "EHLO: time-out",
    ("mail", "silent"): "no reply to MAIL within",
    ("rcpt", "silent"): "no reply to RCPT within",
    ("data", "silent"): "no reply to DATA within",
    ("body", "silent"): "the peer took no part of the message within",
    ("dot", "silent"): "no reply to the end of the message within",
    **{(stage, "garbage"): "a line that is no reply" for stage in STAGES[2:]},
    ("mail", "hangs-up"): "connection where the reply to MAIL was awaited",
    ("rcpt", "hangs-up"): "connection where the reply to RCPT was awaited",
    ("data", "hangs-up"): "connection where the reply to DATA was awaited",
    ("body", "hangs-up"): " while the message was being written",
    ("dot", "hangs-up"): "connection where the reply to the end of the message was awaited",
}


def config(seconds: float, ports: dict[str, int]) -> str:
    """Give short time-outs and a lane for each port."""
    lines = ['[delivery]\nretry = ["0.3s"]\n[delivery.timeouts]', *(f'{name} = "{seconds}s"' for name in TIMEOUTS)]
    for domain, port in ports.items():
        lines += [f'[lane."{domain}"]', f'route = ["127.0.0.1:{port}"]']
    return "\n".join(lines)


def last_replies(node) -> dict[str, str]:
    return {row["lane"]: row["last_reply"] for row in node.call("GET", "/v1/lanes")[1]["lanes"]}


def ports_of(peers: dict) -> dict[str, int]:
    return {domain: peer.port for domain, peer in peers.items()}


async def enter_peers(stack: contextlib.AsyncExitStack, manners: tuple[str, ...], *, add: str = "") -> dict:
    """Run a peer for each stage and manner, with PIPELINING and without, by domain."""
    peers = {}
    for stage, manner, form in itertools.product(STAGES, manners, ("pipelined", "plain")):
        if stage in ("banner", "ehlo") and form == "plain":
            continue
        peer = await stack.enter_async_context(run_unruly_peer(stage, manner, pipelining=form == "pipelined"))
        peers[f"{stage}.{manner}.{form}{add}.example"] = peer
    return peers


async def test_peers_that_go_wrong_at_each_stage_cost_no_mail(tmp_path):
    """If it failed, a broken mail server elsewhere would lose mail here, or nobody could tell what is wrong with it."""
    async with contextlib.AsyncExitStack() as stack:
        peers = await enter_peers(stack, MANNERS)
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        full = [stack.enter_context(socket.socket()) for _ in range(2)]  # its queue: further SYNs are not answered
        for each in full:
            each.setblocking(False)
            each.connect_ex(deaf.getsockname())
        routes = {"connect.hangs-up.example": free_port(), "connect.silent.example": deaf.getsockname()[1]}
        extra = config(0.8, routes | ports_of(peers))
        with daemon(tmp_path, lane='max_connections = 1\nbackoff = ["0.4s"]', extra=extra) as node:
            domains = [*routes, *peers]
            for data, which in ((SMALL, False), (BIG, True)):
                addresses = [f"r@{domain}" for domain in domains if domain.startswith("body") is which]
                code, text = await asyncio.to_thread(inject, node.smtp_port, *addresses, data=data)
                assert code == 250, text

            def told(domain: str) -> str:
                stage, manner = domain.split(".")[:2]
                return TOLD[stage, manner]

            missing = dict.fromkeys(domains)
            for _ in range(400):
                replies = await asyncio.to_thread(last_replies, node)
                for domain in tuple(missing):
                    if told(domain) in replies.get(domain, ""):
                        del missing[domain]
                    else:
                        missing[domain] = replies.get(domain, "")
                if not missing:
                    break
                await asyncio.sleep(0.02)
            assert not missing
            check_law(node.report("c")["counts"])
            assert node.report("c")["counts"]["accepted"] == len(domains)
            queued = {row["recipient"]: row for row in waiting(node, campaign="c")}
            assert set(queued) == {f"r@{domain}" for domain in domains}
            for address, row in queued.items():
                if address.split("@")[1].split(".")[0] in STAGES[2:]:
                    assert row["attempts"] >= 1, row
                    assert told(address.split("@")[1]) in row["last_reply"], row
                else:
                    assert row["attempts"] == 0, row
            backoffs = {line["lane"] for line in log_lines(node, "lane backs off")}
            assert backoffs >= {domain for domain in domains if "garbage" in domain or "connect" in domain}

            # All come to their senses.
            for peer in peers.values():
                peer.behave()
            for each in full:
                each.close()
            deaf.setblocking(False)
            late = [await stack.enter_async_context(run_unruly_peer("", "")) for _ in range(2)]
            stack.push_async_callback(_close, await asyncio.start_server(late[0].serve, sock=deaf.dup()))
            stack.push_async_callback(
                _close, await asyncio.start_server(late[1].serve, "127.0.0.1", routes["connect.hangs-up.example"])
            )
            await until(lambda: node.report("c")["counts"]["delivered"] == len(domains), seconds=40)
            assert await asyncio.to_thread(node.stop) == 0
            assert all(len(peer.delivered) == 1 for peer in (*peers.values(), *late))
            assert len({body for peer in peers.values() for body in peer.delivered}) == 2
        assert node.fsck().returncode == 0, node.fsck().stdout


async def _close(server: asyncio.Server) -> None:
    server.close()


ENDINGS = {"": "hangs-up", ".late": "time-out"}


async def test_halt_while_a_peer_keeps_us_waiting_at_each_stage(tmp_path):
    """If it failed, a report would call mail dropped that may have arrived, or unknown that certainly did not."""
    async with contextlib.AsyncExitStack() as stack:
        peers = {}
        for add in ENDINGS:
            peers |= await enter_peers(stack, ("silent",), add=add)
        answers = {"yes": b"250 2.0.0 yes\r\n", "no": b"550 5.7.1 no\r\n", "later": b"451 4.3.0 later\r\n"}
        for name in answers:
            peers[f"dot.{name}.example"] = await stack.enter_async_context(run_unruly_peer("dot", "silent"))
        with daemon(tmp_path, lane="max_connections = 1", extra=config(4, ports_of(peers))) as node:
            for domain in peers:
                data = (BIG if domain.startswith("body") else SMALL).replace(
                    b": c\r\n", b": %b\r\n" % domain.encode(), 1
                )
                code, text = await asyncio.to_thread(inject, node.smtp_port, f"r@{domain}", data=data)
                assert code == 250, text
            await until(lambda: all(peer.there for peer in peers.values()))
            for domain in peers:
                answer, _, _ = node.halt(domain)
                began = domain.split(".")[0] in STAGES[2:]
                assert answer["stop"]["kind"] == ("stop" if began else "cancel"), answer
                assert answer["stop"]["in_flight_at_stop"] == int(began), answer
            for domain, peer in peers.items():
                if ".late." not in domain:
                    peer.answer(answers.get(domain.split(".")[1], b""))
            reports = {domain: await asyncio.to_thread(node.wait_completed, domain) for domain in peers}
            wrong = {}
            for domain, report in reports.items():
                stage, kind = domain.split(".")[:2]
                expected = {"yes": "delivered", "no": "bounced", "later": "dropped"}.get(kind)
                expected = expected or ("unknown" if stage == "dot" else "dropped")
                counts = report["counts"]
                check_law(counts)
                if counts[expected] != 1 or counts["delivered_after_stop"] != (kind == "yes"):
                    wrong[domain] = counts
                (row,) = node.recipients(domain)
                if row["outcome"] != expected or not row["after_stop"]:
                    wrong[domain] = row
            assert not wrong
            assert await asyncio.to_thread(node.stop) == 0
        # Nobody was called again: one connection each, and no second MAIL FROM.
        assert {domain: len(peer.conversations) for domain, peer in peers.items()} == dict.fromkeys(peers, 1)
        assert node.fsck().returncode == 0, node.fsck().stdout


@pytest.mark.parametrize("reply", [b"421 4.3.2 going down\r\n", b"999 what\r\n"], ids=["421", "999"])
async def test_peer_that_leaves_at_the_dot_is_tried_again(tmp_path, reply):
    """If it failed, mail that a peer gave back at the last moment would be lost, or bounced."""
    async with run_unruly_peer("dot", "silent") as peer:
        extra = config(5, {"one.example": peer.port})
        with daemon(tmp_path, lane='backoff = ["0.2s"]', extra=extra) as node:
            assert inject(node.smtp_port, "r@one.example", campaign="c")[0] == 250
            await until(lambda: peer.there == 1)
            peer.behave()
            peer.answer(reply)
            await until(lambda: node.report("c")["counts"]["delivered"] == 1)
            assert len(peer.delivered) == 1
            assert await asyncio.to_thread(node.stop) == 0
