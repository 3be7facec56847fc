"""mtactl lanes [DOMAIN]: destinations."""

from __future__ import annotations

import time

import click
from rich.text import Text

from mtactl.cli.facts import draw_facts
from mtactl.cli.figures import age, count, date, moment, short_count
from mtactl.cli.printable import printable
from mtactl.cli.screen import Screen
from mtactl.cli.session import Session, check_filled, takes_session
from mtactl.cli.suggestions import complete_lane
from mtactl.cli.table import Cell, Column, Table
from mtactl.control.types import LaneList, LaneRow

__all__ = ["LANE_COLUMNS", "lane_cells", "lanes"]

_STATE_STYLES = {"open": "green", "throttled": "yellow", "backoff": "bold red"}

LANE_COLUMNS = (
    Column(title="lane", least=16),
    Column(title="state"),
    Column(title="conns", right=True, optional=True),
    Column(title="flying", right=True, optional=True),
    Column(title="delivered", right=True),
    Column(title="deferred", right=True),
    Column(title="bounced", right=True),
    Column(title="last reply", least=24, optional=True, middle=False, style="dim"),
    Column(title="window", right=True, optional=True),
    Column(title="rate", right=True, optional=True),
)


@click.command()
@click.argument("domain", required=False, callback=check_filled, shell_complete=complete_lane)
@takes_session
def lanes(session: Session, *, domain: str | None) -> None:
    """Show the destinations that have mail in memory, or all that is known of one.

    `delivered`, `deferred` and `bounced` count since the daemon started; `window` is what the lane holds in memory.
    """
    answer = session.client.get("/v1/lanes", LaneList, lane=domain)
    if session.json:
        session.write_json(answer.raw)
        return
    rows = answer.value.lanes
    screen = Screen()
    if not rows:
        session.tell("No lane is in memory." if domain is None else f"No lane {domain} is in memory.")
    elif domain is not None:
        for row in rows:
            screen.show(*_describe(row, screen))
    else:
        Table(screen, LANE_COLUMNS).show(lane_cells(row) for row in rows)


def lane_cells(row: LaneRow) -> list[Cell]:
    """Give the cells of LANE_COLUMNS."""
    return [
        row.lane,
        (_state(row), _STATE_STYLES.get(row.state, "")),
        f"{row.connections}/{row.max_connections}",
        short_count(row.in_flight),
        short_count(row.delivered),
        short_count(row.deferred),
        short_count(row.bounced),
        row.last_reply,
        short_count(row.window),
        _rate(row.rate),
    ]


def _state(row: LaneRow) -> str:
    until = moment(row.backoff_until)
    left = 0.0 if until is None else until.timestamp() - time.time()
    return row.state if left <= 0 else f"{row.state} {age(left)}"


def _rate(rate: float | None) -> str:
    return "none" if rate is None else f"{rate:g}/s"


def _describe(row: LaneRow, screen: Screen) -> list[Text]:
    facts = {
        "state": row.state + (f" until {date(row.backoff_until)}" if row.backoff_until else ""),
        "connections": f"{count(row.connections)} of {count(row.max_connections)} at most",
        "in flight": count(row.in_flight),
        "window": f"{count(row.window)} recipients in memory",
        "rate": "no limit" if row.rate is None else f"{row.rate:g} recipients a second at most",
        "delivered": f"{count(row.delivered)} since the daemon started",
        "deferred": count(row.deferred),
        "bounced": count(row.bounced),
        "last reply": row.last_reply or "none yet",
        "last peer": row.last_peer or "none yet",
    }
    lines = [Text(printable(row.lane), style="bold")]
    for name, value in facts.items():
        style = _STATE_STYLES.get(row.state, "") if name == "state" else ""
        lines += draw_facts(screen, [(name, value)], label=12, style=style)
    return lines
