"""`mtactl campaigns` and `mtactl show`: the reports."""

from __future__ import annotations

import sys
from typing import get_args

import click

from mtactl.cli.campaigns_screen import render_campaigns
from mtactl.cli.client import Client, campaign_path
from mtactl.cli.report_screen import render_report
from mtactl.cli.screen import open_console
from mtactl.cli.session import Session, Word, verb
from mtactl.control.types import CampaignList, CampaignReport, CampaignState

__all__ = ["campaigns", "show"]


@verb("campaigns", short_help="A row for each campaign, with its counts.")
@click.option("--state", type=click.Choice(get_args(CampaignState)), help="Only campaigns in this state.")
def campaigns(session: Session, state: str | None) -> None:
    """Show a row for each campaign, with its counts."""
    query = () if state is None else (("state", state),)
    answer = Client(session.socket).get("/v1/campaigns", CampaignList, query=query)
    if session.json:
        session.document(answer.body)
    elif answer.value.campaigns:
        open_console(sys.stdout).print(render_campaigns(answer.value.campaigns))
    else:
        session.say("No campaign was seen here." if state is None else f"No campaign is {state}.")


@verb("show", short_help="The report of a campaign.")
@click.argument("campaign", type=Word())
def show(session: Session, campaign: str) -> None:
    """Show the report of CAMPAIGN: its counts, and the steps of its halt."""
    answer = Client(session.socket).get(campaign_path(campaign), CampaignReport)
    if session.json:
        session.document(answer.body)
        return
    console = open_console(sys.stdout)
    console.print(render_report(console, answer.value))
