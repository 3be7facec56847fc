"""Second opinions, written to be plain and not to be fast: octet by octet, line by line, from the RFCs alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

MAX_COMMAND = 2048
MAX_SPILL = 64 << 20
MAX_HEADER_SECTION = 256 << 10


def end_of_data(octets: bytes, start: int) -> int | None:
    """Give where the message that begins at `start` ends, behind its final dot (RFC 5321 §4.1.1.4), None if nowhere."""
    at_line_start, state = True, b""
    for position in range(start, len(octets)):
        octet = octets[position : position + 1]
        if at_line_start and state == b"" and octet == b".":
            state = b"."
        elif state == b"." and octet == b"\r":
            state = b".\r"
        elif state == b".\r" and octet == b"\n":
            return position + 1
        elif octet == b"\r":
            at_line_start, state = False, b"\r"
        elif state == b"\r" and octet == b"\n":
            at_line_start, state = True, b""
        else:
            at_line_start, state = False, b""
    return None


def is_clean(content: bytes) -> bool:
    """Whether each CR and each LF is one half of a CRLF, and there is no NUL."""
    previous = 0
    for octet in content:
        if octet == 0 or (octet == 0x0A) != (previous == 0x0D):
            return False
        previous = octet
    return previous != 0x0D


def stuff(text: bytes) -> bytes:
    """Give what came by BDAT in the form in which DATA has it."""
    lines = text.split(b"\r\n")
    if lines[-1] == b"":
        lines.pop()
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"


def replies_of(said: bytes) -> list[int]:
    """Give the code of each reply, after a look at whether all of it is replies (RFC 5321 §4.2)."""
    assert said == b"" or said.endswith(b"\r\n"), said[-80:]
    codes = []
    for line in said.split(b"\r\n")[:-1]:
        assert re.fullmatch(rb"[2-5]\d\d[ -][\x20-\x7e]*", line), line
        assert len(line) <= 510, line
        if line[3:4] == b" ":
            codes.append(int(line[:3]))
    return codes


@dataclass(slots=True)
class Transaction:
    """What the client was told of a transaction; `chunks` is None until the first BDAT."""

    recipients: int = 0
    chunks: bytes | None = None


@dataclass(slots=True)
class Told:
    """What a client knows of its session: the messages that were answered with 250, in wire form."""

    messages: list[bytes] = field(default_factory=list)
    recipients: list[int] = field(default_factory=list)


class Reading:
    """Reads a client's octets beside the replies that it got, and says what the server must have taken."""

    def __init__(self, stream: bytes, said: bytes) -> None:
        self.stream = stream
        self.codes = replies_of(said)
        self.told = Told()
        self.position = 0
        self.transaction: Transaction | None = None

    def read(self) -> Told:
        """Read to the end of the session. Raises AssertionError where the replies don't fit what was sent."""
        assert self._reply() == 220
        while (line := self._line()) is not None:
            if not self.codes:
                assert self._awaits_more(line), f"no reply to {line[:100]!r}"
                break
            if not self._command(line):
                break
        assert not self.codes, f"{len(self.codes)} replies to nothing"
        return self.told

    def _reply(self) -> int:
        assert self.codes, "a reply is missing"
        return self.codes.pop(0)

    def _line(self) -> bytes | None:
        end = self.stream.find(b"\n", self.position)
        if end < 0:
            return None
        line = self.stream[self.position : end + 1]
        self.position = end + 1
        return line

    def _awaits_more(self, line: bytes) -> bool:
        """Whether it is a BDAT whose chunk is not all there."""
        found = re.fullmatch(rb"BDAT +([0-9]{1,19})(?: +LAST)? *\r\n", line, re.IGNORECASE)
        return found is not None and len(self.stream) - self.position < int(found[1])

    def _command(self, line: bytes) -> bool:
        """Take a command and the reply to it; tell whether the session goes on."""
        code = self._reply()
        if not line.endswith(b"\r\n"):
            assert code == 500
            return False
        if code in {221, 421}:
            return False
        if not _is_readable(line):
            assert code == 500, line
            return line[:4].upper() != b"BDAT"
        verb, _, argument = line[:-2].decode().partition(" ")
        match verb.upper():
            case "EHLO" | "HELO" | "RSET":
                if code == 250:
                    self.transaction = None
            case "MAIL":
                if code == 250:
                    assert self.transaction is None
                    self.transaction = Transaction()
            case "RCPT":
                if code == 250:
                    assert self.transaction is not None and self.transaction.chunks is None
                    self.transaction.recipients += 1
            case "DATA":
                if code == 354:
                    return self._message()
                assert code >= 500
            case "BDAT":
                return self._chunk(argument.strip(" "), code)
            case _:
                assert code != 354
        return True

    def _message(self) -> bool:
        assert self.transaction is not None and self.transaction.recipients and self.transaction.chunks is None
        end = end_of_data(self.stream, self.position)
        if end is None:
            self.position = len(self.stream)
            return True
        content, self.position = self.stream[self.position : end], end
        return self._verdict(content, self._reply())

    def _chunk(self, argument: str, code: int) -> bool:
        found = re.fullmatch("([0-9]{1,19})( +[Ll][Aa][Ss][Tt])?", argument)
        if found is None:
            assert code == 501
            return False
        octets, last = int(found[1]), found[2] is not None
        if octets > MAX_SPILL:
            assert code >= 500
            return False
        assert len(self.stream) - self.position >= octets, "an answer to a chunk that is not there"
        chunk = self.stream[self.position : self.position + octets]
        self.position += octets
        if self.transaction is None or not self.transaction.recipients:
            assert code >= 500
            self.transaction = None
            return True
        self.transaction.chunks = (self.transaction.chunks or b"") + chunk
        if last:
            return self._verdict(stuff(self.transaction.chunks), code)
        if code != 250:
            assert code >= 400
            self.transaction = None
        return True

    def _verdict(self, content: bytes, code: int) -> bool:
        assert self.transaction is not None
        if code == 250:
            assert is_clean(content), content[:200]
            self.told.messages.append(content)
            self.told.recipients.append(self.transaction.recipients)
        else:
            assert code >= 400, code
        self.transaction = None
        return code != 421


