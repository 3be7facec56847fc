"""One client's connection as two streams of octets: what came and was not yet read, what is to be written.

Replies gather until the client has to be waited for and then go out in one write (RFC 2920 §3.2). Reading stops while
more has come than is being looked at; a client that does not read its replies is not read from either. One lazy timer
serves all waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from mtactl.edge.content import Content
from mtactl.edge.driver import park

__all__ = ["MAX_SPILL", "BareNewline", "ConnectionLost", "EndlessMessage", "LineTooLong", "Wire"]

LINGER = 10.0  # seconds for the client to take the last reply
MAX_SPILL = 64 << 20  # octets of a refused message that are read on, so that its client comes to the reply
PATIENCE = 10  # blocks' time-outs that a message may take, however little comes of it,
SLOWEST = 500  # and octets a second that give it more time than that
LINE_START = 16  # octets that are kept of a line that is too long
READ_AHEAD = 128 << 10  # octets that may wait unread before the transport is paused


class ConnectionLost(Exception):
    """The client is gone, or will send nothing more."""


class LineTooLong(Exception):
    """A command line went over the limit. It was read to its end and thrown away but for its `start`."""

    def __init__(self, start: bytes) -> None:
        super().__init__(start)
        self.start = start


class BareNewline(Exception):
    """A command line ended in LF without CR: whoever sent it may see other line ends than we do."""


class EndlessMessage(Exception):
    """A message that is refused goes on and on."""


class Wire:
    """The octets of one connection. Waits raise ConnectionLost, and TimeoutError when the client is silent too long."""

    __slots__ = (
        "_buffer",
        "_content",
        "_content_timeout",
        "_deadline",
        "_eof",
        "_expired",
        "_held_up",
        "_last_moment",
        "_loop",
        "_lost",
        "_out",
        "_overlong",
        "_paused",
        "_rest",
        "_scanned",
        "_timer",
        "_timer_at",
        "_transport",
        "_waiting",
        "on_event",
    )

    def __init__(self, transport: asyncio.BaseTransport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop = loop
        self._buffer = bytearray()
        self._scanned = 0  # no LF before this
        self._overlong = b""  # how the line begins of which too much came
        self._content: Content | None = None  # that takes what comes, up to its end
        self._content_timeout = 0.0
        self._last_moment = 0.0  # for what comes; each octet puts it off
        self._rest: bytes | bytearray | None = None  # what came behind that
        self._out: list[bytes] = []
        self._eof = False
        self._lost = False
        self._paused = False  # we don't read
        self._held_up = False  # the client doesn't
        self._waiting = False
        self._expired = False
        self.on_event: Callable[[], None] = _nobody
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    # -- what the protocol tells ------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take what the client sent."""
        if self._content is not None and self._waiting and not self._held_up:
            self._rest = self._content.feed_data(data)
            if self._rest is None and self._content.spilled <= MAX_SPILL:
                self._last_moment += len(data) / SLOWEST
                self._deadline = min(self._loop.time() + self._content_timeout, self._last_moment)
            else:
                self.on_event()
            return
        self._buffer += data
        if self._waiting and not self._held_up:
            self.on_event()
        elif len(self._buffer) > READ_AHEAD and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def feed_eof(self) -> None:
        """Note that the client sends nothing more. What it has sent is still obeyed and answered."""
        self._eof = True
        self.on_event()

    def lose(self) -> None:
        """Note that the connection is gone."""
        self._lost = True
        self._out.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.on_event()

    def hold_up(self, held_up: bool) -> None:
        """Note that the transport's buffer is over its high-water mark, or no more."""
        self._held_up = held_up
        if not held_up:
            self.on_event()

    # -- reading ------------------------------------------------------------------------------------------------------

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return self._lost

    def next_line(self, limit: int) -> bytes | None:
        """Take a command line, without its CRLF, if one is there. `limit` is in octets with the CRLF.

        Raises LineTooLong, BareNewline, ConnectionLost.
        """
        if self._lost:
            raise ConnectionLost
        buffer = self._buffer
        end = buffer.find(b"\n", self._scanned)
        if end < 0:
            if len(buffer) >= limit:
                self._overlong = self._overlong or bytes(buffer[:LINE_START])
                del buffer[:-1]  # the last one may be the CR
            self._scanned = len(buffer)
            return None
        line = bytes(buffer[: end + 1])
        del buffer[: end + 1]
        self._scanned = 0
        overlong, self._overlong = self._overlong, b""
        if not line.endswith(b"\r\n"):
            raise BareNewline
        if overlong or len(line) > limit:
            raise LineTooLong(overlong or line[:LINE_START])
        return line[:-2]

    def take(self) -> bytearray:
        """Take all that is there: the buffer itself, no copy."""
        taken, self._buffer = self._buffer, bytearray()
        self._scanned = 0
        return taken

    async def receive_data(self, content: Content, timeout: float) -> None:  # noqa: ASYNC109 - the timer is the wire's
        """Feed a message that comes by DATA, to its end. `timeout` is for each block.

        Raises EndlessMessage when too much comes of one that is refused.
        """
        rest: bytes | bytearray | None = None
        if self._buffer:
            rest = content.feed_data(self.take())
        self._content, self._content_timeout = content, timeout
        self._last_moment = self._loop.time() + PATIENCE * timeout
        try:
            while rest is None:
                if content.spilled > MAX_SPILL:
                    raise EndlessMessage
                await self.more(min(timeout, self._last_moment - self._loop.time()))
                rest, self._rest = self._rest, None
                if rest is None and self._buffer:  # it came while the client did not read our replies
                    rest = content.feed_data(self.take())
        finally:
            self._content = None
        if rest:
            self._buffer[:0] = rest

    async def receive_chunk(
        self,
        octets: int,
        content: Content | None,
        timeout: float,  # noqa: ASYNC109
    ) -> None:
        """Feed a chunk of a message that comes by BDAT; without a content it is thrown away."""
        last_moment = self._loop.time() + PATIENCE * timeout
        while octets:
            if not self._buffer:
                await self.more(min(timeout, last_moment - self._loop.time()))
                continue
            if len(self._buffer) <= octets:
                piece = self.take()
            else:
                piece = self._buffer[:octets]
                del self._buffer[:octets]
            octets -= len(piece)
            last_moment += len(piece) / SLOWEST
            if content is not None:
                content.feed_chunk(piece)

    async def more(self, timeout: float, *, anew: bool = True) -> bool:  # noqa: ASYNC109
        """Write what is to be written, then wait until the client has sent more; tell whether that was waited for.

        Not `anew`, it goes on with the wait before: the time that is over counts.
        """
        if self._out:
            self.flush()
        if anew or self._held_up:
            self._deadline = self._loop.time() + timeout
        if self._held_up:
            await self._drain()  # the caller looks again, and then waits for what comes
            return False
        if self._eof or self._lost:
            raise ConnectionLost
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        await self._wait()
        return True

    async def breathe(self, timeout: float) -> None:  # noqa: ASYNC109
        """Let the other connections have their turn, while this one has more to be done."""
        self.flush()
        self._deadline = self._loop.time() + timeout
        await self._drain()
        await asyncio.sleep(0)
        if self._lost:
            raise ConnectionLost

    # -- writing ------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write with the next flush."""
        self._out.append(data)

    def flush(self) -> None:
        """Hand what gathered to the transport, in one piece."""
        if self._out:
            out, self._out = self._out, []
            if not self._lost and not self._transport.is_closing():
                self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def close(self) -> None:
        """Write what gathered and close; a client that does not read does not keep us for long."""
        self.flush()
        if self._held_up:
            self._transport.abort()
        elif not self._lost:
            self._transport.close()
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(LINGER, self._transport.abort)

    def forget(self) -> None:
        """Drop what was never read, and whom there is to tell of it: the connection is gone and its session over."""
        self._buffer = bytearray()
        self._rest = None
        self.on_event = _nobody

    # -- waiting ------------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        while self._held_up and not self._lost:
            await self._wait()

    async def _wait(self) -> None:
        """Wait for the next event: octets, their end, room to write, or the loss of the connection."""
        # A deadline mostly moves further away, so the timer is left alone and looks at the deadline when it fires.
        if self._timer is None or self._timer_at > self._deadline:
            self._arm()
        self._waiting = True
        try:
            await park()
        finally:
            self._waiting = False
        if self._expired:
            self._expired = False
            raise TimeoutError

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._deadline
        self._timer = self._loop.call_at(self._deadline, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        if self._loop.time() < self._deadline:
            self._arm()
        else:
            self._expired = True
            self.on_event()


def _nobody() -> None:
    """Go on with nobody: the session was refused."""
