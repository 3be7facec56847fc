"""Replies taken out of a stream of octets (RFC 5321 §4.2), with a limit on everything. No I/O.

A bare LF ends a line as CRLF does, as there are such peers; all other deviations are errors.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtactl.message.reply import Reply

__all__ = ["Answer", "Garbage", "ReplyReader"]

MAX_LINE = 2048  # octets; RFC 5321 §4.5.3.1.5 asks for 512
MAX_LINES = 512
MAX_REPLY = 64 << 10  # octets


class Garbage(Exception):
    """What the peer sent is no SMTP reply; the message says in what way."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply as it came: the three digits, and the text of each line. `to_reply` costs more: ask for it last."""

    code: int
    lines: tuple[bytes, ...]

    def to_reply(self) -> Reply:
        """Give it as a value for those outside."""
        return Reply.from_lines(self.code, list(self.lines))


class ReplyReader:
    """Collects octets, gives replies. Memory stays below the limits plus what one `feed` brought."""

    __slots__ = ("_buffer", "_lines", "_octets")

    def __init__(self) -> None:
        self._buffer = b""
        self._lines: list[bytes] = []
        self._octets = 0

    @property
    def empty(self) -> bool:
        """Whether no part of a reply is waiting for the rest of it."""
        return not self._buffer and not self._lines

    def feed(self, data: bytes) -> None:
        """Take octets from the peer, in order."""
        self._buffer = self._buffer + data if self._buffer else data

    def next_answer(self) -> Answer | None:
        """Give the next whole reply, or None when more octets are needed. Raises Garbage; what follows is lost then."""
        while True:
            end = self._buffer.find(b"\n", 0, MAX_LINE)
            if end < 0:
                if len(self._buffer) >= MAX_LINE:
                    raise Garbage(f"a reply line of over {MAX_LINE} octets")
                return None
            line = self._buffer[:end].rstrip(b"\r")
            self._buffer = self._buffer[end + 1 :]
            digits, separator = line[:3], line[3:4]
            # bytes.isdigit is about ASCII digits only, unlike str.isdigit
            if len(digits) != 3 or not digits.isdigit() or separator not in (b" ", b"-", b""):
                raise Garbage(f"a line that is no reply: {line[:80].decode('ascii', 'replace')!r}")
            if not self._lines and separator != b"-":
                return Answer(int(digits), (line[4:],))
            complete = self._take_line(line, digits, last=separator != b"-")
            if complete is not None:
                return complete

    def _take_line(self, line: bytes, digits: bytes, *, last: bool) -> Answer | None:
        """Add a line of a reply of several lines; give the reply if it is the last one."""
        if self._lines and self._lines[0][:3] != digits:
            raise Garbage(f"a reply that begins with {self._lines[0][:3].decode()} and goes on with {digits.decode()}")
        self._lines.append(line)
        self._octets += len(line)
        if len(self._lines) > MAX_LINES or self._octets > MAX_REPLY:
            raise Garbage(f"a reply of over {MAX_LINES} lines or {MAX_REPLY} octets")
        if not last:
            return None
        answer = Answer(int(digits), tuple(each[4:] for each in self._lines))
        self._lines = []
        self._octets = 0
        return answer
