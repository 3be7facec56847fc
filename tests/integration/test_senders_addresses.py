"""Addresses at every limit of RFC 5321 §4.5.3.1 and RFC 6531, and one past it, through a session and out again."""

from __future__ import annotations

import pytest

from mtactl.relay.commands import Offers, mail_command, rcpt_command, refusal
from mtactl.schedule.ports import Delivery, Rcpt
from tests.world.edge import running_edge

LABEL = "d" * 63
LOCAL = "l" * 64


def domain(octets: int) -> str:
    """Give a domain of so many octets, of labels as long as they may be."""
    text = ".".join([LABEL] * 4)[:octets]
    return text[:-2] + "dd" if text[-2:-1] == "." or text.endswith(".") else text


# Without SMTPUTF8; None where it is taken as it is.
PLAIN = [
    (f"{LOCAL}@example.com", None),
    (f"{LOCAL}l@example.com", "1.3"),
    ("l@" + LABEL + ".com", None),
    ("l@" + LABEL + "d.com", "1.2"),
    (f"l@{domain(252)}", None),  # the path, with its brackets, has 256 octets
    (f"l@{domain(253)}", "1.3"),  # the domain is within its limit; the path is not
    (f"l@{domain(254)}", "1.2"),
    (f"{LOCAL}@{domain(189)}", None),
    (f"{LOCAL}@{domain(190)}", "1.3"),
    ("l@" + "a." * 126 + "a", "1.3"),
    ("l@" + "a." * 125 + "a", None),
    ("l@" + "a." * 200 + "a", "1.2"),
    ('"' + "q" * 62 + '"@example.com', None),
    ('"' + "q" * 63 + '"@example.com', "1.3"),
    ('"' + '\\"' * 31 + '"@example.com', None),
    ('"' + '\\"' * 32 + '"@example.com', "1.3"),
    ('""@example.com', None),
    ('"a b>c<d"@example.com', None),
    ('"a@b"@example.com', None),
    ('"a\\\\"@example.com', None),
    ('"a\\"@example.com', "5.4"),
    ('"a"b@example.com', "5.4"),
    ("l@[192.0.2.1]", None),
    ("l@[0.0.0.0]", None),
    ("l@[255.255.255.255]", None),
    ("l@[256.0.0.1]", "1.2"),
    ("l@[192.0.2]", "1.2"),
    ("l@[192.0.2.1.1]", "1.2"),
    ("l@[192.0.2.01]", "1.2"),
    ("l@[]", "1.2"),
    ("l@[IPv6:::]", None),
    ("l@[IPv6:2001:db8:1:2:3:4:5:6]", None),
    ("l@[IPv6:ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]", None),
    ("l@[ipv6:2001:DB8::1]", None),
    ("l@[IPv6:2001:db8:1:2:3:4:5:6:7]", "1.2"),
    ("l@[IPv6:2001:db8::1::2]", "1.2"),
    ("l@[IPv6:12345::1]", "1.2"),
    ("l@[IPv6:fe80::1%25eth0]", "1.2"),
    ("l@[::1]", "1.2"),
    ("l@[IPv4:192.0.2.1]", "1.2"),
    ("l@[x-tag:anything]", "1.2"),
    ("l@192.0.2.1", None),  # a domain of digits is a domain by its syntax
    ("l@localhost", None),
    ("l@example.com.", "1.2"),
    ("l@exa_mple.com", "1.2"),
    ("ü@example.com", "6.7"),
    ("l@bücher.example", "6.7"),
]
LONG_U = "ü" + "a" * 55  # 63 octets as an A-label
UTF8 = [
    ("ü" * 32 + "@example.com", "ü" * 32 + "@example.com"),
    ("ü" * 32 + "l@example.com", "1.3"),
    ("𐍈" * 16 + "@example.com", "𐍈" * 16 + "@example.com"),
    ("𐍈" * 16 + "l@example.com", "1.3"),
    ('"ü ü"@example.com', '"ü ü"@example.com'),
    ("l@bücher.example", "l@xn--bcher-kva.example"),
    ("l@BÜCHER.example", "l@xn--bcher-kva.example"),
    ("l@xn--bcher-kva.example", "l@xn--bcher-kva.example"),
    ("l@例え.テスト", "l@xn--r8jz45g.xn--zckzah"),
    (f"l@{LONG_U}.example", "l@" + LONG_U.encode("punycode").decode().join(["xn--", ".example"])),
    (f"l@{LONG_U}a.example", "1.2"),
    ("l@" + ".".join(["ü" * 20] * 12), "1.2"),
    ("l@-ü.example", "1.2"),
    ("l@ü-.example", "1.2"),
    ("l@ü..example", "1.2"),
    ("l@a\u200db.example", "1.2"),
    ("l@\u0301a.example", "1.2"),
    ("l@xn--ü.example", "1.2"),
    ("l\u202el@example.com", "1.3"),
    ("l\ufeff@example.com", "1.3"),
    ("l\u2028@example.com", "1.3"),
]
CASES = [(text, status or text, False) for text, status in PLAIN] + [(text, status, True) for text, status in UTF8]


