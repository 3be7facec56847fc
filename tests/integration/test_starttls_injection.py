"""What is slipped in around STARTTLS: by a client, where it is not offered, and by a peer, in front of the handshake
(CVE-2011-0411, CVE-2021-38371 and their kin).
"""

from __future__ import annotations

import asyncio
import ssl
import struct

import pytest
import trustme

from mtactl.errors import TransientFailure
from mtactl.relay.relay import SmtpRelay
from mtactl.schedule.ports import Ending
from tests.integration.test_relay_session import deliver, make_settings
from tests.world.edge import running_edge
from tests.world.loops import on_both_loops
from tests.world.smtp_peer import run_smtp_peer

BEGIN = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n"
MESSAGE = b"Subject: x\r\n\r\nHello\r\n.\r\n"
CLIENT_HELLO = b"\x16\x03\x01" + struct.pack(">H", 512) + b"\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2


@pytest.mark.parametrize("command", [b"STARTTLS\r\n", b"starttls\r\n", b"STARTTLS now\r\n", b"AUTH PLAIN AGEAYg==\r\n"])
async def test_what_is_pipelined_behind_starttls_is_neither_encrypted_nor_trusted(command):
    """If this fails, a message that anyone on the way could have slipped in counts as one that came by TLS."""
    async with running_edge() as edge, edge.client() as client:
        client.send(command + b"EHLO inner.test\r\n" + BEGIN + b"DATA\r\n" + MESSAGE + b"QUIT\r\n")
        assert await client.codes(1) == [502]
        assert await client.codes(6) == [250, 250, 250, 354, 250, 221]
        (message,) = edge.intake.messages
        trace = b"".join(message.body).partition(b"Subject: ")[0]
        assert b" with ESMTP id " in trace, "neither ESMTPS nor ESMTPA"


async def test_starttls_lets_nobody_in_who_may_not_send():
    """If this fails, two words make an open relay of it."""
    async with running_edge(relay_from=("192.0.2.0/24",)) as edge, edge.client() as client:
        client.send(b"STARTTLS\r\nAUTH PLAIN AGEAYg==\r\nEHLO x\r\n" + BEGIN + b"DATA\r\n")
        assert await client.codes(6) == [502, 502, 250, 554, 503, 503]
        assert not edge.intake.messages


@pytest.mark.parametrize("before", [b"", b"STARTTLS\r\n", b"NOOP\r\n"])
async def test_handshake_that_nobody_asked_for(before):
    """If this fails, the octets of a handshake are commands, or the session is in a state that there is not."""
    async with running_edge() as edge, edge.client() as client:
        client.send(before + CLIENT_HELLO + b"\r\n" + BEGIN)
        said = await client.end()
        assert b"220 " not in said
        assert said.splitlines()[-1].startswith(b"500 5.5.2 "), "it ended with the first bare line feed"
        assert not edge.intake.begun
        await edge.until(lambda: edge.listeners.connections == 0)


