"""The rows of the live screen: campaigns and lanes, laid out in the width that there is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.text import Text

from mtactl.cli.figures import short_count
from mtactl.cli.lanes import lane_cells
from mtactl.cli.report import STATE_STYLES
from mtactl.cli.table import Cell, Column, Table
from mtactl.cli.top.canvas import Canvas
from mtactl.cli.top.rates import tell_rate
from mtactl.cli.top.snapshot import Snapshot
from mtactl.control.types import CampaignReport, LaneRow

__all__ = ["CAMPAIGN_ORDERS", "LANE_ORDERS", "Rows", "lay_out_campaigns", "lay_out_lanes"]

# An order, and the title of the column that shows it.
CAMPAIGN_ORDERS = {
    "queued": "queued",
    "in_flight": "flying",
    "rate": "rate",
    "delivered": "delivered",
    "delivered_after_stop": "after stop",
    "bounced": "bounced",
    "name": "campaign",
}
LANE_ORDERS = {
    "in_flight": "flying",
    "rate": "rate",
    "window": "window",
    "backoff": "state",
    "deferred": "deferred",
    "bounced": "bounced",
    "name": "lane",
}
_RATE = 8  # columns, so that the table stands still while it changes

_CAMPAIGN_COLUMNS = (
    Column(title="campaign", least=20),
    Column(title="state"),
    Column(title="queued", right=True),
    Column(title="flying", right=True, optional=True),
    Column(title="delivered", right=True, optional=True),
    Column(title="rate", right=True, optional=True),
    Column(title="after stop", right=True, optional=True),
    Column(title="bounced", right=True, optional=True),
    Column(title="dropped", right=True, optional=True),
    Column(title="unknown", right=True, optional=True),
    Column(title="refused", right=True, optional=True),
    Column(title="accepted", right=True, optional=True),
)
_LANE_COLUMNS = (
    Column(title="lane", least=16),
    Column(title="state"),
    Column(title="conns", right=True, optional=True),
    Column(title="flying", right=True, optional=True),
    Column(title="window", right=True, optional=True),
    Column(title="rate", right=True, optional=True),
    Column(title="last reply", least=14, optional=True, middle=False, style="dim"),
    Column(title="deferred", right=True, optional=True),
    Column(title="bounced", right=True, optional=True),
    Column(title="delivered", right=True, optional=True),
    Column(title="limit", right=True, optional=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A table that is laid out: its titles, and each row with the id of what it is about."""

    titles: Text
    keys: Sequence[str]
    lines: Sequence[Text]


def lay_out_campaigns(snapshot: Snapshot, sort: str, columns: int) -> Rows:
    """Lay out the campaigns; what is no rate for want of a second reading is "-"."""
    rows = [(each.campaign, _campaign_cells(each, snapshot)) for each in snapshot.campaigns]
    return _lay_out(_marked(_CAMPAIGN_COLUMNS, CAMPAIGN_ORDERS[sort]), rows, columns)


def lay_out_lanes(snapshot: Snapshot, sort: str, columns: int) -> Rows:
    """Lay out the lanes."""
    rows = [(each.lane, _lane_cells(each, snapshot)) for each in snapshot.lanes]
    return _lay_out(_marked(_LANE_COLUMNS, LANE_ORDERS[sort]), rows, columns)


def _marked(columns: Sequence[Column], title: str) -> list[Column]:
    """Mark the column that the rows are sorted by."""
    return [replace(column, title=f"{title}*") if column.title == title else column for column in columns]


def _lay_out(columns: Sequence[Column], rows: Iterable[tuple[str, Sequence[Cell]]], width: int) -> Rows:
    keyed = list(rows)
    canvas = Canvas(width)
    Table(canvas, columns).show([cells for _, cells in keyed])
    titles, *lines = canvas.lines
    return Rows(titles=titles, keys=[key for key, _ in keyed], lines=lines)


def _campaign_cells(report: CampaignReport, snapshot: Snapshot) -> list[Cell]:
    counts = report.counts
    return [
        report.campaign,
        (report.state, STATE_STYLES.get(report.state, "")),
        short_count(counts.queued),
        short_count(counts.in_flight),
        short_count(counts.delivered),
        f"{tell_rate(snapshot.campaign_rates.get(report.campaign)):>{_RATE}}",
        (short_count(counts.delivered_after_stop), "yellow" if counts.delivered_after_stop else "dim"),
        (short_count(counts.bounced), "" if counts.bounced else "dim"),
        (short_count(counts.dropped), "" if counts.dropped else "dim"),
        (short_count(counts.unknown), "bold red" if counts.unknown else "dim"),
        (short_count(counts.refused), "" if counts.refused else "dim"),
        short_count(counts.accepted),
    ]


def _lane_cells(row: LaneRow, snapshot: Snapshot) -> list[Cell]:
    name, state, connections, flying, delivered, deferred, bounced, reply, window, limit = lane_cells(row)
    rate = f"{tell_rate(snapshot.lane_rates.get(row.lane)):>{_RATE}}"
    return [name, state, connections, flying, window, rate, reply, deferred, bounced, delivered, limit]
