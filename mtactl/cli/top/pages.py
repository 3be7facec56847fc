"""What takes the whole screen: the panels of halts, and the report of one campaign."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from mtactl.cli.figures import plural
from mtactl.cli.report import draw_report, draw_steps
from mtactl.cli.top.canvas import Canvas
from mtactl.cli.top.rates import tell_rate
from mtactl.cli.top.snapshot import Snapshot

__all__ = ["draw_panels", "draw_report_page"]


def draw_panels(snapshot: Snapshot, match: str, canvas: Canvas) -> RenderableType:
    """Draw the halts that are under way, and those completed a moment ago, with all their steps."""
    halts = [report for report in snapshot.halts if match.lower() in report.campaign.lower()]
    if not halts:
        halted = snapshot.status.campaigns.get("halted", 0)
        told = f"{plural(halted, 'campaign')} {'was' if halted == 1 else 'were'} halted here"
        return Text(f"No halt is under way. {told}: mtactl campaigns --state halted", style="dim")
    return Group(*(draw_steps(report, canvas, frame=int(snapshot.at * 2)) for report in halts))


def draw_report_page(snapshot: Snapshot, campaign: str, banner: Text | None, canvas: Canvas) -> RenderableType:
    """Draw the report of a campaign, with its rate; `banner` says why it is not fresh."""
    report = snapshot.detail
    if report is None or report.campaign != campaign:
        return Text("Asking the daemon…" if banner is None else banner.plain, style="dim")
    rate = snapshot.campaign_rates.get(campaign) if banner is None else None
    above = [] if banner is None else [banner]
    return Group(*above, draw_report(report, canvas), Text(f"    {'rate':<12}{tell_rate(rate)}"))
