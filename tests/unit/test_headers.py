"""The header section: its end, its campaign, its hops."""

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtactl.message.headers import (
    MAX_HEADER_SECTION,
    MAX_HOPS,
    CampaignHeaders,
    find_header_end,
    is_campaign_id,
)
from mtactl.message.reply import Reply

HEADERS = CampaignHeaders(["X-Campaign-ID", "X-Campaign", "X-Job"])
BODY = b"\r\nX-Job: in-the-body\r\n.\r\n"


@pytest.mark.parametrize(
    ("section", "campaign"),
    [
        (b"X-Campaign-ID: c1\r\n", "c1"),
        (b"Subject: x\r\nX-Campaign-ID:c1\r\nTo: y\r\n", "c1"),
        (b"x-cAMPAIGN-iD: c1\r\n", "c1"),
        (b"X-Campaign-ID \t: c1\r\n", "c1"),
        (b"X-Campaign-ID: \t c1 \t\r\n", "c1"),
        (b"X-Campaign-ID:\r\n c1\r\n", "c1"),
        (b"X-Campaign-ID:\r\n\tc1\r\n \r\n", "c1"),
        (b"X-Campaign-ID: =?utf-8?q?c1?=\r\n", "c1"),
        (b"X-Campaign-ID: =?UTF-8?B?YzE=?=\r\n", "c1"),
        (b"X-Campaign-ID: =?utf-8?q?spring-?=\r\n =?iso-8859-1?q?2026?=\r\n", "spring-2026"),
        (b"X-Job: low\r\nX-Campaign-ID: high\r\n", "high"),
        (b"X-Job: low\r\nX-Campaign: middle\r\n", "middle"),
        (b"X-Campaign: not an id\r\nX-Campaign-ID: c1\r\n", "c1"),
        (b"X-Campaign-ID: c1\r\nX-Campaign-ID:  c1\r\n", "c1"),
        (b"X-Campaign-ID: a:b/c+d=e@f._-\r\n", "a:b/c+d=e@f._-"),
        (b"X-Campaign-ID: " + b"a" * 128 + b"\r\n", "a" * 128),
        (b"Subject: x\r\n X-Campaign-ID: folded\r\n", ""),
        (b"X-Campaign-IDs: c1\r\nAX-Job: c2\r\n", ""),
        (b"no header at all\r\nX-Job: c1\r\n", "c1"),
        (b".X-Job: c1\r\n", "c1"),  # transparency takes the dot away
        (b"..X-Job: c1\r\n", ""),  # the message has a dot there
        (b"X-Job:\r\n. c1\r\n", "c1"),
        (b"", ""),
    ],
)
def test_campaign_is_found_as_people_write_it(section, campaign):
    """If this fails, mail of a campaign goes out under another one or none, and a halt misses it."""
    assert HEADERS.read(section + BODY) == campaign
    trace = b"Received: from x\r\n\tby y; z\r\n"
    assert HEADERS.read(bytearray(trace + section + BODY), len(trace)) == campaign


