"""`mtactl hold` and `mtactl release`: the reversible pair."""

from __future__ import annotations

import click

from mtactl.cli.client import Client, campaign_path
from mtactl.cli.session import Session, Word, verb
from mtactl.cli.text import plural
from mtactl.control.types import CampaignReport

__all__ = ["hold", "release"]


@verb("hold", short_help="Let nothing of a campaign begin, until it is released.")
@click.argument("campaign", type=Word())
def hold(session: Session, campaign: str) -> None:
    """Let nothing of CAMPAIGN begin until it is released. Nothing is dropped.

    Works for a campaign that was not seen yet, too.
    """
    answer = Client(session.socket).post(campaign_path(campaign, "hold"), CampaignReport)
    if session.json:
        session.document(answer.body)
        return
    counts = answer.value.counts
    flying = f", {plural(counts.in_flight, 'recipient')} in flight will finish" if counts.in_flight else ""
    session.say(
        f"{campaign} is held: {plural(counts.queued, 'recipient')} will wait{flying}.",
        f"`mtactl release {campaign}` lets it go on.",
    )


@verb("release", short_help="Let a held campaign go on.")
@click.argument("campaign", type=Word())
def release(session: Session, campaign: str) -> None:
    """Let the held CAMPAIGN go on."""
    answer = Client(session.socket).post(campaign_path(campaign, "release"), CampaignReport)
    if session.json:
        session.document(answer.body)
        return
    session.say(f"{campaign} goes on: {plural(answer.value.counts.queued, 'recipient')} in the queue.")
