"""One line in the log for what became of each recipient, written in batches.

This is the busiest part of the log (a line a recipient), so a batch is encoded by msgspec in one call, and is not built
at all where nobody wants it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mtactl.message import queue_id
from mtactl.observe.events import OUTCOME, EventBus
from mtactl.observe.log import escape_invisible, render_console, timestamp
from mtactl.observe.writer import LineWriter
from mtactl.schedule.settler import Settled
from queue_store.records import Outcome

__all__ = ["OutcomeLine", "OutcomeLog"]

_NAMES: dict[Outcome | None, str] = {None: "deferred", **{outcome: outcome.name.lower() for outcome in Outcome}}

_encoder = msgspec.json.Encoder()


class OutcomeLine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What became of a recipient. `outcome` is "deferred" where it waits again, until `due`.

    `delay_seconds` counts from the time the message came in; `attempts` includes this one.
    """

    at: str
    level: str = "info"
    event: str = OUTCOME
    outcome: str
    campaign: str | None
    message: str
    recipient: str
    lane: str
    peer: str
    code: int | None
    reply: str
    delay_seconds: float
    attempts: int
    after_stop: bool
    due: str | None = None


def describe_outcome(settled: Settled) -> OutcomeLine:
    """Make the line of one recipient."""
    settlement = settled.settlement
    waited = settlement.at - settled.message.received_at
    return OutcomeLine(
        at=timestamp(settlement.at),
        outcome=_NAMES[settled.stored],
        campaign=settlement.campaign or None,
        message=queue_id.encode(settlement.message_id),
        recipient=settled.recipient.address,
        lane=settled.lane,
        peer=settlement.peer,
        code=settlement.code,
        reply=settlement.reply,
        delay_seconds=round(waited / 1_000_000, 3) if waited > 0 else 0.0,
        attempts=settled.recipient.attempts + 1,
        after_stop=settlement.after_stop,
        due=timestamp(settlement.due) if settled.stored is None else None,
    )


class OutcomeLog:
    """Writes outcomes to the log and, while someone follows, to the events."""

    def __init__(self, writer: LineWriter, events: EventBus, *, form: str = "json", level: str = "info") -> None:
        self._writer = writer
        self._events = events
        self.change(form=form, level=level)

    def change(self, *, form: str, level: str) -> None:
        """Write as "json" or "console" from now on; outcomes are of level "info"."""
        self._json = form == "json"
        self._wanted = level in {"debug", "info"}

    def write(self, batch: Sequence[Settled]) -> None:
        """Take what became of some recipients. Never blocks."""
        followed = self._events.followed
        if not (self._wanted or followed):
            return
        lines = [describe_outcome(settled) for settled in batch]
        if self._wanted:
            self._writer.write(_encode(lines) if self._json else _console(lines), len(lines), gather=True)
        if followed:
            for line in lines:
                self._events.publish(OUTCOME, _event_data(line))


def _encode(lines: Sequence[OutcomeLine]) -> bytes:
    try:
        return escape_invisible(_encoder.encode_lines(lines))
    except UnicodeEncodeError:
        # An address with octets that are no UTF-8: only then is each text looked at.
        return escape_invisible(_encoder.encode_lines([_mended(line) for line in lines]))


def _mended(line: OutcomeLine) -> OutcomeLine:
    texts = {name: value for name, value in msgspec.structs.asdict(line).items() if isinstance(value, str)}
    mended = {name: text.encode("utf-8", "backslashreplace").decode() for name, text in texts.items()}
    return msgspec.structs.replace(line, **mended)


def _console(lines: Sequence[OutcomeLine]) -> bytes:
    rendered = []
    for line in lines:
        told = {name: value for name, value in _event_data(line).items() if value not in (None, "", False)}
        del told["outcome"]
        rendered.append(render_console({"at": line.at, "level": line.level, "event": line.outcome, **told}))
    return b"".join(rendered)


def _event_data(line: OutcomeLine) -> dict[str, object]:
    """Give what is particular to this outcome: an event has its own time and kind."""
    data = msgspec.structs.asdict(line)
    for name in ("at", "level", "event"):
        del data[name]
    return data
