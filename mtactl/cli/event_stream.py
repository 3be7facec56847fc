"""Server-sent events, read as the WHATWG HTML standard says (section "Interpreting an event stream"). No I/O in it."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["EventStream", "ServerSentEvent"]

_BOM = "\ufeff"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSentEvent:
    """An event: the last id that was seen up to it, its kind, its data."""

    id: str
    kind: str
    data: str


class EventStream:
    """Turns octets, in pieces of any size, into events. What is unfinished at the end of the stream is no event.

    `last_id` is that of an earlier stream which this one goes on with; `begun` says that anything came at all.
    """

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.begun = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._after_cr = False
        self._kind = ""
        self._data: list[str] = []

    def feed(self, octets: bytes) -> Iterator[ServerSentEvent]:
        """Take the next octets and give the events that are complete with them."""
        for line in self._lines(self._decoder.decode(octets)):
            if line:
                self._take(line)
            else:
                yield from self._dispatch()

    def _lines(self, text: str) -> Iterator[str]:
        """Give the lines that are complete. They end in LF, CR or CRLF, and the last may come in two pieces."""
        if not self.begun and text:
            self.begun = True
            text = text.removeprefix(_BOM)
        if self._after_cr and text:
            self._after_cr = False
            text = text.removeprefix("\n")
        self._after_cr = self._after_cr or text.endswith("\r")
        lines = (self._text + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._text = lines.pop()
        yield from lines

    def _take(self, line: str) -> None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._kind = value
        elif field == "id" and "\0" not in value:
            self.last_id = value

    def _dispatch(self) -> Iterator[ServerSentEvent]:
        kind, data = self._kind or "message", self._data
        self._kind, self._data = "", []
        if data:
            yield ServerSentEvent(id=self.last_id, kind=kind, data="\n".join(data))
