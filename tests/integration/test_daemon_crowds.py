"""More clients, connections and mail than there is room for: it degrades, says so, and recovers."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import resource
import select
import smtplib
import socket
import time
from pathlib import Path

import pytest

from tests.bench.processes import cpu_of
from tests.world.application import inject, message
from tests.world.daemon import Daemon, check_law, daemon
from tests.world.operator import eventually, log_lines
from tests.world.unruly import run_unruly_peer

GREETED, REFUSED = b"220 ", b"421 4.3.2 "
DELIVERY = '[delivery]\nretry = ["0.3s"]\nidle_connection = "0.1s"\n'


@contextlib.contextmanager
def crowd(port: int, number: int):
    """Open so many connections at once and keep them."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(socket.socket()) for _ in range(number)]
        for connection in connections:
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", port))
        for connection in connections:
            connection.settimeout(60)
            assert select.select([], [connection], [], 60)[1]
        yield connections


async def seen(look) -> None:
    """Wait until something is to be seen, while the peers in this process go on."""
    await asyncio.to_thread(eventually, look, seconds=60)


def greeting(connection: socket.socket) -> bytes:
    """Read the first line; b"" when the connection was closed without one."""
    line = b""
    with contextlib.suppress(ConnectionError):
        while not line.endswith(b"\n") and (octet := connection.recv(1)):
            line += octet
    return line


