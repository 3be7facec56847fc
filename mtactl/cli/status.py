"""`mtactl status`: the node at a glance."""

from __future__ import annotations

import sys

from mtactl.cli.client import Client
from mtactl.cli.screen import open_console
from mtactl.cli.session import Session, verb
from mtactl.cli.status_screen import render_status
from mtactl.control.types import Status

__all__ = ["status"]


@verb("status", short_help="The node at a glance.")
def status(session: Session) -> None:
    """Show how the node is, what it has done, and which destinations are in back-off."""
    answer = Client(session.socket).get("/v1/status", Status)
    if session.json:
        session.document(answer.body)
        return
    console = open_console(sys.stdout)
    console.print(render_status(console, answer.value))
