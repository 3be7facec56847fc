"""mtactl hold CAMPAIGN and mtactl release CAMPAIGN: the reversible pair."""

from __future__ import annotations

import click

from mtactl.cli.client import campaign_path
from mtactl.cli.figures import count
from mtactl.cli.screen import Screen
from mtactl.cli.session import Session, check_campaign, takes_session
from mtactl.cli.suggestions import complete_campaign
from mtactl.control.types import CampaignReport

__all__ = ["hold", "release"]


@click.command()
@click.argument("campaign", callback=check_campaign, shell_complete=complete_campaign("active"))
@takes_session
def hold(session: Session, *, campaign: str) -> None:
    """Let nothing of a campaign begin, and drop nothing, until it is released.

    It works for a campaign that was not seen yet, too: its mail is then taken and kept.
    """
    report = _command(session, campaign, "hold")
    if report is not None:
        counts = report.counts
        Screen().show(f"{campaign} is held: {count(counts.queued)} queued, {count(counts.in_flight)} in flight.")


@click.command()
@click.argument("campaign", callback=check_campaign, shell_complete=complete_campaign("held"))
@takes_session
def release(session: Session, *, campaign: str) -> None:
    """Let a held campaign go on; one that is active stays as it is."""
    report = _command(session, campaign, "release")
    if report is not None:
        Screen().show(f"{campaign} is {report.state}: {count(report.counts.queued)} queued may go out.")


def _command(session: Session, campaign: str, verb: str) -> CampaignReport | None:
    """Do it; give the report if it is to be told in words."""
    answer = session.client.post(campaign_path(campaign, verb), CampaignReport)
    if session.json:
        session.write_json(answer.raw)
        return None
    return answer.value
