"""`mtactl lanes`: the destinations."""

from __future__ import annotations

import sys

import click

from mtactl.cli.client import Client
from mtactl.cli.lanes_screen import render_lane, render_lanes
from mtactl.cli.screen import open_console
from mtactl.cli.session import Session, Word, verb
from mtactl.control.types import LaneList

__all__ = ["lanes"]


@verb("lanes", short_help="Destinations: connections, rate, back-off, last replies.")
@click.argument("domain", type=Word(), required=False)
def lanes(session: Session, domain: str | None) -> None:
    """Show the destinations that are in memory, or all about the one for DOMAIN."""
    query = () if domain is None else (("lane", domain),)
    answer = Client(session.socket).get("/v1/lanes", LaneList, query=query)
    rows = answer.value.lanes
    if session.json:
        session.document(answer.body)
    elif domain is None and rows:
        open_console(sys.stdout).print(render_lanes(rows))
    elif rows:
        console = open_console(sys.stdout)
        for row in rows:
            console.print(render_lane(console, row))
    else:
        session.say("No destination is in memory." if domain is None else f"No lane {domain} is in memory.")
