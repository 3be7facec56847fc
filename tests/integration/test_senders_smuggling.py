"""SMTP smuggling: every way to almost end a message, and what becomes of the second message behind it.

The words are all strings of CR, LF, dot and NUL up to a length. What must come of each says the second opinion of
tests/fuzz/reference.py, which goes octet by octet; in the end a peer that believes any word to be an end must not
find one in what goes out.
"""

from __future__ import annotations

import asyncio
import itertools
import re

import pytest
import structlog

from mtactl.edge.content import Content, MemoryBudget
from tests.fuzz import reference
from tests.fuzz.edge import drive
from tests.world.daemon import daemon

ALPHABET = (b"\r", b"\n", b".", b"\x00")
EVIL = b"MAIL FROM:<evil-%d@example.com>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nSubject: evil\r\n\r\nx\r\n.\r\n"
BEFORE = (b"", b"\r\ntext", b"\r\ntext\r\n", b"\r\n..")


def words(longest: int, alphabet: tuple[bytes, ...] = ALPHABET) -> list[bytes]:
    return [b"".join(word) for length in range(longest + 1) for word in itertools.product(alphabet, repeat=length)]


def message(before: bytes, word: bytes, number: int = 0) -> bytes:
    return before + word + EVIL % number


def test_content_ends_where_it_should_in_any_two_segments():
    """If this fails, some word ends a message that a server in front of us has not seen end, or the other way round."""
    trace = b"Received: x\r\n"
    tried = 0
    for before, word in itertools.product(BEFORE, words(5)):
        stream = message(before, word) + b"QUIT\r\n"
        end = reference.end_of_data(stream, 0)
        assert end is not None
        clean = reference.is_clean(stream[:end])
        for boundary in range(max(0, len(before) - 1), len(before) + len(word) + 2):
            content = Content(trace, max_size=1000, max_line=1000, budget=MemoryBudget(10_000))
            rest = content.feed_data(stream[:boundary])
            if rest is None:
                rest = content.feed_data(stream[boundary:])
                assert rest is not None, (before, word, boundary)
                assert bytes(rest) == stream[end:], (before, word, boundary)
            else:
                assert bytes(rest) + stream[boundary:] == stream[end:], (before, word, boundary)
            assert (content.problem is None) == clean, (before, word, boundary)
            assert content.problem is not None or bytes(content.body) == trace + stream[:end]
            tried += 1
    assert tried > 35_000


def test_session_makes_of_each_word_what_it_is():
    """If this fails, what is behind an end that is none is obeyed: a second message, from whomever it likes."""
    before = structlog.get_config()
    structlog.configure(processors=[_drop])
    loop = asyncio.new_event_loop()
    twice = refused = 0
    try:
        for start, word, manner in itertools.product(BEFORE[:2], words(4), (1,)):
            stream = (
                b"EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
                + message(start, word)
                + b"QUIT\r\n"
            )
            said, messages = loop.run_until_complete(drive(stream, manner=manner, seed=1, holds_up=False, limits={}))
            told = reference.Reading(stream, said).read()
            bodies = [b"".join(one.body).partition(b" +0000\r\n")[2] for one in messages]
            assert bodies == told.messages, (start, word)
            whole = b"\r\n" + start + word
            ended = b"\r\n.\r\n" in whole
            evil = [one for one in messages if one.reverse_path.startswith("evil")]
            assert ended or not evil, (start, word, "a message that nobody sent")
            assert len(messages) <= 1 + ended
            twice += len(messages) == 2
            refused += not messages
    finally:
        structlog.configure(**before)
        loop.close()
    assert twice
    assert refused > 500


def _drop(logger, method, event):
    raise structlog.DropEvent


class GulliblePeer(asyncio.Protocol):
    """A server that drops NULs, takes CR, LF and CRLF for the end of a line, and a dot alone on one for the end."""

    def __init__(self, senders: list[str]) -> None:
        self.senders = senders
        self.lines = b""
        self.in_message = False

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.write(b"220 gullible.test\r\n")

    def data_received(self, data: bytes) -> None:
        text = re.sub(rb"\r\n|\r|\n", b"\n", (self.lines + data).replace(b"\x00", b""))
        if data.endswith(b"\r"):  # its LF may come yet
            self.lines, text = b"\r", text[:-1]
        else:
            self.lines = b""
        *lines, rest = text.split(b"\n")
        self.lines = rest + self.lines
        for line in lines:
            self.take(line)

    def take(self, line: bytes) -> None:
        verb = line[:4].upper()
        if self.in_message:
            if line == b".":
                self.in_message = False
                self.transport.write(b"250 2.0.0 taken\r\n")
            return
        if verb == b"MAIL":
            self.senders.append(line.partition(b"<")[2].partition(b">")[0].decode())
        elif verb == b"DATA":
            self.in_message = True
            self.transport.write(b"354 go\r\n")
            return
        elif verb == b"QUIT":
            self.transport.close()
            return
        self.transport.write(b"250 ok\r\n")


async def say(port: int, pieces: list[bytes]) -> bytes:
    """Send pieces, each in a segment of its own, and give all that the server says to them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)
        async with asyncio.timeout(60):
            return await reader.read()
    except ConnectionError:  # it was closed with something on its way
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
async def test_nothing_that_goes_out_is_two_messages_to_a_gullible_peer(tmp_path, verb):
    """If this fails, this server is the one in front: what it passes on is a second message to the one behind it."""
    senders: list[str] = []
    expected: list[str] = []
    server = await asyncio.get_running_loop().create_server(lambda: GulliblePeer(senders), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with daemon(tmp_path, route=port, lane="pipelining = false\nmax_connections = 4") as node:
        chosen = {*words(3), *words(4, (b"\r\n", b".", b"x"))}
        for number, word in enumerate(sorted(word for word in chosen if b"." in word)):
            envelope = b"EHLO x\r\nMAIL FROM:<m-%d@example.com>\r\nRCPT TO:<b@example.org>\r\n" % number
            text = b"Subject: m\r\n\r\ntext"
            if verb == "DATA":
                start, rest = envelope + b"DATA\r\n" + text, EVIL % number
            else:
                body = text + word + EVIL % number
                start, rest = envelope + b"BDAT %d LAST\r\n" % len(body) + text, EVIL % number
            stream = start + word + rest + b"QUIT\r\n"
            said = await say(node.smtp_port, [start, *(bytes([octet]) for octet in word), rest + b"QUIT\r\n"])
            if not said:
                continue
            for content in reference.Reading(stream, said).read().messages:
                evil = content.startswith(b"Subject: evil")
                expected.append(f"{'evil' if evil else 'm'}-{number}@example.com")
        assert len(expected) > 20
        async with asyncio.timeout(60):
            while (await asyncio.to_thread(node.status))["totals"]["delivered"] < len(expected):
                await asyncio.sleep(0.05)
    server.close()
    assert sorted(senders) == sorted(expected)
    if verb == "BDAT":
        assert not any(sender.startswith("evil") for sender in senders), "a chunk is a chunk"
