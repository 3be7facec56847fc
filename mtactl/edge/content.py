"""A message while it is being received: fed in pieces of any size, checked as it grows, kept in wire form.

Guarantees: only CRLF "." CRLF ends DATA, whatever else looks like it (RFC 5321 §2.3.8 and §4.1.1.4: SMTP smuggling);
a message with a bare CR, a bare LF or a NUL is refused, never mended (a server that drops NULs would see the end of
the message in a line of a dot and NULs); memory is bounded by the message size and by a budget that all connections
share; after a refusal the rest is read to its true end and thrown away, and counted, so that it is not read for ever.
No I/O in it.
"""

from __future__ import annotations

from mtactl.message.reply import Reply

__all__ = ["Content", "MemoryBudget"]

END = b"\r\n.\r\n"
_LOOK = 16 << 10  # octets that may wait to be checked: a pass over many costs less than a pass over each few

_BARE = Reply(550, "5.6.0", "a bare CR or LF in the message: lines end in CRLF (RFC 5321 section 2.3.8)")
_NUL = Reply(550, "5.6.0", "a NUL in the message (RFC 5322 section 4, RFC 2045 section 2.8)")
_TOO_LARGE = Reply(552, "5.3.4", "the message is larger than the maximum")
_NO_MEMORY = Reply(452, "4.3.1", "no memory for the message now, try again later")


class MemoryBudget:
    """Octets that all messages being received may take together."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, octets: int) -> bool:
        """Take octets from the budget if it has them."""
        if self.used + octets > self.limit:
            return False
        self.used += octets
        return True

    def give(self, octets: int) -> None:
        """Give octets back."""
        self.used -= octets

    def has_room(self, octets: int) -> bool:
        """Whether a message of this size could begin now."""
        return self.used + octets < self.limit


class Content:
    """One message, from its first octet to its last.

    `trace` is the Received: field that goes in front; it ends in CRLF, and counts for no limit. `problem` is the reply
    that refuses the message, None while it is good; `spilled` counts what came by DATA after it. Sizes are in octets of
    the wire form. Call `release` when done.
    """

    __slots__ = (
        "_budget",
        "_checked",
        "_dots",
        "_dots_from",
        "_eight_bit",
        "_held",
        "_line",
        "_max_line",
        "_max_size",
        "_raw",
        "body",
        "problem",
        "spilled",
        "trace",
    )

    def __init__(self, trace: bytes, *, max_size: int, max_line: int, budget: MemoryBudget) -> None:
        self.body = bytearray(trace)
        self.trace = len(trace)
        self.problem: Reply | None = None
        self.spilled = 0
        self._max_size = max_size
        self._max_line = max_line
        self._budget = budget
        self._held = 0
        self._eight_bit = not trace.isascii()
        self._checked = len(trace) - 2  # from here on: the CRLF before the first line takes part in what follows it
        self._raw = 0
        self._dots = 0
        self._dots_from = self._checked
        self._line = len(trace)  # where the line begins whose end was not yet seen

    @property
    def eight_bit(self) -> bool:
        """Whether an octet above 127 was among those checked."""
        return self._eight_bit

    @property
    def raw_size(self) -> int:
        """Octets that came in chunks so far, without the dots that were added."""
        return self._raw

    def feed_data(self, piece: bytes | bytearray) -> bytes | bytearray | None:
        """Take a piece of DATA; give what follows the end of the message when it is in it, else None."""
        body = self.body
        # The end may have begun in the piece before: at most four of its five octets.
        if self.problem is None:
            search_from = max(self.trace - 2, len(body) - 4)
        else:
            search_from = 0
            self.spilled += len(piece)
        body += piece
        found = body.find(END, search_from)
        if found < 0:
            few = self.problem is None and len(body) - self._checked < _LOOK
            self._judge(self._hold() if few else self._find_problem(self._safe_stop(), last=False))
            return None
        end = found + len(END)
        rest = body[end:]
        del body[end:]
        self._judge(self._find_problem(end, last=True))
        return rest

    def feed_chunk(self, piece: bytes | bytearray) -> None:
        """Take a piece of a BDAT chunk (RFC 3030): octets as they are, dots are doubled here."""
        self._raw += len(piece)
        if self.problem is not None:
            return
        self.body += piece
        self._stuff_and_check(self._safe_stop())

    def end_chunks(self) -> None:
        """End a message that came in chunks: complete its last line and put the final dot."""
        if self.problem is not None:
            return
        if not self.body.endswith(b"\r\n"):
            self.body += b"\r\n"
        self._stuff_and_check(len(self.body))
        if self.problem is None:
            self.body += b".\r\n"

    def release(self) -> None:
        """Give the memory back to the budget. The body stays with whoever took it."""
        self._budget.give(self._held)
        self._held = 0

    def _safe_stop(self) -> int:
        """Give up to where the body can be judged: not between CR and LF, nor between CRLF and what may be a dot."""
        body = self.body
        if body.endswith(b"\r\n"):
            return max(self._checked, len(body) - 2)
        return max(self._checked, len(body) - 1) if body.endswith(b"\r") else len(body)

    def _stuff_and_check(self, stop: int) -> None:
        region = self.body[self._checked : stop]
        if b"\r\n." in region:
            stuffed = region.replace(b"\r\n.", b"\r\n..")
            self.body[self._checked : stop] = stuffed
            stop += len(stuffed) - len(region)
        self._judge(self._find_problem(stop, last=False))

    def _judge(self, problem: Reply | None) -> None:
        if self.problem is None:
            self.problem = problem
        if self.problem is not None:
            self.release()
            del self.body[:-4]  # as much as the end may have begun in

    def _find_problem(self, stop: int, *, last: bool) -> Reply | None:
        if self.problem is not None:
            return None
        body = self.body
        region = body[self._checked : stop]
        # Every CR and every LF is in a pair: without the pairs there is none.
        left = region.replace(b"\r\n", b"")
        if b"\r" in left or b"\n" in left:
            return _BARE
        if b"\x00" in region:
            return _NUL
        if not self._eight_bit and not region.isascii():
            self._eight_bit = True
        self._checked = stop
        if stop - self.trace > self._max_size and not self._size_fits(stop, 2 if last else 0):
            return _TOO_LARGE
        if not self._lines_fit(stop):
            return Reply(550, "5.6.0", f"a line is longer than {self._max_line} octets (RFC 5321 section 4.5.3.1.6)")
        return self._hold()

    def _hold(self) -> Reply | None:
        """Account for the memory that the message takes now."""
        octets = len(self.body)
        if not self._budget.take(octets - self._held):
            return _NO_MEMORY
        self._held = octets
        return None

    def _size_fits(self, stop: int, line_end: int) -> bool:
        """Whether the size is allowed without the dots that transparency added and without the final line."""
        self._dots += self.body.count(b"\r\n.", self._dots_from, stop)
        self._dots_from = stop
        return stop - self.trace - self._dots - line_end <= self._max_size

    def _lines_fit(self, stop: int) -> bool:
        """Leap from line end to line end, as far as the limit allows: a line too long leaves none to leap to."""
        body, limit, line = self.body, self._max_line, self._line
        while stop - line > limit:
            end = body.rfind(b"\n", line, line + limit)
            if end < 0:
                # The dot that transparency added does not count.
                end = line + limit
                if body[line] != 0x2E or body[end] != 0x0A:
                    return False
            line = end + 1
        self._line = line
        return True
