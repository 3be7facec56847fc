"""Mailboxes: what is let through is safe to be written to a peer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtactl.message.address import AddressError, parse_domain, parse_mailbox


@pytest.mark.parametrize(
    ("text", "address", "domain"),
    [
        ("a@example.com", "a@example.com", "example.com"),
        ("A.B+c@Example.COM", "A.B+c@Example.COM", "example.com"),
        ("!#$%&'*+/=?^_`{|}~-@x", "!#$%&'*+/=?^_`{|}~-@x", "x"),
        ('"a b"@example.com', '"a b"@example.com', "example.com"),
        ('"a@b>c"@example.com', '"a@b>c"@example.com', "example.com"),
        ('"a\\"b"@example.com', '"a\\"b"@example.com', "example.com"),
        ("a@[192.0.2.1]", "a@[192.0.2.1]", "[192.0.2.1]"),
        ("a@[IPv6:2001:DB8::1]", "a@[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"),
        ("a@bücher.example", "a@xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a@BÜCHER.example", "a@xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("użytkownik@example.com", "użytkownik@example.com", "example.com"),
        ("用户@例え.jp", "用户@xn--r8jz45g.jp", "xn--r8jz45g.jp"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com", "example.com"),
    ],
)
def test_mailboxes_are_read(text, address, domain):
    """If this fails, mail to a good address is refused, or goes to the lane of another domain."""
    mailbox = parse_mailbox(text)
    assert (mailbox.address, mailbox.domain) == (address, domain)
    assert mailbox.ascii == address.isascii()


@pytest.mark.parametrize(
    ("text", "enhanced"),
    [
        ("", "5.1.3"),
        ("a", "5.1.3"),
        ("@example.com", "5.1.3"),
        ("a@", "5.1.3"),
        (".a@example.com", "5.1.3"),
        ("a..b@example.com", "5.1.3"),
        ("a.@example.com", "5.1.3"),
        ("a b@example.com", "5.1.3"),
        ("a>b@example.com", "5.1.3"),
        ("a@b@example.com", "5.1.3"),
        ('"a"b@example.com', "5.1.3"),
        ('"a\r\nRCPT TO:<x>"@example.com', "5.1.3"),
        ('"a\x00"@example.com', "5.1.3"),
        ("a\u202eb@example.com", "5.1.3"),
        ("a\udcffb@example.com", "5.1.3"),
        ("a" * 65 + "@example.com", "5.1.3"),
        ("ü" * 33 + "@example.com", "5.1.3"),
        ("a" * 60 + "@" + ".".join(["b" * 60] * 3) + ".example.com", "5.1.3"),
        ("a@example..com", "5.1.2"),
        ("a@.example.com", "5.1.2"),
        ("a@example.com.", "5.1.2"),
        ("a@-x.example", "5.1.2"),
        ("a@x-.example", "5.1.2"),
        ("a@x_y.example", "5.1.2"),
        ("a@" + "b" * 64 + ".example", "5.1.2"),
        ("a@" + ".".join(["b" * 60] * 5), "5.1.2"),
        ("a@192.0.2.1]", "5.1.2"),
        ("a@[192.0.2.1", "5.1.2"),
        ("a@[192.0.2.256]", "5.1.2"),
        ("a@[2001:db8::1]", "5.1.2"),
        ("a@[IPv6:192.0.2.1]", "5.1.2"),
        ("a@[IPv6:fe80::1%eth0]", "5.1.2"),
        ("a@[x400:foo]", "5.1.2"),
        ("a@\u2028.example", "5.1.2"),
        ("a@xn--ü.example", "5.1.2"),
    ],
)
def test_what_is_no_mailbox_is_refused(text, enhanced):
    """If this fails, an address reaches the queue that no peer takes, or that smuggles a command to one."""
    with pytest.raises(AddressError) as refused:
        parse_mailbox(text)
    assert refused.value.enhanced in {enhanced, "5.1.3"}
    assert refused.value.what.isascii()


@given(st.text(max_size=80))
def test_nothing_unsafe_passes(text):
    """If this fails, some text that a client may send as an address breaks the line of a command to a peer."""
    try:
        mailbox = parse_mailbox(f"{text}@example.com")
    except AddressError:
        return
    assert not set(mailbox.address) & {"\r", "\n", "\x00", "\x7f"}
    local = mailbox.address.rpartition("@")[0]
    if not local.startswith('"'):
        assert not set(local) & set('<> \t@,;:\\"()[]')
    assert parse_mailbox(mailbox.address) == mailbox


@given(st.text(max_size=80))
def test_domains_are_in_lane_form(text):
    """If this fails, one destination has two lanes, each with connections of its own."""
    try:
        domain = parse_domain(text)
    except AddressError:
        return
    assert domain.isascii()
    assert domain == domain.lower()
    assert parse_domain(domain) == domain
