"""The table of campaigns."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from mtactl.cli.screen import columns, plain, state_text
from mtactl.cli.text import number
from mtactl.control.types import CampaignReport

__all__ = ["render_campaigns"]

# In 80 columns: the id gets what the state and the counts leave.
_COUNTS = {
    "queued": "cyan",
    "in_flight": "yellow",
    "delivered": "green",
    "bounced": "red",
    "dropped": "yellow",
    "unknown": "magenta",
}
_TITLES = {"in_flight": "In flight"}


def render_campaigns(campaigns: Iterable[CampaignReport]) -> Table:
    """Give a row for each campaign. The column for unknown endings is there when there are any."""
    rows = list(campaigns)
    names = [name for name in _COUNTS if name != "unknown" or any(row.counts.unknown for row in rows)]
    titles = [_TITLES.get(name, name.capitalize()) for name in names]
    table = columns("Campaign", "State", *titles, right=tuple(titles), stretch="Campaign")
    for row in rows:
        table.add_row(plain(row.campaign), state_text(row.state), *(_count(row, name) for name in names))
    return table


def _count(report: CampaignReport, name: str) -> Text:
    count = getattr(report.counts, name)
    return Text(number(count), _COUNTS[name] if count else "dim")
