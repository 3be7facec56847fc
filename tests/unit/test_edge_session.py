"""A session driven by hand: how the octets are cut makes no difference to it."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtactl.edge.session import SMTPSession
from tests.world.edge import NOW, MemoryIntake, MemoryTransport, make_policy

SESSION = (
    b"EHLO client.test\r\n"
    b"MAIL FROM:<a@example.com> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=e1\r\n"
    b"RCPT TO:<b@example.org> NOTIFY=DELAY ORCPT=rfc822;b@example.org\r\n"
    b"RCPT TO:<not an address>\r\n"
    b"RCPT TO:<\xc3\xbc@example.org>\r\n"
    b"DATA\r\n"
    b"X-Campaign-ID: c1\r\nSubject: \xc3\xa4\r\n\r\n..two dots\r\n..\r\n\r\n.\r\n"
    b"MAIL FROM:<> SMTPUTF8\r\n"
    b'RCPT TO:<"b c"@[192.0.2.1]>\r\nRCPT TO:<\xc3\xbc@b\xc3\xbccher.example>\r\n'
    b"BDAT 9\r\nX-Job: j\r"
    b"BDAT 9\r\n\n\r\n.\r\nend"
    b"BDAT 0 LAST\r\n"
    b"BDAT 5 LAST\r\nNOOP\n"
    b"nonsense\r\n" + b"x" * 3000 + b"\r\n"
    b"VRFY b\r\n"
    b"MAIL FROM:<a@example.com>\r\nRCPT TO:b@example.org\r\n"
    b"DATA\r\n.\r\n"
    b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n"
    b"DATA\r\nbare\nnewline\r\n.\r\n"
    b"RSET\r\nHELO client.test\r\nMAIL FROM:<a@example.com> SIZE=1\r\nDATA\r\nQUIT\r\n"
    b"NOOP\r\n"
)


async def drive(pieces):
    """Give what a session says to the pieces, the writes it said it in, and the messages that it handed on."""
    intake = MemoryIntake()
    policy = make_policy(intake, now=lambda: NOW)
    ended = asyncio.Event()
    session = SMTPSession(policy, asyncio.get_running_loop(), opened=lambda _: None, closed=lambda _: ended.set())
    transport = MemoryTransport()
    session.connection_made(transport)
    for piece in pieces:
        if transport.closed:
            break
        session.data_received(piece)
        await asyncio.sleep(0)
    session.eof_received()
    await ended.wait()
    session.connection_lost(None)
    assert policy.budget.used == 0
    return b"".join(transport.written), transport.written, intake.messages


WHOLE = asyncio.run(drive([SESSION]))


def test_whole_session_is_answered_as_expected():
    """If this fails, the comparison of the tests below means nothing."""
    codes = [line[:3] for line in WHOLE[0].split(b"\r\n") if line[3:4] == b" "]
    assert b" ".join(codes) == (
        b"220 250 250 250 553 553 354 250 250 250 250 250 250 250 503 500 500 252 250 250 354 250 250 250 354 550 "
        b"250 250 555 503 221"
    )
    first, second, third = WHOLE[2]
    assert (first.campaign, second.campaign, third.campaign) == ("c1", "j", "")
    assert bytes(second.body[0]).endswith(
        b"\r\n\tWed, 18 Nov 2026 11:06:40 +0000\r\nX-Job: j\r\n\r\n..\r\nend\r\n.\r\n"
    )
    assert [recipient.domain for recipient in second.recipients] == ["[192.0.2.1]", "xn--bcher-kva.example"]
    assert third.recipients[0].address == "b@example.org"


def test_replies_to_a_pipelined_group_go_out_together():
    """If this fails, a client that pipelines pays a packet for each reply (RFC 2920 §3.2)."""
    writes = WHOLE[1]
    assert len(writes) == 2  # the greeting, then all of it: aiosmtpd would make dozens
    assert b"".join(writes) == WHOLE[0]


def test_octet_by_octet_is_the_same():
    """If this fails, a client behind a slow or odd network gets other answers."""
    said, _, messages = asyncio.run(drive([SESSION[at : at + 1] for at in range(len(SESSION))]))
    assert said == WHOLE[0]
    assert messages == WHOLE[2]


@given(st.lists(st.integers(0, len(SESSION)), max_size=12).map(sorted))
def test_any_cutting_is_the_same(cuts):
    """If this fails, where the network cuts the stream decides what is a command and what is mail."""
    points = [0, *cuts, len(SESSION)]
    pieces = [SESSION[start:end] for start, end in pairwise(points)]
    said, _, messages = asyncio.run(drive([piece for piece in pieces if piece]))
    assert said == WHOLE[0]
    assert messages == WHOLE[2]


BEGIN = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n"
LINE = b"x" * 58 + b"\r\n"
LINES = 4000  # of 60 octets


@pytest.mark.parametrize(
    ("before", "line", "after", "replies"),
    [
        (b"", b"NOOP" + b" " * 54 + b"\r\n", b"", LINES),
        (BEGIN + b"DATA\r\n\r\n", LINE, b".\r\n", 1),
        (BEGIN + b"BDAT %d LAST\r\n\r\n" % (LINES * len(LINE) + 2), LINE, b"", 1),
    ],
)
@pytest.mark.parametrize("looks", [False, True])
async def test_flood_while_replies_wait_is_left_in_the_socket(before, line, after, replies, looks):
    """If this fails, a client that sends and never reads fills the memory, and no budget counts it."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    session = SMTPSession(make_policy(MemoryIntake()), loop, opened=lambda _: None, closed=lambda _: ended.set())
    transport = MemoryTransport()
    session.connection_made(transport)
    session.data_received(b"EHLO client.test\r\n" + before)
    said = len(transport.written)
    session.pause_writing()  # asyncio's transport says so within the write, uvloop's when the session waits already
    if looks:
        session.data_received(line)
    sent = int(looks)
    while transport.reading and sent < LINES:
        session.data_received(line)
        sent += 1
    assert sent < LINES
    assert len(transport.written) == said
    session.resume_writing()
    session.data_received(line * (LINES - sent) + after)
    async with asyncio.timeout(10):
        while b"".join(transport.written[said:]).count(b"\r\n250 ") < replies - 1 or len(transport.written) == said:
            await asyncio.sleep(0)
    assert b"".join(transport.written[said:]).startswith(b"250 2.0.0 Ok")
    assert transport.reading
    session.connection_lost(None)
    await ended.wait()
