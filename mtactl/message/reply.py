"""An SMTP reply (RFC 5321 §4.2), the same value on the side that gives it and the side that gets it."""

from __future__ import annotations

import re

from msgspec import Struct

__all__ = ["Reply", "printable"]

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")


def printable(text: str, limit: int = 500) -> str:
    """Give the text with runs of anything outside printable ASCII as one '?', cut to `limit` characters."""
    if not (text.isascii() and text.isprintable()):
        text = _UNPRINTABLE.sub("?", text)
    return text[:limit]


class Reply(Struct, frozen=True, gc=False):
    """Three digits, an enhanced status code (RFC 3463) or "", and the text (lines are joined by a space, printable)."""

    code: int
    enhanced: str
    text: str

    @classmethod
    def from_lines(cls, code: int, lines: list[bytes]) -> Reply:
        """Build from the text parts of a reply's lines, without the digits and the separator."""
        if len(lines) == 1:
            text = printable(lines[0].decode("ascii", "replace")).strip()
            found = _ENHANCED.match(text)
            if found is None or int(text[0]) != code // 100:
                return cls(code, "", text)
            return cls(code, found[1], text[found.end() :])
        texts = [printable(line.decode("ascii", "replace")).strip() for line in lines]
        found = _ENHANCED.match(texts[0]) if texts else None
        if found is None or int(found[1][0]) != code // 100:
            return cls(code, "", printable(" ".join(texts)))
        prefix = found[1]
        rest = [text.removeprefix(prefix).strip() for text in texts]
        return cls(code, prefix, printable(" ".join(rest)))

    @property
    def positive(self) -> bool:
        """Whether it is 2yz or 3yz."""
        return 200 <= self.code < 400

    @property
    def permanent(self) -> bool:
        """Whether it is 5yz."""
        return 500 <= self.code < 600

    @property
    def detail(self) -> str:
        """All but the three digits."""
        return f"{self.enhanced} {self.text}".strip()

    def __str__(self) -> str:
        return f"{self.code} {self.detail}".strip()

    def encode(self) -> bytes:
        """Give it as one line of the wire."""
        return f"{self}\r\n".encode("ascii", "replace")
