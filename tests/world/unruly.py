"""A mail server that goes wrong at one stage of a session, in one manner, until it is told to behave."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.world.smtp_peer import EHLO, EHLO_PLAIN, Conversation, HangUp, SmtpPeer

STAGES = ("banner", "ehlo", "mail", "rcpt", "data", "body", "dot")
MANNERS = ("garbage", "hangs-up", "silent")

GARBAGE = b"\x16\x03\x01 <html>this is not SMTP</html>\r\n"
ANSWERS = {b"MAIL": "mail", b"RCPT": "rcpt"}


class UnrulyPeer(SmtpPeer):
    """Goes wrong at a stage; `there` counts the connections that did. `behave` mends it for what comes then.

    A silent one goes on when `answer` is called: with an answer to what it heard last, or by hanging up (b"").
    """

    def __init__(self, stage: str, manner: str, *, pipelining: bool = True) -> None:
        super().__init__((self.converse,))
        self.stage = stage
        self.manner = manner
        self.ehlo = EHLO if pipelining else EHLO_PLAIN
        self.there = 0
        self.delivered: list[bytes] = []
        self.listening = socket.socket()
        self._behaves = False
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def behave(self) -> None:
        """Behave from now on."""
        self._behaves = True
        self.listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def answer(self, octets: bytes = b"") -> None:
        """Let the silent ones go on."""
        self._answer.set_result(octets)

    async def converse(self, talk: Conversation) -> None:
        """Serve one connection."""
        await self.reach("banner", talk)
        talk.say(b"220 peer.test ESMTP\r\n")
        while line := await talk.reader.readline():
            talk.heard.append(line)
            verb = line[:4].upper()
            if verb == b"EHLO":
                await self.reach("ehlo", talk)
                talk.say(self.ehlo)
            elif verb == b"DATA":
                await self.take_message(talk)
            elif verb == b"QUIT":
                talk.say(b"221 2.0.0 bye\r\n")
                return
            else:
                await self.reach(ANSWERS.get(verb, ""), talk)
                talk.say(b"250 2.0.0 Ok\r\n")

    async def take_message(self, talk: Conversation) -> None:
        """Take what follows DATA."""
        await self.reach("data", talk)
        talk.say(b"354 go\r\n")
        await self.reach("body", talk)
        message = await talk.hear_message()
        await self.reach("dot", talk)
        talk.say(b"250 2.0.0 taken\r\n")
        self.delivered.append(message)

    async def reach(self, stage: str, talk: Conversation) -> None:
        """Go wrong, if this is where. Raises HangUp when the connection is to end."""
        if stage != self.stage or self._behaves:
            return
        if stage == "body":
            await talk.reader.readexactly(10_000)  # it has begun, and its end is far off
        self.there += 1
        if self.manner == "garbage":
            talk.say(GARBAGE)
            await talk.hang()
        if self.manner == "silent" and (octets := await asyncio.shield(self._answer)):
            talk.say(octets)
            await talk.hang()
        raise HangUp


@asynccontextmanager
async def run_unruly_peer(stage: str, manner: str, *, pipelining: bool = True) -> AsyncIterator[UnrulyPeer]:
    """Run one on a free port until the block ends. Where the body gets stuck, its receive buffer is small."""
    peer = UnrulyPeer(stage, manner, pipelining=pipelining)
    if stage == "body":
        peer.listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    peer.listening.bind(("127.0.0.1", 0))
    peer.port = peer.listening.getsockname()[1]
    server = await asyncio.start_server(peer.serve, sock=peer.listening, limit=1 << 16)
    try:
        yield peer
    finally:
        server.close()
        await peer.stop()
        await server.wait_closed()
    if peer.failures:
        raise peer.failures[0]