def test_the_table_is_at_the_limits():
    """If this fails, the cases below are not what they say."""
    assert [len(domain(octets)) for octets in (189, 190, 252, 253, 254)] == [189, 190, 252, 253, 254]
    assert len("xn--" + LONG_U.encode("punycode").decode()) == 63
    paths = [len(f"<{text}>") for text, status in PLAIN if status is None]
    assert max(paths) == 256
    assert len(CASES) == len({case[:1] + case[2:] for case in CASES})


@pytest.mark.parametrize("command", ["MAIL", "RCPT"])
async def test_addresses_at_and_past_each_limit(command):
    """If this fails, an address that the standards allow is refused, or one goes out that no peer must take."""
    async with running_edge(max_errors=1000) as edge, edge.client() as client:
        for text, expected, utf8 in CASES:
            option = b" SMTPUTF8" if utf8 else b""
            if command == "MAIL":
                reply = await client.ask(b"MAIL FROM:<%s>%s\r\n" % (text.encode(), option))
            else:
                assert (await client.ask(b"MAIL FROM:<a@example.com>%s\r\n" % option))[0] == 250
                reply = await client.ask(b"RCPT TO:<%s>\r\n" % text.encode())
            code, said = reply
            if "@" not in expected:
                # MAIL has codes of its own for the sender's address: 5.1.7 and 5.1.8 (RFC 3463).
                status = {"1.3": "1.7", "1.2": "1.8"}.get(expected, expected) if command == "MAIL" else expected
                wanted = (501, f"5.{status}") if status == "5.4" else (553, f"5.{status}")
                assert (code, said.split()[0]) == wanted, text
            else:
                assert code == 250, (text, said)
                if command == "MAIL":
                    assert (await client.ask(b"RCPT TO:<b@example.org>\r\n"))[0] == 250
                assert (await client.deliver(b"Subject: x\r\n\r\n.\r\n"))[0] == 250
                message = edge.intake.messages.pop()
                given = message.reverse_path if command == "MAIL" else message.recipients[0].address
                assert given == expected
                check_commands(given, utf8=utf8)
            assert (await client.ask(b"RSET\r\n"))[0] == 250
        assert not edge.intake.messages


def check_commands(address: str, *, utf8: bool) -> None:
    """See that the address makes one line of a command, that is no longer than RFC 5321 §4.5.3.1.4 allows."""
    delivery = Delivery(
        reverse_path=address,
        recipients=(Rcpt(address=address),),
        body=b".\r\n",
        eight_bit=False,
        smtputf8=utf8,
        ret=None,
        envid=None,
        on_ending=lambda: None,
    )
    offers = Offers(pipelining=True, smtputf8=utf8)
    assert refusal(delivery, offers) is None
    for line in (mail_command(delivery, offers), rcpt_command(delivery.recipients[0], offers)):
        assert len(line) <= 512
        assert line.endswith(b"\r\n") and line.count(b"\r") == line.count(b"\n") == 1
        assert all(octet >= 0x20 for octet in line[:-2])


@pytest.mark.parametrize("octet", [*range(0x20), 0x7F, 0x80, 0x9F, 0xA0, 0xC0, 0xFF])
async def test_octets_that_are_no_text_in_each_command(octet):
    """If this fails, a NUL, a control or an octet above 127 gets into a log, a queue or another server's command."""
    bad = bytes([octet])
    async with running_edge(max_errors=1000) as edge, edge.client() as client:
        for command in (
            *(b"EHLO a%sb", b"HELO a%sb", b"MAIL FROM:<a%sb@example.com>", b"MAIL FROM:<a@exa%smple.com>"),
            *(b"MAIL FROM:<a@example.com> SIZE=1%s", b"VRFY a%sb", b"NOOP a%sb", b"NO%sOP", b"HELP %s", b"RSET%s"),
            *(b"%s", b"%sNOOP", b"STARTTLS%s", b"AUTH PLAIN %s", b"ETRN %s", b'MAIL FROM:<"a%sb"@example.com>'),
        ):
            if octet == 0x0A:  # it ends the line, and with it the session: another test has it
                continue
            line = command % bad
            code, text = await client.ask(line + b"\r\n")
            assert (code, text[:5]) == (500, "5.5.2"), line
            assert text.isascii() and text.isprintable()
        client.send(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n")
        assert await client.codes(2) == [250, 250], "none of it has begun anything"
        if octet != 0x0A:
            assert (await client.ask(b"RCPT TO:<c%s@example.org>\r\n" % bad))[0] == 500
        assert (await client.deliver(b"Subject: x\r\n\r\n.\r\n"))[0] == 250
        (message,) = edge.intake.messages
        assert [recipient.address for recipient in message.recipients] == ["b@example.org"]
