"""Thousands of connections, and clients that go away at each stage of a session, with a real daemon."""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import time

import pytest

from tests.world.daemon import Daemon, check_law
from tests.world.sender import BEGIN, EHLO, Sender, bounded, open_files, until

PLACES = 2000  # max_connections
MESSAGE = b"X-Campaign-ID: gone\r\nSubject: x\r\n\r\nHello\r\n.\r\n"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A node with 2000 places for clients, whose only destination is out of reach."""
    folder = tmp_path_factory.mktemp("node")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192) if hard > 0 else 8192, hard))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens: refused, and nobody else gets it
        one = Daemon(folder, route=taken.getsockname()[1], lane='backoff = ["1h"]')
        limits = f'max_connections = {PLACES}\nmax_message_size = "1MiB"\nmax_memory = "4MiB"\n'
        one.config.write_text(one.config.read_text().replace('[lane."*"]', f'{limits}[lane."*"]'))
        try:
            one.start()
            with Sender(one.smtp_port).greet() as warm:
                warm.send(BEGIN + b"DATA\r\n" + MESSAGE)
                assert warm.codes(4)[-1] == 250
            yield one
        finally:
            one.end()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "said", [b"", EHLO + BEGIN, EHLO + BEGIN + b"DATA\r\nSubject: x\r\n"], ids=["nothing", "RCPT", "DATA"]
)
def test_thousands_of_connections_that_say_nothing_more(node, said):
    """If this fails, whoever opens connections brings the daemon down, or keeps the places when he is gone."""
    with bounded(node, mebibytes=36):
        for _ in range(1 if said else 3):  # those that come later cost nothing more
            crowd(node, said)
    with Sender(node.smtp_port).greet() as sender:
        assert sender.ask(BEGIN)[0] == 250


def crowd(node, said: bytes) -> None:
    """Take all the places there are, and a thousand more, with clients that say something and then nothing."""
    files = open_files(node)
    with contextlib.ExitStack() as stack:
        senders = [stack.enter_context(Sender(node.smtp_port)) for _ in range(PLACES + 1000)]
        greetings = []
        for sender in senders:
            code, text = sender.reply()
            greetings.append(code)
            if code == 421:
                assert "too many connections" in text
                assert sender.end() == b""
            else:
                sender.send(said)
        assert greetings.count(220) == PLACES
        assert greetings.count(421) == 1000
        problems = node.status()["problems"]  # it still hears the operator, and tells of the crowd
        assert all("too many clients" in problem for problem in problems), problems
    until(lambda: open_files(node) <= files)


@pytest.mark.parametrize("how", ["close", "reset", "reset behind a message"])
def test_storm_of_connections(node, how):
    """If this fails, clients that come and go leave memory, places or file descriptors behind."""
    before = node.report("gone")["counts"]["accepted"]
    with bounded(node, mebibytes=16):
        for _ in range(3000):
            with socket.create_connection(("127.0.0.1", node.smtp_port)) as raw:
                if how != "close":
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if how == "reset behind a message":
                    raw.sendall(EHLO + BEGIN + b"DATA\r\nSubject: x\r\n\r\nhalf a mess")
        until(lambda: _greeting(node) == 220)
    assert node.report("gone")["counts"]["accepted"] == before


def _greeting(node) -> int:
    with Sender(node.smtp_port) as sender:
        return sender.reply()[0]


COMMANDS = [
    b"EHLO client.test\r\n",
    b"MAIL FROM:<a@example.com>\r\n",
    b"RCPT TO:<b@example.org>\r\n",
    b"RCPT TO:<not an address>\r\n",
    b"NOOP\r\n",
    b"VRFY b\r\n",
    b"BDAT 23\r\nX-Campaign-ID: gone\r\n\r\n",
    b"BDAT 7 LAST\r\nHello\r\n",
    b"HELP\r\n",
    b"RSET\r\n",
    b"MAIL FROM:<> SMTPUTF8 SIZE=10\r\n",
    b"RCPT TO:<\xc3\xbc@example.org>\r\n",
    b"DATA\r\n",
    MESSAGE,
    b"STARTTLS\r\n",
    b"HELO client.test\r\n",
    b"QUIT\r\n",
]


def _stages() -> list[bytes]:
    """Give all that a session may have sent when its client goes: to each command's end, and to the middle of each."""
    stages = [b""]
    for command in COMMANDS:
        stages += [stages[-1] + command[: len(command) // 2], stages[-1] + command[:-1], stages[-1] + command]
    return stages


@pytest.mark.parametrize("how", ["close", "half", "reset"])
def test_client_goes_away_at_each_stage(node, how):
    """If this fails, half a message is delivered, a whole one is lost behind its 250, or places are leaked."""
    stages = _stages()
    assert len(stages) == 1 + 3 * len(COMMANDS)
    before = len(settled(node))
    begun = promised = 0
    with bounded(node, mebibytes=16):
        for stage in stages:
            with Sender(node.smtp_port) as sender:
                sender.send(stage)
                whole = stage.count(b"LAST\r\nHello\r\n") + stage.count(MESSAGE)
                begun += whole
                if how == "half":
                    sender.socket.shutdown(socket.SHUT_WR)
                    promised += sender.end().count(b"Ok: queued as")
                elif how == "reset":
                    sender.reset()
    until(lambda: node.report("gone")["counts"]["accepted"] >= before + promised)
    taken = len(settled(node))
    check_law(node.report("gone")["counts"])
    assert before + promised <= taken <= before + begun
    if how == "half":  # they read all that they were told, so all that was whole was promised
        assert promised == begun


def test_client_goes_away_between_the_dot_and_the_reply(node):
    """If this fails, a message that is durable is in no book, or one that was not promised is there twice."""
    before = len(settled(node))
    with bounded(node, mebibytes=8):
        for number in range(200):
            sender = Sender(node.smtp_port).greet()
            sender.send(BEGIN + b"DATA\r\n")
            assert sender.codes(3) == [250, 250, 354]
            sender.send(MESSAGE)
            if number % 2:
                sender.reset()
            else:
                sender.close()
    # Those that were read before the reset are taken, the others are not; none is there twice.
    listed = settled(node)
    assert before <= len(listed) <= before + 200
    assert len(listed) == len({row["message"] for row in listed}) == node.report("gone")["counts"]["accepted"]


def settled(node) -> list[dict]:
    """Wait until no commit is on its way any more; give what is in the queue."""
    rows: list[dict] = []
    for _ in range(200):
        before, rows = rows, node.call("GET", "/v1/queue?campaign=gone&limit=5000")[1]["recipients"]
        if before and len(before) == len(rows) == node.report("gone")["counts"]["accepted"]:
            return rows
        time.sleep(0.3)
    raise AssertionError(f"{len(rows)} recipients are in the queue: {node.report('gone')}")
