"""Opportunistic STARTTLS (RFC 3207, RFC 7435), with aiosmtpd as the peer and with peers that break it."""

import asyncio
import ssl
from contextlib import asynccontextmanager

import pytest
import trustme
from aiosmtpd.smtp import SMTP

from mtactl.errors import TransientFailure
from mtactl.relay.relay import SmtpRelay
from mtactl.schedule.ports import Ending
from tests.integration.test_relay_session import deliver, make_settings
from tests.world.loops import on_both_loops
from tests.world.smtp_peer import EHLO, run_smtp_peer

EHLO_TLS = b"250-peer.test\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
BIG_BODY = (b"x" * 76 + b"\r\n") * 40_000 + b".\r\n"


@pytest.fixture(scope="module")
def server_context() -> ssl.SSLContext:
    """Give a context with a certificate of an authority that nobody knows, for another name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("other.test").configure_cert(context)
    return context


class Mailbox:
    """An aiosmtpd handler that keeps what it takes, and whether it came encrypted."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, bool]] = []

    async def handle_DATA(self, server, session, envelope):
        self.taken.append((envelope.original_content, session.ssl is not None))
        return "250 2.0.0 taken"


@asynccontextmanager
async def run_aiosmtpd(context, **options):
    mailbox = Mailbox()
    loop = asyncio.get_running_loop()

    def make_smtp():
        return SMTP(mailbox, hostname="peer.test", tls_context=context, loop=loop, **options)

    server = await loop.create_server(make_smtp, "127.0.0.1", 0)
    try:
        yield mailbox, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("body", [b"Subject: x\r\n\r\nx\r\n.\r\n", BIG_BODY], ids=["small", "in pieces"])
@on_both_loops
async def test_mail_is_encrypted_if_the_peer_can(server_context, body):
    """If it failed, mail would cross the net in the clear, or only to peers with a certificate that we know."""
    async with run_aiosmtpd(server_context, require_starttls=True) as (mailbox, port):
        settings = make_settings(port)
        session = await SmtpRelay(lambda: settings).connect("x.example", "x.example")
        assert session.tls.startswith("TLSv1.")
        for _ in range(2):
            assert [result.ending for result in await deliver(session, body=body)] == [Ending.DELIVERED]
        await session.quit()
        assert mailbox.taken == [(body[:-3], True)] * 2


@on_both_loops
async def test_tls_can_be_switched_off(server_context):
    """If it failed, `delivery.tls = "none"` would be a word without a meaning."""
    async with run_aiosmtpd(server_context) as (mailbox, port):
        settings = make_settings(port, tls="none")
        session = await SmtpRelay(lambda: settings).connect("x.example", "x.example")
        assert session.tls == ""
        await deliver(session)
        await session.quit()
        assert [encrypted for _, encrypted in mailbox.taken] == [False]


async def _break_handshake(talk):
    await talk.open(EHLO_TLS)
    await talk.hear(b"STARTTLS")
    talk.say(b"220 go\r\nthis is no handshake at all\r\n")
    await talk.hang()


async def _close_in_handshake(talk):
    await talk.open(EHLO_TLS)
    await talk.hear(b"STARTTLS")
    talk.say(b"220 go\r\n")
    await talk.reader.read(10)


async def _hang_in_handshake(talk):
    await talk.open(EHLO_TLS)
    await talk.hear(b"STARTTLS")
    talk.say(b"220 go\r\n")
    await talk.hang()


async def _take_in_the_clear(talk):
    await talk.open(EHLO_TLS)
    await talk.take()
    await talk.hang()


@pytest.mark.parametrize("broken", [_break_handshake, _close_in_handshake, _hang_in_handshake])
@on_both_loops
async def test_failed_handshake_goes_on_in_the_clear(broken):
    """If it failed, a peer whose TLS is broken would get no mail, though it would without (RFC 7435 §3)."""
    async with run_smtp_peer(broken, _take_in_the_clear) as peer:
        settings = make_settings(peer.port, timeouts={"starttls": 0.5})
        session = await SmtpRelay(lambda: settings).connect("x.example", "x.example")
        assert session.tls == ""
        assert [result.ending for result in await deliver(session)] == [Ending.DELIVERED]
        session.abort()
        assert len(peer.conversations) == 2


@pytest.mark.parametrize("refusal", [b"454 4.7.0 not now\r\n", b"502 5.5.1 no\r\n"])
@on_both_loops
async def test_refused_starttls_goes_on_in_the_clear(refusal):
    """If it failed, a peer that only lacks its certificate would cost a second connection, or get no mail."""

    async def script(talk):
        await talk.open(EHLO_TLS)
        await talk.hear(b"STARTTLS")
        talk.say(refusal)
        await talk.take()
        await talk.hang()

    async with run_smtp_peer(script) as peer:
        settings = make_settings(peer.port)
        session = await SmtpRelay(lambda: settings).connect("x.example", "x.example")
        assert [result.ending for result in await deliver(session)] == [Ending.DELIVERED]
        session.abort()
        assert len(peer.conversations) == 1


@on_both_loops
async def test_421_to_starttls_puts_off():
    """If it failed, a peer that asked to be left alone would be connected to again at once."""

    async def script(talk):
        await talk.open(EHLO_TLS)
        await talk.hear(b"STARTTLS")
        talk.say(b"421 4.3.2 later\r\n")

    async with run_smtp_peer(script) as peer:
        settings = make_settings(peer.port)
        with pytest.raises(TransientFailure) as failure:
            await SmtpRelay(lambda: settings).connect("x.example", "x.example")
        assert str(failure.value.reply) == "421 4.3.2 later"
        assert len(peer.conversations) == 1


@on_both_loops
async def test_what_is_slipped_in_before_the_handshake_is_not_believed(server_context):
    """If it failed, someone on the way could put words into the encrypted session (CVE-2011-0411's client side)."""

    async def script(talk):
        await talk.open(EHLO_TLS)
        await talk.hear(b"STARTTLS")
        talk.say(b"220 go\r\n250-evil\r\n250 SIZE 1\r\n")
        await talk.writer.start_tls(server_context)
        await talk.hear(b"EHLO ")
        talk.say(EHLO)
        await talk.take()
        await talk.hang()

    async with run_smtp_peer(script, _take_in_the_clear) as peer:
        settings = make_settings(peer.port)
        session = await SmtpRelay(lambda: settings).connect("x.example", "x.example")
        assert session.offers.size is None
        assert [result.ending for result in await deliver(session)] == [Ending.DELIVERED]
        session.abort()


@on_both_loops
async def test_peer_that_speaks_out_of_turn_after_the_handshake_is_left(server_context):
    """If it failed, the words would be taken for the reply to the first MAIL."""

    async def script(talk):
        await talk.open(EHLO_TLS)
        await talk.hear(b"STARTTLS")
        talk.say(b"220 go\r\n")
        await talk.writer.start_tls(server_context)
        await talk.hear(b"EHLO ")
        talk.say(EHLO + b"250 and more\r\n")
        await talk.hang()

    async with run_smtp_peer(script, _take_in_the_clear) as peer:
        settings = make_settings(peer.port)
        session = await SmtpRelay(lambda: settings).connect("x.example", "x.example")
        session.abort()
        assert len(peer.conversations) == 2
