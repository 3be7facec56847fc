"""Senders without an end: slow ones, long lines, long messages, many recipients, garbage, and nobody who listens.

A real daemon each time. What is asserted is what it costs: memory as the kernel counts it, file descriptors, and what
is in the books.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
import time

import pytest

from tests.world.daemon import Daemon
from tests.world.edge import running_edge
from tests.world.sender import BEGIN, EHLO, SECONDS, Sender, bounded, pour, until

MESSAGE = b"X-Campaign-ID: %s\r\nSubject: x\r\n\r\n..two\r\nx\r\n.\r\n"
DEAF = 12  # clients that never read
LIMITS = 'max_message_size = "4MiB"\nmax_memory = "16MiB"\n'


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A node whose only destination is out of reach, with a second listener that takes many recipients."""
    folder = tmp_path_factory.mktemp("node")
    with socket.socket() as taken, socket.socket() as other:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens: refused, and nobody else gets it
        other.bind(("127.0.0.1", 0))
        one = Daemon(folder, route=taken.getsockname()[1], lane='backoff = ["1h"]')
        one.many_port = other.getsockname()[1]
        second = f'[[listener]]\nlisten = "127.0.0.1:{one.many_port}"\nmax_recipients = 100000\n'
        one.config.write_text(one.config.read_text().replace('[lane."*"]', f'{LIMITS}{second}[lane."*"]'))
        other.close()
        try:
            one.start()
            with Sender(one.smtp_port).greet() as warm:  # what is imported and allocated once
                assert warm.ask(BEGIN)[0] == 250
                assert warm.codes(1) == [250]
                assert warm.ask(b"DATA\r\n")[0] == 354
                assert warm.ask(b"\r\n" + (b"x" * 998 + b"\r\n") * 4000 + b".\r\n")[0] == 250
            yield one
        finally:
            one.end()


def accepted(node, campaign):
    return node.report(campaign)["counts"]["accepted"]


def test_octet_by_octet(node):
    """If this fails, a sender behind a bad network gets another answer; or each octet that waits costs memory."""
    message = MESSAGE % b"slow"
    stream = (
        EHLO
        + BEGIN
        + b"DATA\r\n"
        + message
        + BEGIN
        + b"BDAT 20\r\nX-Campaign-ID: slow\rBDAT 9 LAST\r\n\n\r\n.\r\nx\r\n"
        + b"QUIT\r\n"
    )
    with bounded(node, mebibytes=6):
        senders = [Sender(node.smtp_port) for _ in range(20)]
        for octet in stream:
            for sender in senders:
                sender.send(bytes([octet]))
            time.sleep(0.001)
        for sender in senders:
            assert sender.codes(10) == [220, 250, 250, 250, 354, 250, 250, 250, 250, 250]
            assert sender.codes(1) == [221]
            sender.close()
    assert accepted(node, "slow") == 40


async def drip(client, most):
    """Send an octet every now and then, until the server closes; give how many it were."""

    async def listen():
        with contextlib.suppress(ConnectionError):  # it may be closed with an octet on its way
            await client.reader.read()

    closed = asyncio.ensure_future(listen())
    drops = 0
    while not closed.done():
        assert drops < most, "it goes on for ever"
        client.send(b"x")
        drops += 1
        await asyncio.sleep(0.02)
    return drops


