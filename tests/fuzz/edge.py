"""A whole session of the edge, driven with any octets in any pieces: wire, commands, content, replies.

The first octets of an input say how: which commands go in front, how small the limits are, how the stream is cut.
"""

from __future__ import annotations

import asyncio
import random
from functools import cache

import structlog

from mtactl.edge.session import SMTPSession
from mtactl.edge.wire import READ_AHEAD
from mtactl.message.headers import CampaignHeaders
from mtactl.message.reply import Reply
from tests.fuzz import reference
from tests.fuzz.headers import slow_campaign
from tests.fuzz.pieces import cut
from tests.world.edge import HEADERS, NOW, MemoryIntake, MemoryTransport, make_policy

FRONTS = (
    b"",
    b"EHLO client.test\r\n",
    b"EHLO client.test\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n",
    b"EHLO client.test\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n",
)
_MESSAGE = b"X-Campaign-ID: c1\r\nSubject: x\r\n\r\n..two\r\n..\r\n\r\n.\r\n"
_BEGIN = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n"
_ODD = (
    b'MAIL FROM:<"b c"@[192.0.2.1]> SMTPUTF8 SIZE=9 HOLDFOR=60 RET=HDRS ENVID=e1\r\n'
    b"RCPT TO:<\xc3\xbc@b\xc3\xbccher.example> NOTIFY=DELAY ORCPT=rfc822;b@example.org\r\n"
)
# One octet for front, limits and cut (see `check`), one as a seed, and the stream.
SEEDS = tuple(
    bytes([flags, 7]) + stream
    for flags in (0x00, 0x05, 0x0A, 0x1F, 0x2C)
    for stream in (
        b"EHLO x\r\n" + _BEGIN + b"DATA\r\n" + _MESSAGE + b"QUIT\r\n",
        _BEGIN + b"BDAT 9\r\nX-Job: j\rBDAT 9\r\n\n\r\n.\r\nendBDAT 0 LAST\r\nNOOP\r\nRSET\r\n",
        b"a\r\n.\r\r\n.\n\r\n\x00.\r\n\n.\r\n.\r\nNOOP\r\n",
        _ODD + b"VRFY \xc3\xbc\r\n",
        b"HELP\r\nAUTH PLAIN x\r\nSTARTTLS\r\nFOO\r\n" + b"x" * 2100 + b"\r\nHELO y\r\nBDAT 99999999999 LAST\r\n",
        _MESSAGE + _BEGIN + b"DATA\r\n.\r\n" + _BEGIN + b"DATA\r\nbare\nfeed\r\n.\r\nQUIT\r\n",
    )
)
WORDS = (
    *(b"EHLO ", b"HELO ", b"MAIL FROM:<", b"RCPT TO:<", b"DATA\r\n", b"BDAT ", b" LAST", b"RSET\r\n", b"NOOP\r\n"),
    *(
        b"QUIT\r\n",
        b"VRFY ",
        b"STARTTLS\r\n",
        b"\r\n.\r\n",
        b"\n.\n",
        b"\r.\r",
        b"\r\n.\n",
        b"\n.\r\n",
        b"\r\n..",
        b"\x00",
    ),
    *(b">\r\n", b"@example.org", b"a@[IPv6:::1]", b" SIZE=", b" BODY=8BITMIME", b" SMTPUTF8", b" NOTIFY=NEVER"),
    *(b"X-Campaign-ID: ", b"X-Job: ", b"\r\n\r\n", b"=?utf-8?q?", b"?=", b"\xc3\xbc", b'"', b"\\", b"(", b"postmaster"),
)

_CAMPAIGNS = CampaignHeaders(HEADERS)
_SMALL = {"max_message_size": 1200, "max_line_length": 1000, "max_recipients": 3, "max_memory": 1500}
_LARGE = {"max_message_size": 100_000, "max_memory": 250_000}


class _Failures:
    """A processor of structlog that keeps what was logged as an error, and lets nothing through."""

    def __init__(self) -> None:
        self.events: list[dict] = []

    def __call__(self, logger, method, event):
        if method in {"error", "exception", "critical"}:
            self.events.append(event)
        raise structlog.DropEvent


_loop: asyncio.AbstractEventLoop | None = None


def check(data: bytes) -> None:
    """Drive a session and compare what came of it with the second opinion. Raises AssertionError."""
    global _loop  # noqa: PLW0603 - a loop for each of a million inputs would take most of the time
    if len(data) < 2:
        return
    if _loop is None:
        _loop = asyncio.new_event_loop()
    flags, seed = data[0], data[1]
    stream = FRONTS[flags & 3] + data[2:]
    limits = _SMALL if flags & 0x10 else _LARGE
    failures = _Failures()
    before = structlog.get_config()
    structlog.configure(processors=[failures])
    try:
        said, messages = _loop.run_until_complete(
            drive(stream, manner=flags >> 2 & 3, seed=seed, holds_up=bool(flags & 0x20), limits=limits)
        )
    finally:
        structlog.configure(**before)
    assert not failures.events, failures.events
    told = reference.Reading(stream, said).read()
    assert len(messages) == len(told.messages), f"{len(messages)} messages, and 250 for {len(told.messages)}"
    for message, wire, recipients in zip(messages, told.messages, told.recipients, strict=True):
        check_message(message, wire, recipients)


@cache
def _policy(**limits):
    return make_policy(MemoryIntake(), now=lambda: NOW, **limits)


async def drive(stream: bytes, *, manner: int, seed: int, holds_up: bool, limits: dict) -> tuple[bytes, list]:
    """Give what a session says to the pieces of a stream, and the messages that it handed on."""
    policy = _policy(**limits)
    intake = policy.intake
    intake.messages = []
    ended = asyncio.Event()
    session = SMTPSession(policy, asyncio.get_running_loop(), opened=lambda _: None, closed=lambda _: ended.set())
    transport = MemoryTransport()
    session.connection_made(transport)
    dice = random.Random(seed)
    for piece in cut(stream, manner, seed):
        if transport.closed:
            break
        deaf = holds_up and dice.random() < 0.2
        if deaf:
            session.pause_writing()
        session.data_received(piece)
        assert len(session._wire._buffer) <= READ_AHEAD + len(piece)
        assert policy.budget.used <= policy.budget.limit
        if deaf:
            session.resume_writing()
        await asyncio.sleep(0)
        while not transport.reading and not transport.closed:
            await asyncio.sleep(0)
    session.eof_received()
    async with asyncio.timeout(60):
        await ended.wait()
    session.connection_lost(None)
    assert transport.closed
    assert policy.budget.used == 0
    return b"".join(transport.written), intake.messages


def check_message(message, wire: bytes, recipients: int) -> None:
    """Compare a message that was handed on with what the client sent, in wire form, and was answered 250 for."""
    body = b"".join(message.body)
    assert body.startswith(b"Received: from ")
    trace, date, rest = body.partition(b" +0000\r\n")
    assert rest == wire
    assert reference.is_clean(body)
    assert len(message.recipients) == recipients >= 1
    assert message.eight_bit or (trace + date + wire).isascii()
    for address in (message.reverse_path, *(recipient.address for recipient in message.recipients)):
        assert address.isprintable() and len(address.encode()) <= 254
        assert message.smtputf8 or address.isascii()
        assert not set(address.partition('"')[0]) & set("<> \r\n"), address
    for recipient in message.recipients:
        assert recipient.domain.isascii() and recipient.domain == recipient.domain.lower() != ""
    campaign = slow_campaign(wire, HEADERS)
    assert isinstance(message.campaign, str) and not isinstance(campaign, Reply)
    assert campaign is None or message.campaign == campaign
