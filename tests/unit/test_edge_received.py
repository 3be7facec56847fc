"""The trace field."""

import email
import email.policy
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtactl.edge.received import Trace

AT = 1_795_000_000_250_000


def render(*, smtputf8=False, recipient=None, **given_values):
    values = {
        "helo": "client.example",
        "client": "192.0.2.1",
        "hostname": "mx.example",
        "extended": True,
    } | given_values
    return Trace(**values).render(token=0xABC, received_at=AT, smtputf8=smtputf8, recipient=recipient)


def test_field_says_who_what_and_when():
    """If this fails, nobody can follow a message's way, and loops are not seen."""
    assert render(recipient="a@example.com") == (
        b"Received: from client.example ([192.0.2.1])\r\n"
        b"\tby mx.example with ESMTP id ABC\r\n"
        b"\tfor <a@example.com>;\r\n"
        b"\tWed, 18 Nov 2026 11:06:40 +0000\r\n"
    )
    value = email.message_from_bytes(render(), policy=email.policy.default)["Received"]
    assert parsedate_to_datetime(value.rpartition(";")[2]) == datetime.fromtimestamp(AT // 1_000_000, UTC)


def test_other_recipients_are_not_named():
    """If this fails, one recipient of a mailing learns of another."""
    assert b" for " not in render().replace(b"\t", b" ")


@pytest.mark.parametrize(
    ("values", "keyword"),
    [
        ({"extended": False}, b"with SMTP id"),
        ({"extended": True}, b"with ESMTP id"),
        ({"tls": True}, b"with ESMTPS id"),
        ({"authenticated": True}, b"with ESMTPA id"),
        ({"tls": True, "authenticated": True}, b"with ESMTPSA id"),
        ({"smtputf8": True}, b"with UTF8SMTP id"),
        ({"smtputf8": True, "tls": True, "authenticated": True}, b"with UTF8SMTPSA id"),
    ],
)
def test_protocol_has_its_registered_name(values, keyword):
    """If this fails, the field claims a protection that the session did not have, or hides one (RFC 6531 §4.3)."""
    assert keyword in render(**values)


@given(st.text(max_size=400), st.sampled_from(["192.0.2.1", "2001:db8::1", "fe80::1%eth0", "", "nonsense"]))
def test_client_can_not_write_headers(helo, client):
    """If this fails, a client puts fields of its choice above the trace by its name in EHLO."""
    field = render(helo=helo, client=client)
    lines = field.split(b"\r\n")
    assert lines.pop() == b""
    assert all(line.startswith(b"\t") for line in lines[1:])
    assert field.isascii()
    assert max(map(len, lines)) < 400
    assert not set(field) - set(range(32, 127)) - set(b"\r\n\t")