@pytest.mark.parametrize(
    ("section", "says"),
    [
        (b"X-Campaign-ID:\r\n", "X-Campaign-ID is not a campaign id"),
        (b"X-Campaign-ID: \t\r\n", "X-Campaign-ID is not a campaign id"),
        (b"X-Campaign-ID: two words\r\n", "not a campaign id"),
        (b"X-Campaign-ID: tw\r\n o\r\n", "not a campaign id"),
        (b"X-Campaign-ID: -x\r\n", "not a campaign id"),
        (b"X-Campaign-ID: " + b"a" * 129 + b"\r\n", "not a campaign id"),
        (b"X-Campaign-ID: caf\xc3\xa9\r\n", "not a campaign id"),
        (b"X-Campaign-ID: caf\xe9\r\n", "not a campaign id"),
        (b"X-Campaign-ID: c\x001\r\n", "not a campaign id"),
        (b"X-Campaign-ID: c1\x1b[2J\r\n", "not a campaign id"),
        (b'X-Campaign-ID: "c1"\r\n', "not a campaign id"),
        (b"X-Campaign-ID: =?no-such-charset?q?c1?=\r\n", "not a campaign id"),
        (b"X-Campaign-ID: =?utf-8?b?Y?=\r\n", "not a campaign id"),
        (b"X-Campaign-ID: =?utf-8?b?/w==?=\r\n", "not a campaign id"),
        (b"X-Campaign-ID: =?utf-8?q?c1=0A?=\r\n", "not a campaign id"),
        (b"X-Campaign-ID:" + b" =?utf-8?q?c?=\r\n" * 500, "not a campaign id"),
        (b"X-Job: a\r\nX-Job: b\r\n", "X-Job is there more than once"),
        (b"X-Job: a\r\nx-job: A\r\n", "X-Job is there more than once"),
        (b"X-Job: a\r\nX-Job:\r\n", "X-Job is not a campaign id"),
    ],
)
def test_campaign_that_cannot_be_is_refused_by_name(section, says):
    """If this fails, mail that was meant to belong to a campaign is sent as if it belonged to none."""
    refusal = HEADERS.read(section + BODY)
    assert isinstance(refusal, Reply)
    assert (refusal.code, refusal.enhanced) == (550, "5.6.0")
    assert says in refusal.text
    assert refusal.encode().isascii()
    assert "\x1b" not in refusal.text


def test_header_section_is_bounded():
    """If this fails, a message of headers alone is scanned without end, or a header behind the bound is passed over."""
    filler = b"A: " + b"x" * 60 + b"\r\n"
    almost = filler * ((MAX_HEADER_SECTION - 20) // len(filler))
    assert HEADERS.read(almost + b"X-Job: c1\r\n\r\nbody") == "c1"
    too_long = filler * (MAX_HEADER_SECTION // len(filler) + 1)
    refusal = HEADERS.read(too_long + b"X-Job: c1\r\n\r\nbody")
    assert isinstance(refusal, Reply)
    assert (refusal.code, refusal.enhanced) == (552, "5.3.4")


def test_mail_loop_is_ended():
    """If this fails, a message that two servers send to each other goes round for ever."""
    hop = b"Received: from a\r\n by b; date\r\n"
    assert HEADERS.read(hop * (MAX_HOPS - 1) + BODY) == ""
    refusal = HEADERS.read(hop.replace(b"Rec", b"rEC") * MAX_HOPS + BODY)
    assert isinstance(refusal, Reply)
    assert (refusal.code, refusal.enhanced) == (554, "5.4.6")


@pytest.mark.parametrize(
    ("message", "end"),
    [
        (b"A: b\r\n\r\nbody", 6),
        (b"\r\nbody", 0),
        (b"A: b\r\n.\r\n", 9),
        (b".\r\n", 3),
        (b"", 0),
    ],
)
def test_header_section_ends_where_it_should(message, end):
    """If this fails, text in the body is taken for headers, or headers for text."""
    assert find_header_end(message) == end
    assert find_header_end(b"12345" + message, 5) == end + 5


NAMES = st.sampled_from(["X-Campaign-ID", "x-campaign", "X-JOB", "Subject", "To", "X-Campaign-Id2"])
VALUES = st.text("abcXYZ019 .:/@=-_\t?", max_size=30)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_campaign_agrees_with_the_email_package(fields):
    """If this fails, we and the application that wrote the message do not mean the same header."""
    text = "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\nbody\r\n"
    parsed = email.message_from_bytes(text.encode(), policy=email.policy.compat32)
    got = HEADERS.read(text.encode() + b".\r\n")
    for name in ("X-Campaign-ID", "X-Campaign", "X-Job"):
        values = {value.strip(" \t") for value in parsed.get_all(name, [])}
        if not values:
            continue
        if len(values) == 1 and is_campaign_id(min(values)):
            assert got == min(values)
        else:
            assert isinstance(got, Reply)
        return
    assert got == ""
