"""mtactl reload: have the daemon read its configuration again. A bad file changes nothing and says why."""

from __future__ import annotations

import click

from mtactl.cli.printable import printable
from mtactl.cli.screen import Screen
from mtactl.cli.session import Session, takes_session
from mtactl.control.types import ReloadReport

__all__ = ["reload"]


@click.command()
@takes_session
def reload(session: Session) -> None:
    """Have the daemon read its configuration again; a bad file changes nothing and says why."""
    answer = session.client.post("/v1/reload", ReloadReport)
    if session.json:
        session.write_json(answer.raw)
        return
    report = answer.value
    screen = Screen()
    if not report.applied and not report.needs_restart:
        screen.show("Nothing has changed.")
    if report.applied:
        screen.show(f"Applied: {printable(', '.join(report.applied))}")
    if report.needs_restart:
        screen.show(f"Needs a restart of mtactld: {printable(', '.join(report.needs_restart))}")
