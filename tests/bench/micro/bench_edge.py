"""The edge's command loop: one session that is fed octets by hand, with an intake that keeps nothing."""

from __future__ import annotations

import asyncio

import pytest

from mtactl.edge.session import SMTPSession
from tests.world.edge import QUEUED, MemoryTransport, make_policy

MESSAGES = 50  # a round
COMMANDS = (b"MAIL FROM:<bounce@news.example>\r\n", b"RCPT TO:<reader@inbox.example>\r\n", b"DATA\r\n")
HEADER = b"From: a@news.example\r\nSubject: hello\r\nX-Campaign-ID: spring\r\n\r\n"
TURNS = 100  # of the event loop, in which a reply must have come
PIECE = 65_536  # octets, as they come from a socket at most


class NullIntake:
    """Takes everything and keeps nothing."""

    def ready(self):
        return None

    async def accept(self, _message):
        return QUEUED


class Conversation:
    """One session past EHLO."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.transport = MemoryTransport()
        self.session = SMTPSession(
            make_policy(NullIntake()),
            asyncio.get_running_loop(),
            opened=lambda _: None,
            closed=lambda _: self.ended.set(),
        )
        self.session.connection_made(self.transport)

    async def say(self, octets: bytes, code: bytes) -> None:
        """Feed octets, and wait for replies of which the last has this code."""
        written = self.transport.written
        written.clear()
        self.session.data_received(octets)
        for _ in range(TURNS):
            await asyncio.sleep(0)
            if written and written[-1][:-2].rpartition(b"\n")[2].startswith(code):
                return
        raise AssertionError(written)

    async def send(self, envelope: list[tuple[bytes, bytes]], pieces: list[bytes]) -> None:
        """Send one message."""
        for commands, code in envelope:
            await self.say(commands, code)
        for piece in pieces[:-1]:
            self.session.data_received(piece)
            await asyncio.sleep(0)
        await self.say(pieces[-1], b"250")

    async def end(self) -> None:
        """Hang up."""
        self.session.eof_received()
        await self.ended.wait()
        self.session.connection_lost(None)


async def begin() -> Conversation:
    conversation = Conversation()
    while not conversation.transport.written:
        await asyncio.sleep(0)
    await conversation.say(b"EHLO client.example\r\n", b"250")
    return conversation


async def send_all(conversation: Conversation, envelope: list[tuple[bytes, bytes]], pieces: list[bytes]) -> None:
    for _ in range(MESSAGES):
        await conversation.send(envelope, pieces)


@pytest.mark.parametrize("pipelined", [False, True], ids=["one by one", "pipelined"])
@pytest.mark.parametrize("size", [1_000, 10_000, 100_000])
def test_session(benchmark, run, size, pipelined):
    """50 messages through one session."""
    body = HEADER + (b"x" * 76 + b"\r\n") * (size // 78) + b".\r\n"
    pieces = [body[at : at + PIECE] for at in range(0, len(body), PIECE)]
    codes = (b"250", b"250", b"354")
    envelope = [(b"".join(COMMANDS), codes[-1])] if pipelined else list(zip(COMMANDS, codes, strict=True))
    conversation = run(begin())
    benchmark(lambda: run(send_all(conversation, envelope, pieces)))
    run(conversation.end())