def get(node, path: str) -> tuple[int, str]:
    """Ask the listener for monitoring."""
    connection = http.client.HTTPConnection("127.0.0.1", node.metrics_port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def inject_soon(node, address: str, *, campaign: str) -> None:
    """Inject a message, as soon as there is a place for a client again."""

    def is_taken() -> bool:
        with contextlib.suppress(smtplib.SMTPConnectError, smtplib.SMTPServerDisconnected):
            return inject(node.smtp_port, address, campaign=campaign)[0] == 250
        return False

    eventually(is_taken)


def descriptors(node) -> int:
    return len(os.listdir(f"/proc/{node.process.pid}/fd"))


def without_uvloop(folder: Path) -> dict[str, str]:
    """Give an environment in which the daemon finds no uvloop, and takes asyncio's own loop."""
    folder.mkdir()
    (folder / "uvloop.py").write_text("raise ImportError('not here')\n")
    return {"PYTHONPATH": str(folder)}


async def test_more_clients_than_the_limit(tmp_path):
    """If it failed, a crowd of clients would take the daemon down, fill its log, or keep it out of use for ever."""
    async with run_unruly_peer("", "") as peer:
        with daemon(tmp_path, route=peer.port, listener="max_connections = 5") as node:
            await asyncio.to_thread(_crowd_out, node)
            await seen(lambda: node.report("c")["counts"]["delivered"] == 1)
            assert node.stop() == 0


def _crowd_out(node) -> None:
    with crowd(node.smtp_port, 60) as clients:
        greetings = [greeting(client)[:10] for client in clients]
        assert [text[:4] for text in greetings[:5]] == [GREETED] * 5
        assert greetings[5:] == [REFUSED] * 55
        status, text = get(node, "/readyz")
        assert status == 503
        assert f"too many clients on 127.0.0.1:{node.smtp_port}: beyond 5 connections" in text
        assert get(node, "/healthz")[0] == 200
        assert node.status()["health"] == "degraded"
        assert node.halt("never-seen")[0]["state"] in {"halting", "halted"}
    assert len(log_lines(node, "too_many_connections")) == 1
    inject_soon(node, "r@one.example", campaign="c")
    eventually(node.is_ready, seconds=40)
    assert node.status()["problems"] == []


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_more_connections_than_descriptors(tmp_path, loop):
    """If it failed, whoever opens enough connections, of whatever kind, would take the command to halt from us."""
    async with contextlib.AsyncExitStack() as stack:
        good = await stack.enter_async_context(run_unruly_peer("", ""))
        stuck = await stack.enter_async_context(run_unruly_peer("mail", "silent"))
        extra = f'{DELIVERY}[lane."*.stuck.example"]\nroute = ["127.0.0.1:{stuck.port}"]\nbackoff = ["0.3s"]\n'
        node = stack.enter_context(_low_daemon(tmp_path, good.port, extra, loop))
        idle = await asyncio.to_thread(descriptors, node)
        await asyncio.to_thread(_overrun, node, stuck)
        stuck.behave()
        stuck.answer()
        await seen(lambda: node.report("stuck")["counts"]["delivered"] == 60)
        await seen(lambda: node.report("good")["counts"]["delivered"] == 20)
        await seen(lambda: descriptors(node) <= idle + 4)
        assert node.stop() == 0
        assert node.fsck().returncode == 0
        assert len(node.log.read_text().splitlines()) < 400, node.tail()
        assert not log_lines(node, "connection failed unexpectedly")
        assert (tmp_path / "log").read_text().count("Traceback") == 0


@contextlib.contextmanager
def _low_daemon(folder: Path, port: int, extra: str, loop: str):
    env = {} if loop == "uvloop" else without_uvloop(folder / "none")
    node = Daemon(folder, route=port, extra=extra, open_files=128)
    try:
        node.start(env=env)
        (line,) = log_lines(node, "the limit on open files does not allow for all connections that are configured")
        assert line["limit"] == 128
        yield node
    finally:
        node.end()


def _overrun(node, stuck) -> None:
    for number in range(60):  # each has a lane of its own, and wants a connection of its own
        code, text = inject(node.smtp_port, f"r@{number}.stuck.example", campaign="stuck")
        assert code == 250, text
    eventually(lambda: stuck.there > 0)
    with crowd(node.smtp_port, 150) as early, crowd(node.metrics_port, 100), crowd(node.smtp_port, 150) as late:
        assert {greeting(client)[:10] for client in late} == {REFUSED}
        greetings = [greeting(client)[:4] for client in early]
        assert 0 < greetings.count(GREETED) < 20
        assert greetings.count(GREETED) + greetings.count(b"421 ") == 150
        assert node.status()["health"] == "degraded"
        assert get(node, "/readyz")[0] == 503
        begun, used = time.monotonic(), cpu_of(node.process.pid)
        for number in range(20):
            assert node.halt(f"halt-{number}")[0]["state"] in {"halting", "halted"}
            assert get(node, "/healthz")[0] == 200
            assert descriptors(node) < 128
            time.sleep(0.1)
        share = (cpu_of(node.process.pid) - used) / (time.monotonic() - begun)
        assert share < 0.7, "it spins"
        check_law(node.report("stuck")["counts"])
    for number in range(20):
        inject_soon(node, f"r{number}@good.example", campaign="good")


async def test_no_descriptor_for_a_peer_is_not_the_peers_fault(tmp_path):
    """If it failed, a shortage of our own would put whole destinations off, spin, or cost mail an attempt."""
    async with run_unruly_peer("", "") as peer:
        with daemon(tmp_path, route=peer.port, extra=DELIVERY) as node:
            await asyncio.to_thread(_run_short, node)
            await seen(lambda: node.report("c")["counts"]["delivered"] == 31)
            assert len(peer.delivered) == 31
            await seen(lambda: node.status()["problems"] == [])
            assert node.stop() == 0
            outcomes = log_lines(node, "outcome")
            assert [line["outcome"] for line in outcomes] == ["delivered"] * 31
            assert {line["attempts"] for line in outcomes} == {1}
            assert len(log_lines(node, "no room for connections")) == 1
            assert not log_lines(node, "lane backs off")
            assert not log_lines(node, "connection failed unexpectedly")


def _run_short(node) -> None:
    """Take all descriptors but those in use from the daemon, inject, and give them back."""
    pid = node.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with (
        smtplib.SMTP("127.0.0.1", node.smtp_port, local_hostname="app.example", timeout=30) as client,
        node.connect() as control,  # kept open: a new one could not be accepted then
    ):
        client.ehlo()
        assert control("GET", "/v1/status")[0] == 200
        client.sendmail("a@news.example", ["r@first.example"], message("c"))  # the store has its file open from now on
        eventually(lambda: control("GET", "/v1/campaigns/c")[1]["counts"]["delivered"] == 1)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, before[1]))
        for number in range(30):
            client.sendmail("a@news.example", [f"r@{number % 10}.example"], message("c"))
        eventually(lambda: "Too many open files" in str(control("GET", "/v1/status")[1]["problems"]))
        used, begun = cpu_of(pid), time.monotonic()
        time.sleep(3)
        assert (cpu_of(pid) - used) / (time.monotonic() - begun) < 0.7, "it spins"
        status, lanes = control("GET", "/v1/lanes")
        assert status == 200
        assert "backoff" not in {lane["state"] for lane in lanes["lanes"]}
        assert control("POST", "/v1/campaigns/other/halt", {"confirm": "other"})[0] == 200
        check_law(control("GET", "/v1/campaigns/c")[1]["counts"])
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_more_mail_at_once_than_memory(tmp_path):
    """If it failed, large messages that come together would take the daemon's memory, or be refused for ever."""
    async with run_unruly_peer("", "") as peer:
        listener = 'max_memory = "1MiB"\nmax_message_size = "800KiB"'
        with daemon(tmp_path, route=peer.port, listener=listener) as node:
            await asyncio.to_thread(_fill_memory, node)
            await seen(lambda: node.report("c")["counts"]["delivered"] == 2)
            assert node.stop() == 0


def _fill_memory(node) -> None:
    big = message("c", body=(b"x" * 998 + b"\r\n") * 700)
    with socket.create_connection(("127.0.0.1", node.smtp_port), 30) as slow:
        lines = slow.makefile("rb")
        lines.readline()
        slow.sendall(b"HELO app.example\r\nMAIL FROM:<a@news.example>\r\nRCPT TO:<r@one.example>\r\nDATA\r\n")
        assert [lines.readline()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
        slow.sendall(big)
        answers = [inject(node.smtp_port, "r@one.example", data=big) for _ in range(3)]
        assert {(code, text[:5]) for code, text in answers} == {(452, "4.3.1")}
        assert node.halt("other")[0]["state"] in {"halting", "halted"}
        slow.sendall(b".\r\n")
        assert lines.readline()[:3] == b"250"
    assert inject(node.smtp_port, "r@one.example", data=big)[0] == 250
