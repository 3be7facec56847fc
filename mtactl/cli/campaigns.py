"""mtactl campaigns: a row for each."""

from __future__ import annotations

from typing import get_args

import click

from mtactl.cli.figures import short_count
from mtactl.cli.report import STATE_STYLES
from mtactl.cli.screen import Screen
from mtactl.cli.session import Session, takes_session
from mtactl.cli.table import Cell, Column, Table
from mtactl.control.types import CampaignList, CampaignReport, CampaignState

__all__ = ["campaigns"]

_COLUMNS = (
    Column(title="campaign", least=12),
    Column(title="state"),
    Column(title="accepted", right=True, optional=True),
    Column(title="queued", right=True),
    Column(title="flying", right=True, optional=True),
    Column(title="delivered", right=True),
    Column(title="failed", right=True, optional=True),
    Column(title="dropped", right=True),
    Column(title="after stop", right=True, optional=True),
    Column(title="unknown", right=True, optional=True),
    Column(title="refused", right=True, optional=True),
)


@click.command()
@click.option("--state", type=click.Choice(get_args(CampaignState)), help="Only campaigns in this state.")
@takes_session
def campaigns(session: Session, *, state: str | None) -> None:
    """Show a row for each campaign, with its counts in recipients.

    `failed` is bounced and expired; `after stop` is what was delivered after the gate closed.
    """
    answer = session.client.get("/v1/campaigns", CampaignList, state=state)
    if session.json:
        session.write_json(answer.raw)
    elif answer.value.campaigns:
        Table(Screen(), _COLUMNS).show(_row(report) for report in answer.value.campaigns)
    else:
        session.tell("No campaign was seen on this node." if state is None else f"No campaign is {state}.")


def _row(report: CampaignReport) -> list[Cell]:
    counts = report.counts
    return [
        report.campaign,
        (report.state, STATE_STYLES.get(report.state, "")),
        short_count(counts.accepted),
        short_count(counts.queued),
        short_count(counts.in_flight),
        short_count(counts.delivered),
        short_count(counts.bounced + counts.expired),
        short_count(counts.dropped),
        short_count(counts.delivered_after_stop),
        short_count(counts.unknown),
        short_count(counts.refused),
    ]
