"""Replies taken out of a stream of octets (RFC 5321 §4.2), with a limit on everything. No I/O.

A bare LF ends a line as CRLF does, as there are such peers; all other deviations are errors.

A peer answers one pipelined envelope as it answered the last, octet by octet the same, so the answers of the latest
such burst are kept, and given again when the same octets come.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from mtactl.message.reply import Reply

__all__ = ["Answer", "ReplyReader"]

MAX_LINE = 2048  # octets; RFC 5321 §4.5.3.1.5 asks for 512
MAX_LINES = 512
MAX_REPLY = 64 << 10  # octets


class Answer(Struct, frozen=True, gc=False):
    """A reply as it came: the three digits, and the text of each line. `to_reply` costs more: ask for it last."""

    code: int
    lines: tuple[bytes, ...]

    def to_reply(self) -> Reply:
        """Give it as a value for those outside."""
        return Reply.from_lines(self.code, list(self.lines))


class ReplyReader:
    """Collects octets, gives replies. Memory stays below the limits plus what one `read` and the last burst brought.

    `garbage` says in what way something that came is no SMTP reply, else it is "". What follows it is lost.
    """

    __slots__ = ("_buffer", "_burst", "_burst_answers", "_lines", "_octets", "garbage")

    def __init__(self) -> None:
        self.garbage = ""
        self._buffer = b""
        self._lines: list[bytes] = []
        self._octets = 0
        self._burst = b""
        self._burst_answers: Sequence[Answer] = ()

    @property
    def empty(self) -> bool:
        """Whether no part of a reply is waiting for the rest of it."""
        return not self._buffer and not self._lines

    def read(self, data: bytes) -> Sequence[Answer]:
        """Take octets from the peer, in order; give the replies that are whole now.

        The same object comes again where the same several replies do.
        """
        if self._buffer or self._lines:
            return self._parse(self._buffer + data)
        if data == self._burst:
            return self._burst_answers
        answers = self._parse(data)
        if len(answers) > 1 and self.empty and not self.garbage and len(data) <= MAX_LINE:
            self._burst, self._burst_answers = data, answers
        return answers

    def _parse(self, octets: bytes) -> Sequence[Answer]:
        answers: list[Answer] = []
        start = 0
        while not self.garbage:
            end = octets.find(b"\n", start, start + MAX_LINE)
            if end < 0:
                if len(octets) - start >= MAX_LINE:
                    self.garbage = f"a reply line of over {MAX_LINE} octets"
                break
            line = octets[start:end].rstrip(b"\r")
            start = end + 1
            # bytes.isdigit is about ASCII digits only, unlike str.isdigit
            if len(line) < 3 or not line[:3].isdigit() or line[3:4] not in (b" ", b"-", b""):
                self.garbage = f"a line that is no reply: {line[:80].decode('ascii', 'replace')!r}"
            elif self._lines or line[3:4] == b"-":
                self._take_line(line, answers)
            else:
                answers.append(Answer(int(line[:3]), (line[4:],)))
        self._buffer = octets[start:]
        return answers

    def _take_line(self, line: bytes, answers: list[Answer]) -> None:
        """Add a line of a reply of several lines; the reply goes to the answers if it is the last one."""
        lines = self._lines
        if lines and lines[0][:3] != line[:3]:
            self.garbage = f"a reply that begins with {lines[0][:3].decode()} and goes on with {line[:3].decode()}"
            return
        lines.append(line)
        self._octets += len(line)
        if len(lines) > MAX_LINES or self._octets > MAX_REPLY:
            self.garbage = f"a reply of over {MAX_LINES} lines or {MAX_REPLY} octets"
        elif line[3:4] != b"-":
            answers.append(Answer(int(line[:3]), tuple([each[4:] for each in lines])))
            self._lines = []
            self._octets = 0
