"""Destinations, as a person sees them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mtactl.cli.screen import columns, framed, grid, plain, state_text
from mtactl.cli.text import ago, local_time, number
from mtactl.control.types import LaneRow

__all__ = ["render_backoff", "render_lane", "render_lanes"]


def render_lanes(lanes: Sequence[LaneRow]) -> Table:
    """Give a row for each destination."""
    numbers = ("Conn", "In flight", "Delivered", "Deferred", "Bounced")
    table = columns("Lane", "State", *numbers, right=numbers, stretch="Lane")
    for lane in lanes:
        table.add_row(
            plain(lane.lane),
            state_text(lane.state),
            Text(f"{number(lane.connections)}/{number(lane.max_connections)}"),
            _count(lane.in_flight, "bold"),
            _count(lane.delivered, "green"),
            _count(lane.deferred, "yellow"),
            _count(lane.bounced, "red"),
        )
    return table


def _count(count: int, style: str) -> Text:
    return Text(number(count), style if count else "dim")


def render_lane(console: Console, lane: LaneRow) -> RenderableType:
    """Give all that is known of one destination."""
    title = Text.assemble(plain(lane.lane, "bold"), ": ", state_text(lane.state), no_wrap=True)
    title.overflow = "ellipsis"
    table = grid(False, False)
    rate = "no limit" if lane.rate is None else f"{lane.rate:,.3g} recipients a second"
    rows = [
        ("Connections", Text(f"{number(lane.connections)} of {number(lane.max_connections)}")),
        ("Rate", Text(rate)),
        ("In flight", Text(number(lane.in_flight))),
        ("In memory", Text(f"{number(lane.window)} in the window")),
        ("Since the start", Text(_since_start(lane))),
    ]
    if lane.backoff_until is not None:
        rows.append(("Back-off", Text(f"until {local_time(lane.backoff_until)}, {ago(lane.backoff_until)}", "yellow")))
    if lane.last_peer:
        rows.append(("Last peer", plain(lane.last_peer)))
    if lane.last_reply:
        rows.append(("Last reply", Text(plain(lane.last_reply).plain, overflow="fold")))
    for name, value in rows:
        table.add_row(Text(name, "dim"), value)
    table.columns[1].no_wrap = False
    table.columns[1].overflow = "fold"
    return framed(console, title, table if console.is_terminal else Group(title, table))


def _since_start(lane: LaneRow) -> str:
    return f"{number(lane.delivered)} delivered, {number(lane.deferred)} deferred, {number(lane.bounced)} bounced"


def render_backoff(lanes: Sequence[LaneRow]) -> Table:
    """Give the destinations that are left alone for a while: until when, and what they said last."""
    table = columns("In back-off", "Next try", "Last reply", stretch="Last reply")
    for lane in lanes:
        until = "" if lane.backoff_until is None else ago(lane.backoff_until)
        table.add_row(plain(lane.lane, "yellow"), Text(until), plain(lane.last_reply))
    return table
