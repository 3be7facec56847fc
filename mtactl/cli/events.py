"""mtactl events [--follow]: the stream of what happens, a line an event.

While following, a daemon that restarts is waited for, and what it remembers of the time in between comes first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click
import msgspec
from rich.text import Text

from mtactl.cli.client import Client
from mtactl.cli.event_stream import EventStream
from mtactl.cli.failures import Failure, Refused, Unreachable
from mtactl.cli.figures import clock
from mtactl.cli.printable import printable
from mtactl.cli.screen import Screen
from mtactl.cli.session import Session, takes_session
from mtactl.control.types import Event

__all__ = ["draw_event", "events"]

_ABSENCE = 10.0  # seconds that the daemon may be away
_PAUSE = 0.5  # seconds between two tries to reach it again

_KIND_STYLES = {
    "halt": "bold red",
    "halt_step": "red",
    "hold": "yellow",
    "release": "green",
    "backoff": "magenta",
    "drop": "red",
    "gap": "bold yellow",
}


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with what is to come, until Ctrl-C.")
@takes_session
def events(session: Session, *, follow: bool) -> None:
    """Show the latest events and end; with --follow, those from now on."""
    session.streams = True
    screen = Screen()
    try:
        for data in _follow(session.client) if follow else _read(session.client, EventStream(), follow=False):
            if session.json:
                session.write_json(data.encode())
            else:
                screen.show(_line(data))
    except KeyboardInterrupt:
        if not follow:  # there is no other way to end a stream that is followed
            raise


def _read(client: Client, stream: EventStream, *, follow: bool) -> Iterator[str]:
    """Give the data of each event until the stream ends."""
    headers = {"Accept": "text/event-stream"}
    if stream.last_id:
        headers["Last-Event-ID"] = stream.last_id
    with client.stream("/v1/events", headers=headers, follow=follow) as pieces:
        for piece in pieces:
            for event in stream.feed(piece):
                yield event.data


def _follow(client: Client) -> Iterator[str]:
    """Give the data of each event for ever.

    Raises Failure at once when the daemon is not there, and when it goes away and stays away.
    """
    last_id = ""
    deadline: float | None = None
    while True:
        stream = EventStream(last_id)
        lost: Failure = Unreachable("the daemon ended the stream of events", "Was it stopped? systemctl status mtactld")
        try:
            yield from _read(client, stream, follow=True)
        except (Unreachable, Refused) as failure:
            lost = failure
        if stream.begun:
            last_id = stream.last_id
            deadline = time.monotonic() + _ABSENCE
        if deadline is None or time.monotonic() >= deadline:
            raise lost
        time.sleep(_PAUSE)


def _line(data: str) -> Text:
    try:
        event = msgspec.json.decode(data, type=Event)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Text(printable(data))
    return draw_event(event)


def draw_event(event: Event) -> Text:
    """Draw an event in one line."""
    line = Text.assemble((clock(event.at), "dim"), "  ")
    line.append(f"{printable(event.kind):<10}", style=_KIND_STYLES.get(event.kind, ""))
    for name, value in event.data.items():
        if value is None or (name == "at" and event.kind == "halt_step"):
            continue
        line.append(f"  {printable(name)}=", style="dim")
        line.append(_text(value))
    return line


def _text(value: Any) -> str:
    if isinstance(value, str):
        text = printable(value)
        return f'"{text}"' if not text or " " in text else text
    return printable(msgspec.json.encode(value).decode())