@pytest.fixture(scope="module")
def context() -> ssl.SSLContext:
    """Give a context with a certificate of an authority that nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("peer.test").configure_cert(context)
    return context


HELLO = b"250-peer.test\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
ENCRYPTED_HELLO = b"250-peer.test\r\n250-8BITMIME\r\n250 SIZE 123456\r\n"
INJECTED = {
    "a reply to EHLO": b"250-evil.test\r\n250-PIPELINING\r\n250-SMTPUTF8\r\n250 SIZE 7\r\n",
    "half a reply": b"250-evil.test\r\n250-SIZE 7\r\n",
    "an octet": b"2",
    "a whole delivery": b"250 evil.test\r\n250 ok\r\n250 ok\r\n354 go\r\n250 2.0.0 taken\r\n",
    "a goodbye": b"421 4.3.2 go away\r\n",
    "much": b"250-evil.test\r\n" * 20_000,
    "no reply at all": b"\x00\xff" * 500,
}


class Injector:
    """A peer that says something in the clear around its 220 to STARTTLS, and then speaks TLS as if nothing were."""

    def __init__(self, context: ssl.SSLContext, injected: bytes, *, apart: bool) -> None:
        self.context = context
        self.injected = injected
        self.apart = apart
        self.messages: list[tuple[bytes, bool]] = []

    async def converse(self, talk) -> None:
        talk.say(b"220 peer.test ESMTP\r\n")
        encrypted = False
        while line := await talk.reader.readline():
            talk.heard.append(line)
            match line[:4].upper():
                case b"EHLO":
                    talk.say(ENCRYPTED_HELLO if encrypted else HELLO)
                case b"STAR":
                    if self.apart:
                        talk.say(b"220 go\r\n")
                        await talk.writer.drain()
                        await asyncio.sleep(0.02)
                        talk.say(self.injected)
                    else:
                        talk.say(b"220 go\r\n" + self.injected)
                    await talk.writer.start_tls(self.context)
                    encrypted = True
                case b"DATA":
                    talk.say(b"354 go\r\n")
                    self.messages.append((await talk.hear_message(), encrypted))
                    talk.say(b"250 2.0.0 really taken\r\n")
                case b"QUIT":
                    talk.say(b"221 bye\r\n")
                    return
                case _:
                    talk.say(b"250 ok\r\n")


@pytest.mark.parametrize("apart", [False, True], ids=["one segment", "two segments"])
@pytest.mark.parametrize("name", INJECTED)
@on_both_loops
async def test_what_a_peer_said_in_the_clear_is_not_believed(context, name, apart):
    """If this fails, whoever sits on the line answers in the peer's name, and mail is 'delivered' that is not."""
    injector = Injector(context, INJECTED[name], apart=apart)
    disturbs = apart or len(injector.injected) > 2000  # it runs into the handshake

    async def script(talk):
        try:
            await injector.converse(talk)
        except (ssl.SSLError, ConnectionError):  # the handshake was disturbed by what was said into it
            await talk.hang()

    async with run_smtp_peer(script) as peer:
        settings = make_settings(peer.port, timeouts={"starttls": 1.5 if disturbs else 30, "ehlo": 30})
        relay = SmtpRelay(lambda: settings)
        try:
            session = await relay.connect("x.example", "x.example")
        except TransientFailure as failure:
            session, told = None, str(failure)
        if session is None:
            assert disturbs and "evil" not in told
            assert not injector.messages
            return
        assert disturbs or session.tls, "a peer that is only odd is not without TLS"
        if session.tls:
            assert session.offers.size == 123456 and session.offers.eight_bit, "what was said by TLS"
            assert not session.offers.pipelining and not session.offers.smtputf8
        else:  # a new connection in the clear, since TLS can't be had (RFC 7435 §3)
            assert session.offers.pipelining and session.offers.size is None
            assert len(peer.conversations) > 1
        results = await deliver(session)
        assert [result.ending for result in results] == [Ending.DELIVERED] * len(results)
        assert results[0].reply.text == "really taken"
        assert [encrypted for _, encrypted in injector.messages] == [bool(session.tls)]
        session.abort()
        await relay.close()


@pytest.mark.parametrize(
    "early",
    [b"220 2.0.0 ready\r\n", b"220 go\r\n250 evil.test\r\n", b"250 ok\r\n", b"2", b"454 no TLS\r\n"],
)
@on_both_loops
async def test_reply_to_starttls_that_came_before_it(context, early):
    """If this fails, a reply that was sent before the question is the answer, and from then on each is to the last."""

    async def script(talk):
        talk.say(b"220 peer.test ESMTP\r\n")
        await talk.hear(b"EHLO")
        talk.say(HELLO + early)
        await talk.hang()

    async with run_smtp_peer(script) as peer:
        settings = make_settings(peer.port, timeouts={"starttls": 30, "ehlo": 30})
        relay = SmtpRelay(lambda: settings)
        with pytest.raises(TransientFailure) as failure:
            await relay.connect("x.example", "x.example")
        assert "out of turn" in str(failure.value)
        assert not any(line.startswith(b"MAIL") for line in peer.heard)
        await relay.close()
