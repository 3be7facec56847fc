"""`mtactl reload`: re-read the configuration."""

from __future__ import annotations

from mtactl.cli.client import Client
from mtactl.cli.session import Session, verb
from mtactl.control.types import ReloadReport

__all__ = ["reload"]


@verb("reload", short_help="Re-read the configuration.")
def reload(session: Session) -> None:
    """Let mtactld re-read its configuration. A bad file changes nothing, and it is told why."""
    answer = Client(session.socket).post("/v1/reload", ReloadReport, timeout=30)
    if session.json:
        session.document(answer.body)
        return
    report = answer.value
    session.say(f"In force now: {', '.join(report.applied)}." if report.applied else "Nothing to put in force.")
    if report.needs_restart:
        session.say(f"At the next start only: {', '.join(report.needs_restart)}.")
