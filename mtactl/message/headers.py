"""What the edge must know of a message's header section: where it ends, its campaign, how many hops it made.

The section is read in wire form, as it stands between DATA and the final dot: lines end in CRLF, and a line that begins
with a dot has one dot more (RFC 5321 §4.5.2). Nothing is decoded but the one field that names the campaign.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.errors import HeaderParseError
from email.header import decode_header

from mtactl.message.reply import Reply, printable

__all__ = ["CAMPAIGN_RULE", "MAX_HEADER_SECTION", "MAX_HOPS", "CampaignHeaders", "find_header_end", "is_campaign_id"]

MAX_HEADER_SECTION = 256 << 10  # octets
MAX_HOPS = 100  # Received: fields, RFC 5321 §6.3
MAX_VALUE = 4096  # octets of a field that may name a campaign: 128 characters, however they are encoded
CAMPAIGN_RULE = "[A-Za-z0-9][A-Za-z0-9._:+=/@-]{0,127}"

_CAMPAIGN_ID = re.compile(CAMPAIGN_RULE)
# Those in which an id has the octets that it has in ASCII. Python keeps each name of a codec that it was ever asked
# for, also of one that there is not, so that what a sender names is not asked for.
_CHARSET = re.compile(
    r"(?:us-)?ascii|utf-?8|latin1|iso-8859-\d{1,2}|windows-125\d|koi8-[ru]|gb2312|gbk|gb18030|big5|euc-jp|euc-kr",
    re.ASCII | re.IGNORECASE,
)
_RECEIVED = re.compile(rb"\r\n\.?received[ \t]*:", re.IGNORECASE)

_TOO_LONG = Reply(552, "5.3.4", f"the header section is larger than {MAX_HEADER_SECTION >> 10} KiB")
_TOO_MANY_HOPS = Reply(554, "5.4.6", f"the message came through {MAX_HOPS} servers or more: a mail loop")


def is_campaign_id(text: str) -> bool:
    """Whether the text can be the id of a campaign (CONTRACT.md §1)."""
    return _CAMPAIGN_ID.fullmatch(text) is not None


def find_header_end(message: bytes | bytearray, start: int = 0) -> int | None:
    """Give where the header section that begins at `start` ends (behind the CRLF of its last field), or None when that
    is further away than MAX_HEADER_SECTION. A message without an empty line is all headers.
    """
    if message.startswith(b"\r\n", start):
        return start
    found = message.find(b"\r\n\r\n", start, start + MAX_HEADER_SECTION + 2)
    if found >= 0:
        return found + 2
    return len(message) if len(message) - start <= MAX_HEADER_SECTION else None


class CampaignHeaders:
    """Finds the campaign of a message by the configured header names, the first of which that is there decides."""

    __slots__ = ("_field", "_names")

    def __init__(self, names: Sequence[str]) -> None:
        self._names = {name.lower().encode("ascii"): name for name in names}
        longest_first = sorted(self._names, key=len, reverse=True)
        alternatives = b"|".join(re.escape(name) for name in longest_first)
        # A message line that begins with a dot that was not doubled is read as the peer will read it: without the dot.
        self._field = re.compile(
            rb"\r\n\.?(" + alternatives + rb")[ \t]*:([^\r\n]*(?:\r\n\.?[ \t][^\r\n]*)*)", re.IGNORECASE
        )

    def read(self, message: bytes | bytearray, start: int = 0) -> str | Reply:
        """Give the campaign of the message whose header section begins at `start`, "" for none; or the refusal.

        A field that is there and does not hold a campaign id is refused, never passed over: its mail could not be
        stopped.
        """
        end = find_header_end(message, start)
        if end is None:
            return _TOO_LONG
        section = b"\r\n" + message[start:end]
        if len(_RECEIVED.findall(section)) >= MAX_HOPS:
            return _TOO_MANY_HOPS
        values: dict[bytes, list[bytes]] = {}
        for name, value in self._field.findall(section) if self._names else ():
            values.setdefault(name.lower(), []).append(value)
        for key, name in self._names.items():
            if key in values:
                return _campaign_of(name, values[key])
        return ""


def _campaign_of(name: str, raw: Sequence[bytes]) -> str | Reply:
    found: set[str] = set()
    for value in raw:
        # Each line end in it is that of a fold, with white space behind it and perhaps a dot between.
        text = _decode(value.replace(b"\r\n.", b"").replace(b"\r\n", b"").strip(b" \t"))
        if text is None or not is_campaign_id(text):
            return Reply(550, "5.6.0", f"the header {printable(name)} is not a campaign id, which is {CAMPAIGN_RULE}")
        found.add(text)
    if len(found) > 1:
        return Reply(550, "5.6.0", f"the header {printable(name)} is there more than once, with different values")
    return found.pop()


def _decode(value: bytes) -> str | None:
    """Decode RFC 2047 encoded words; None when that can't be done."""
    if len(value) > MAX_VALUE:
        return None
    try:
        text = value.decode("utf-8")
        if "=?" not in text:
            return text
        parts = [_decode_part(part, charset) for part, charset in decode_header(text)]
    except (HeaderParseError, ValueError):
        return None
    return "".join(parts).strip(" \t")


def _decode_part(part: str | bytes, charset: str | None) -> str:
    if isinstance(part, str):
        return part
    if charset and _CHARSET.fullmatch(charset) is None:
        raise ValueError(charset)
    return part.decode("ascii")
