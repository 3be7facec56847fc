"""The two lines that say where one is and what can be done: the views above the table, the keys at the bottom."""

from __future__ import annotations

from rich.text import Text

from mtactl.cli.figures import count
from mtactl.cli.printable import elide, printable
from mtactl.cli.top.drawing import Part, fit
from mtactl.cli.top.snapshot import Snapshot
from mtactl.cli.top.tables import CAMPAIGN_ORDERS, LANE_ORDERS

__all__ = ["VIEWS", "draw_keys", "draw_views"]

VIEWS = ("campaigns", "lanes", "log", "halts")

_LONGEST_MATCH = 24  # columns
_KEYS = (
    (2, "h", "hold"),
    (2, "r", "release"),
    (0, "x", "halt"),
    (3, "Enter", "report"),
    (1, "/", "filter"),
    (3, "s", "sort"),
    (4, "p", "pause"),
    (0, "?", "help"),
    (0, "q", "quit"),
)


def draw_views(snapshot: Snapshot, view: str, *, sort: str | None, match: str, outcomes: bool, width: int) -> Text:
    """Name the views, with the one that is shown, its order and its filter."""
    going_on = sum(report.state == "halting" for report in snapshot.halts)
    numbers = {
        "campaigns": count(sum(snapshot.status.campaigns.values())),
        "lanes": count(snapshot.status.lanes),
        "log": "with outcomes" if outcomes else "",
        "halts": count(going_on) if going_on else "",
    }
    parts: list[Part] = []
    for number, name in enumerate(VIEWS, 1):
        title = f" {number} {name} {numbers[name]}".rstrip() + " "
        parts.append((0, Text(title, style="bold reverse" if name == view else "")))
    if sort is not None:
        orders, shown, total = (
            (CAMPAIGN_ORDERS, len(snapshot.campaigns), snapshot.campaigns_total)
            if view == "campaigns"
            else (LANE_ORDERS, len(snapshot.lanes), snapshot.lanes_total)
        )
        parts.append((2, Text(f"by {orders[sort]}", style="dim")))
        if shown < total or match:
            parts.append((3, Text(f"{count(shown)} of {count(total)}", style="dim")))
    if match:
        parts.append((1, Text(f"/{elide(printable(match), _LONGEST_MATCH)}", style="bold cyan")))
    return fit(parts, width, gap=" ")


def draw_keys(width: int) -> Text:
    """Say which key does what, as far as there is room; ? always says it all."""
    return fit([(rank, Text.assemble((key, "bold"), " ", (told, "dim"))) for rank, key, told in _KEYS], width)