def _is_readable(line: bytes) -> bool:
    if len(line) > MAX_COMMAND:
        return False
    try:
        text = line[:-2].decode("utf-8")
    except UnicodeDecodeError:
        return False
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in text):
        return False
    return text.isascii() or text.partition(" ")[0].upper() in {"MAIL", "RCPT", "VRFY"}


def read_replies(octets: bytes, *, max_line: int, max_lines: int, max_reply: int) -> tuple[list[tuple], bool]:
    """Give the replies in a peer's octets, as code and lines, and whether what follows them is none."""
    replies: list[tuple] = []
    lines: list[bytes] = []
    while octets:
        head, newline, _ = octets[:max_line].partition(b"\n")
        if not newline:
            return replies, len(octets) >= max_line
        octets = octets[len(head) + 1 :]
        while head.endswith(b"\r"):
            head = head[:-1]
        if re.match(rb"[0-9][0-9][0-9](?:[ -]|\Z)", head) is None or (lines and lines[0][:3] != head[:3]):
            return replies, True
        goes_on = head[3:4] == b"-"
        several = bool(lines) or goes_on
        lines.append(head)
        if several and (len(lines) > max_lines or sum(map(len, lines)) > max_reply):
            return replies, True
        if not goes_on:
            replies.append((int(head[:3]), tuple(line[4:] for line in lines)))
            lines = []
    return replies, False


def header_fields(section: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Give the fields of a header section's lines, unfolded, as lower-case name and value without outer spaces."""
    name, value = b"", b""
    for line in section:
        text = line[1:] if line.startswith(b".") else line
        if text[:1] in (b" ", b"\t"):
            value += text
            continue
        if name:
            yield name, value.strip(b" \t")
        before, colon, value = text.partition(b":")
        name = before.rstrip(b" \t").lower() if colon else b""
    if name:
        yield name, value.strip(b" \t")


def header_section(message: bytes) -> list[bytes] | None:
    """Give the lines before the first empty one, or None when they are too long."""
    lines, length = [], 0
    for line in message.split(b"\r\n"):
        if line == b"":
            break
        lines.append(line)
        length += len(line) + 2
    else:
        length -= 2
    return lines if length <= MAX_HEADER_SECTION else None