@pytest.mark.parametrize(
    "start",
    [b"", b"MAIL FROM:<", b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nNOOP "],
    ids=["nothing", "MAIL", "behind commands"],
)
async def test_command_that_drips_has_one_timeout(start):
    """If this fails, a client that sends an octet every minute holds its connection for a day (RFC 5321 §4.5.3.2.7)."""
    async with running_edge(command_timeout=0.3) as edge, edge.client() as client:
        client.send(start)
        assert await drip(client, 500) > 5, "a pause is no end"
        await edge.until(lambda: edge.listeners.connections == 0)


@pytest.mark.parametrize("start", [b"DATA\r\n", b"BDAT 100000 LAST\r\n"])
async def test_message_that_drips_comes_to_an_end(start):
    """If this fails, a client that sends an octet every minute holds its connection, and memory, for years."""
    async with running_edge(data_timeout=0.1) as edge, edge.client() as client:
        await client.begin()
        client.send(start)
        assert await drip(client, 1000) > 5, "a pause is no end"
        await edge.until(lambda: edge.listeners.connections == 0)
        assert edge.policy.budget.used == 0
        assert not edge.intake.begun


def test_command_line_without_an_end(node):
    """If this fails, one connection takes all the memory there is; or what is behind the line is not a command."""
    with bounded(node, mebibytes=4), Sender(node.smtp_port).greet() as sender:
        assert pour(sender, b"NOOP " + b"x" * 65531, 200 << 20) >= 200 << 20
        assert sender.ask(b"\r\n") == (500, "5.5.2 a command line is longer than 2048 octets")
        assert sender.ask(b"NOOP\r\n")[0] == 250
        assert sender.ask(b"bdat 7" + b" " * 5000 + b"LAST\r\nQUIT\r\nx")[0] == 500
        assert sender.end() == b"", "the chunk was not taken for commands"


@pytest.mark.parametrize(
    ("start", "piece", "answer"),
    [
        (b"X-Campaign-ID: ", b"x" * 65536, "550 5.6.0 a line is longer"),
        (b"", b"X-Job: y\r\n" * 6000, "552 5.3.4 "),
        (b"Subject: x\r\n", (b" " + b"x" * 70 + b"\r\n") * 900, "552 5.3.4 "),
        (b"", b"\r\n" * 30000, "552 5.3.4 "),
        (b"", b".\r\r\n" * 15000, "550 5.6.0 a bare CR"),
        (b"", b"\x00" * 65536, "550 5.6.0 a NUL"),
    ],
    ids=["line", "fields", "folds", "empty lines", "bare", "NUL"],
)
def test_message_without_an_end(node, start, piece, answer):
    """If this fails, a message that never ends takes memory or the connection for ever, or is taken in the end."""
    before = node.status()["totals"]["accepted"]
    with bounded(node, mebibytes=24):
        with Sender(node.smtp_port).greet() as sender:
            sender.send(BEGIN + b"DATA\r\n")
            assert sender.codes(3) == [250, 250, 354]
            sender.send(start)
            sent = pour(sender, piece, 1 << 30)
            assert 64 << 20 <= sent < 128 << 20
            assert sender.end().decode().startswith(answer)
        with Sender(node.smtp_port).greet() as sender:
            sender.send(BEGIN + b"DATA\r\n" + start + piece * (8 * (1 << 20) // len(piece)) + b"\r\n.\r\nNOOP\r\n")
            assert sender.codes(3) == [250, 250, 354]
            code, text = sender.reply()
            assert f"{code} {text}".startswith(answer), "it has an end, and its client comes to the reply"
            assert sender.reply()[0] == 250
    assert node.status()["totals"]["accepted"] == before


def test_header_section_without_an_end_is_refused_at_its_limit(node):
    """If this fails, the search for a campaign goes through megabytes while everything else waits."""
    with bounded(node, mebibytes=12), Sender(node.smtp_port).greet() as sender:
        for octets, code in ((250_000, 250), (300_000, 552), (3 << 20, 552)):
            sender.send(BEGIN + b"DATA\r\n" + b"X-Other: 12345678\r\n" * (octets // 19) + b"\r\nx\r\n.\r\n")
            assert sender.codes(4) == [250, 250, 354, code]


def test_hundred_thousand_recipients_where_a_thousand_are_allowed(node):
    """If this fails, one transaction takes memory without end; or those before the limit are lost."""
    rcpts = b"".join(b"RCPT TO:<r%d@d%d.example>\r\n" % (number, number % 10) for number in range(100_000))
    with bounded(node, mebibytes=8), Sender(node.smtp_port).greet() as sender:
        codes = _pipeline(sender, b"MAIL FROM:<a@example.com>\r\n" + rcpts, 100_001)
        assert codes == [250] * 1001 + [452] * 99_000
        assert sender.ask(b"DATA\r\n")[0] == 354
        assert sender.ask(MESSAGE % b"thousand")[0] == 250
    assert accepted(node, "thousand") == 1000


def test_hundred_thousand_recipients_of_one_message(node):
    """If this fails, the largest transaction that a configuration allows is lost, or stops the daemon."""
    rcpts = b"".join(b"RCPT TO:<r%d@d%d.example>\r\n" % (number, number % 10) for number in range(100_000))
    with bounded(node, mebibytes=256), Sender(node.many_port).greet() as sender:
        codes = _pipeline(sender, b"MAIL FROM:<a@example.com>\r\n" + rcpts, 100_001)
        assert codes == [250] * 100_001
        assert sender.ask(b"DATA\r\n")[0] == 354
        sender.send(MESSAGE % b"hundred-thousand")
        assert node.status()["health"] == "ok"
        assert sender.reply()[0] == 250
        assert sender.ask(b"NOOP\r\n")[0] == 250
    assert accepted(node, "hundred-thousand") == 100_000
    report, *_ = node.halt("hundred-thousand")
    assert report["state"] in ("halting", "halted")
    node.wait_completed("hundred-thousand")


def _pipeline(sender, octets, replies):
    """Send all and read all, neither waiting for the other."""
    sending = threading.Thread(target=sender.send, args=(octets,))
    sending.start()
    codes = sender.codes(replies)
    sending.join(SECONDS)
    return codes


def test_pipelined_garbage(node):
    """If this fails, noise keeps a connection, memory or the processor busy; or some of it is taken for mail."""
    before = node.status()["totals"]["accepted"]
    dice = random.Random(7)
    with bounded(node, mebibytes=8):
        for number in range(60):
            with Sender(node.smtp_port).greet() as sender:
                noise = dice.randbytes(1 << 20)
                if number % 3 == 1:
                    noise = noise.replace(b"\n", b"\r\n")
                if number % 3 == 2:
                    noise = b"".join(dice.choice(GARBAGE) for _ in range(20_000))
                pour(sender, noise, 4 << 20)
                said = sender.end()
                assert said.splitlines()[-1][:4] in (b"421 ", b"500 ", b"501 ", b"221 "), said[-200:]
    assert node.status()["totals"]["accepted"] == before


GARBAGE = [
    *(b"\r\n", b" \r\n", b"MAIL\r\n", b"RCPT TO:<x>\r\n", b"\xff\xfe\r\n", b"\x00\r\n", b"FROM:\r\n", b"STARTTLS\r\n"),
    *(b"EHLO\r\n", b"DATA\r\n", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\r\n", b"VRFY\r\n", b"MAIL FROM:<<<<\r\n"),
]


def test_clients_that_never_read(node):
    """If this fails, replies to clients that never read them fill the memory, or keep the others waiting."""
    with bounded(node, mebibytes=DEAF * 0.75):
        deaf = [Sender(node.smtp_port, window=4096) for _ in range(DEAF)]
        commands = b"HELP\r\n" * 20_000
        sent = dict.fromkeys(deaf, 0)
        for sender in deaf:
            sender.socket.setblocking(False)
        quiet = 0
        while quiet < 25:
            moved = 0
            for sender in deaf:
                with contextlib.suppress(BlockingIOError):
                    moved += (count := sender.socket.send(commands[sent[sender] % 6 :]))
                    sent[sender] += count
            if not moved:
                quiet += 1
                time.sleep(0.02)
            else:
                quiet = 0
        with Sender(node.smtp_port).greet() as sender:
            assert sender.ask(BEGIN)[0] == 250
        assert max(sent.values()) < 16 << 20, "they are not read from without end"
        for sender in deaf:
            sender.reset()


def test_memory_of_messages_that_were_given_up_comes_back(node):
    """If this fails, sixteen messages that were broken off are the last: the budget of the listener is used up."""
    with bounded(node, mebibytes=24):
        for number in range(24):
            with Sender(node.smtp_port).greet() as sender:
                sender.send(BEGIN + (b"DATA\r\n" if number % 2 else b"BDAT 4000000\r\n"))
                assert sender.codes(3 if number % 2 else 2)[-1] in (250, 354)
                sender.send((b"x" * 998 + b"\r\n") * 3000)
                if number % 3:
                    sender.reset()

        def taken() -> bool:
            with Sender(node.smtp_port).greet() as sender:
                return sender.ask(b"MAIL FROM:<a@example.com> SIZE=4000000\r\n")[0] == 250

        until(taken)
        with Sender(node.smtp_port).greet() as sender:
            sender.send(BEGIN + b"DATA\r\n\r\n" + (b"x" * 998 + b"\r\n") * 4000 + b".\r\n")
            assert sender.codes(4) == [250, 250, 354, 250]
