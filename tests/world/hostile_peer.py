"""A mail server that goes wrong once, at one stage of a session and in one manner, and then behaves.

Of the recipients of a message it takes all but `b`, whom it refuses for good, and `c`, whom it puts off in the first
envelope that it gets. So each message has mixed replies, whatever else goes wrong.

With `held` it waits, at the stage, until `let_go`; `there` counts the connections that came so far.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.world.smtp_peer import Conversation, HangUp, SmtpPeer

GARBAGE = b"\x16\x03\x01 <html>this is not SMTP</html>\r\n"
ALERT = b"\x15\x03\x03\x00\x02\x02\x28"  # TLS: fatal, handshake_failure
NO_MAIL, NOBODY = b"503 5.5.1 MAIL first\r\n", b"554 5.5.1 nobody to send it to\r\n"
REFUSED, PUT_OFF = b"550 5.1.1 no such user\r\n", b"450 4.2.1 come again\r\n"
FEATURES = ("8BITMIME", "SMTPUTF8", "PIPELINING", "STARTTLS", "SIZE 10")
BETWEEN = 0.05  # seconds after a message until a peer goes wrong while nothing is asked of it


class HostilePeer(SmtpPeer):
    """The stages are banner, ehlo, starttls, tls, tls-ehlo, mail, rcpt (b's), data, body, dot, idle, again, quit.

    `again` is the second MAIL of a connection. `offers` are of FEATURES. A manner is the name of one of our methods, a
    reply (from its digits on), or a feature that is left out.
    """

    def __init__(self, stage: str, manner: str, offers: set[str], context: ssl.SSLContext, *, held: bool) -> None:
        super().__init__((self.converse,))
        self.stage = stage
        self.manner = manner
        self.offers = offers
        self.there = 0
        self.began = 0
        self.asked: Counter[str] = Counter()  # RCPT by local part
        self.delivered: Counter[str] = Counter()
        self.listening = socket.socket()
        self._context = context
        self._gone_wrong = False
        self._open = asyncio.Event()
        if not held:
            self._open.set()

    def let_go(self) -> None:
        """Go wrong now, where it was held."""
        self._open.set()

    # -- the session ------------------------------------------------------------------------------------------------

    async def converse(self, talk: Conversation) -> None:
        """Serve one connection."""
        await self.answer("banner", talk, b"220 peer.test ESMTP\r\n")
        encrypted = False
        envelopes = 0
        while line := await talk.reader.readline():
            talk.heard.append(line)
            verb = line[:4].upper()
            if verb == b"EHLO":
                await self.answer("tls-ehlo" if encrypted else "ehlo", talk, self.hello(encrypted))
            elif verb == b"HELO":
                talk.say(b"250 peer.test\r\n")
            elif verb == b"STAR":
                encrypted = await self.encrypt(talk)
            elif verb == b"MAIL":
                envelopes += 1
                await self.take_envelope(talk, again=envelopes > 1)
            elif verb == b"QUIT":
                await self.answer("quit", talk, b"221 2.0.0 bye\r\n")
                return
            else:
                talk.say(NO_MAIL if verb in (b"RCPT", b"DATA") else b"250 2.0.0 Ok\r\n")

    def hello(self, encrypted: bool) -> bytes:
        offered = [each for each in FEATURES if each in self.offers and not (encrypted and each == "STARTTLS")]
        lines = ["peer.test", *offered]
        return "".join(f"250{'- '[line is lines[-1]]}{line}\r\n" for line in lines).encode()

    async def encrypt(self, talk: Conversation) -> bool:
        if not await self.answer("starttls", talk, b"220 2.0.0 go\r\n"):
            return False
        if await self.comes_to("tls", talk):
            await self.misbehave(talk, b"")
        try:
            await talk.writer.start_tls(self._context)
        except (OSError, ssl.SSLError) as error:
            raise HangUp from error
        return True

    async def take_envelope(self, talk: Conversation, *, again: bool) -> None:
        self.began += 1
        first = self.began == 1
        if not await self.answer("again" if again else "mail", talk, b"250 2.1.0 Ok\r\n"):
            return
        taken: list[str] = []
        while line := await talk.reader.readline():
            talk.heard.append(line)
            verb = line[:4].upper()
            if verb == b"RCPT":
                name = line.partition(b"<")[2].partition(b"@")[0].decode()
                self.asked[name] += 1
                reply = {"b": REFUSED, "c": PUT_OFF if first else b""}.get(name) or b"250 2.1.5 Ok\r\n"
                stage = "rcpt" if name == "b" else ""
                if await self.answer(stage, talk, reply) and reply.startswith(b"250"):
                    taken.append(name)
            elif verb == b"DATA":
                if not taken:
                    talk.say(NOBODY)
                elif await self.answer("data", talk, b"354 go\r\n"):
                    await self.take_message(talk, taken)
                return
            elif verb == b"RSET":
                talk.say(b"250 2.0.0 Ok\r\n")
                return
        raise HangUp

    async def take_message(self, talk: Conversation, taken: list[str]) -> None:
        if await self.comes_to("body", talk):
            await talk.reader.readexactly(10_000)  # it has begun, and its end is far off
            self.listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # for the next connections
            await self.misbehave(talk, b"")
        await talk.hear_message()
        if await self.answer("dot", talk, b"250 2.0.0 taken\r\n"):
            self.delivered.update(taken)
        if await self.comes_to("idle", talk):
            await asyncio.sleep(BETWEEN)
            await self.misbehave(talk, b"")

    # -- going wrong ------------------------------------------------------------------------------------------------

    async def comes_to(self, stage: str, talk: Conversation) -> bool:
        """Tell whether it goes wrong here; once it has, it does not again."""
        if stage != self.stage or self._gone_wrong:
            return False
        self._gone_wrong = True
        self.there += 1
        await self._open.wait()
        return True

    async def answer(self, stage: str, talk: Conversation, reply: bytes) -> bool:
        """Give a reply, or go wrong; give whether it has said yes. Raises HangUp when the connection is to end."""
        if await self.comes_to(stage, talk):
            return await self.misbehave(talk, reply)
        talk.say(reply)
        return True

    async def misbehave(self, talk: Conversation, reply: bytes) -> bool:
        manner = self.manner
        if manner[:3].isdigit():
            talk.say(manner.encode() + b"\r\n")
            if self.stage == "body" or (self.stage == "idle" and manner[:3] != "421"):
                await self.hangs(talk, reply)  # to close with octets unread is to reset, which would take the reply too
            if manner[:3] == "421":
                raise HangUp
            return False
        if manner in FEATURES:
            self.offers = self.offers - {manner} if manner in self.offers else self.offers | {manner}
            talk.say(self.hello(False))
            return True
        return await getattr(self, manner.replace(" ", "_"))(talk, reply) is not False

    async def hangs(self, talk: Conversation, reply: bytes) -> None:
        if self.stage == "body":
            await asyncio.Event().wait()  # it reads no more, either: or the end of the message would come
        await talk.hang()

    async def hangs_up(self, talk: Conversation, reply: bytes) -> None:
        raise HangUp

    async def resets(self, talk: Conversation, reply: bytes) -> None:
        talk.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        talk.writer.transport.abort()
        raise HangUp

    async def talks_garbage(self, talk: Conversation, reply: bytes) -> None:
        talk.say(GARBAGE)
        await self.hangs(talk, reply)

    async def alerts(self, talk: Conversation, reply: bytes) -> None:
        talk.say(ALERT)
        await talk.hang()

    async def goes_on_and_on(self, talk: Conversation, reply: bytes) -> None:
        """Give a reply of lines without end."""
        while True:
            talk.say((reply[:3] + b"-and another line\r\n") * 500)
            await talk.writer.drain()

    async def drips(self, talk: Conversation, reply: bytes) -> None:
        """Give a reply without end, an octet at a time."""
        while True:
            for octet in reply[:3] + b"-and another line\r\n":
                talk.say(bytes([octet]))
                await talk.writer.drain()
                await asyncio.sleep(0.05)

    async def spells(self, talk: Conversation, reply: bytes) -> None:
        """Give the reply octet by octet."""
        await talk.say_slowly(reply)

    async def says_it_twice(self, talk: Conversation, reply: bytes) -> None:
        talk.say(reply * 2)

    async def forgets_it(self, talk: Conversation, reply: bytes) -> None:
        """Say nothing, and take it for said."""


@asynccontextmanager
async def run_hostile_peer(
    stage: str, manner: str, offers: set[str], context: ssl.SSLContext, *, held: bool
) -> AsyncIterator[HostilePeer]:
    """Run one on a free port until the block ends. Where the body gets stuck, its receive buffer is small.

    At the stage `connect` nobody listens: `hangs up` refuses, `hangs` lets a call go unanswered.
    """
    peer = HostilePeer(stage, manner, offers, context, held=held)
    if stage == "body":
        peer.listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    peer.listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    peer.listening.bind(("127.0.0.1", 0))
    peer.port = peer.listening.getsockname()[1]
    if stage == "connect":
        async with _not_answering(peer):
            yield peer
        return
    server = await asyncio.start_server(peer.serve, sock=peer.listening, limit=1 << 16)
    try:
        yield peer
    finally:
        server.close()
        await peer.stop()
        await server.wait_closed()
    if peer.failures:
        raise peer.failures[0]


@asynccontextmanager
async def _not_answering(peer: HostilePeer) -> AsyncIterator[None]:
    """Keep the port as it is until `mend` is called on the peer."""
    callers = []
    if peer.manner == "hangs":
        peer.listening.listen(0)
        for _ in range(2):  # its queue is full: further SYNs are not answered
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex(peer.listening.getsockname())
            callers.append(caller)
    server: asyncio.Server | None = None

    async def mend() -> None:
        nonlocal server
        for caller in callers:
            caller.close()
        peer.listening.setblocking(False)
        server = await asyncio.start_server(peer.serve, sock=peer.listening)

    peer.mend = mend
    peer.there = 1
    try:
        yield
    finally:
        for caller in callers:
            caller.close()
        if server is not None:
            server.close()
        with suppress(OSError):
            peer.listening.close()
        await peer.stop()
