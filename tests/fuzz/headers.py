"""The header scan: any octets. It never raises, and finds what a reader finds who goes line by line."""

from __future__ import annotations

from mtactl.message.headers import MAX_HOPS, MAX_VALUE, CampaignHeaders, is_campaign_id
from mtactl.message.reply import Reply
from tests.fuzz import reference

NAMES = (("X-Campaign-ID", "X-Campaign", "X-Job"), ("X",), ("X-Job", "List-Id", "X-Job-Id"))
_READERS = tuple(CampaignHeaders(names) for names in NAMES)
_REFUSED = Reply(550, "5.6.0", "")

SEEDS = tuple(
    bytes([flags]) + text
    for flags in (0, 4, 9, 14)
    for text in (
        b"X-Campaign-ID: c1\nSubject: x\n\nX-Job: body\n.\n",
        b"X-Job:\n\tc1\n \nX-Campaign: c2\n\n.\n",
        b"x-cAMPAIGN-iD \t: =?utf-8?q?spring-?=\n =?iso-8859-1?b?MjAyNg==?=\n\n.\n",
        b".X-Job: c1\n..X-Job: c2\nX-Job:\n. c1\n\n.\n",
        b"X-Job: a\nX-Job: b\n\n",
        b"Received: x\n" * 99 + b"RECEIVED \t: y\nX: z\n\n",
        b"X-Job: " + b"a" * 128 + b"\nX-Job-Id: " + b"b" * 129 + b"\nList-Id: \xc3\xbc\n\n",
    )
)
WORDS = (
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\n ", b"\n.\t", b"\n.", b":", b" :", b"X-Job", b"X-Campaign-ID", b"Received:"),
    *(b"=?", b"?=", b"?q?", b"?B?", b"utf-8", b"us-ascii", b"utf-7", b"idna", b"rot13", b"=20", b"\x00", b"\xc3\xbc"),
)


def check(data: bytes) -> None:
    """Compare the scan with the second opinion. Raises AssertionError.

    The first octet chooses the names, and whether line ends are made what they are in a message that was taken.
    """
    if not data:
        return
    which, text = data[0] & 3, data[1:]
    if data[0] & 12:
        text = text.replace(b"\r", b"").replace(b"\n", b"\r\n").replace(b"\x00", b"")
    reader, names = _READERS[which % len(NAMES)], NAMES[which % len(NAMES)]
    trace = b"Received: from x\r\n\tby y; z\r\n" if data[0] & 4 else b""
    found = reader.read(bytearray(trace + text), len(trace))
    assert found == reader.read(trace + text, len(trace))
    if isinstance(found, Reply):
        assert found.permanent and str(found).isprintable()
    else:
        assert found == "" or is_campaign_id(found)
    if not reference.is_clean(text):
        return
    expected = slow_campaign(text, names)
    if isinstance(expected, Reply):
        assert isinstance(found, Reply) and found.code == expected.code, (found, expected)
    elif expected is not None:
        assert found == expected, (found, expected)


def slow_campaign(message: bytes, names: tuple[str, ...]) -> str | Reply | None:
    """Give a message's campaign or the refusal, line by line; None where encoded words (RFC 2047) decide."""
    section = reference.header_section(message)
    if section is None:
        return Reply(552, "5.3.4", "")
    fields = list(reference.header_fields(section))
    if sum(name == b"received" for name, _ in fields) >= MAX_HOPS:
        return Reply(554, "5.4.6", "")
    for name in names:
        values = [value for key, value in fields if key == name.lower().encode()]
        if not values:
            continue
        if any(len(value) > MAX_VALUE for value in values):
            return _REFUSED
        if any(b"=?" in value for value in values):
            return None
        texts = {value.decode("latin-1") for value in values}
        text = texts.pop()
        return _REFUSED if texts or not is_campaign_id(text) else text
    return ""
