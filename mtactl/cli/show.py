"""mtactl show CAMPAIGN: the campaign report, on the screen or as a page to hand on.

What the report counts is there at once; when, where to and with which replies is counted by the daemon when it is
asked, which takes some seconds for a million recipients. So the report is shown first.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from mtactl.cli.client import Answer, campaign_path
from mtactl.cli.failures import Failure
from mtactl.cli.figures import count
from mtactl.cli.report import draw_report
from mtactl.cli.screen import Screen
from mtactl.cli.session import Session, check_campaign, takes_session
from mtactl.cli.suggestions import complete_campaign
from mtactl.control.types import CampaignAnalysis, CampaignReport

__all__ = ["show"]

_ANALYSIS_TIME = 300.0  # seconds for the daemon to count many millions
_MANY = 200_000  # recipients whose counting takes long enough to say that it goes on


@click.command()
@click.argument("campaign", callback=check_campaign, shell_complete=complete_campaign())
@click.option(
    "--analysis/--brief",
    default=None,
    help="With or without times, destinations and replies. Without either: with them, but for --json.",
)
@click.option("--top", type=click.IntRange(1, 50), default=10, show_default=True, metavar="N", help="So many lanes.")
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write the report as one HTML page that needs nothing else; - for the standard output.",
)
@takes_session
def show(session: Session, *, campaign: str, analysis: bool | None, top: int, page: str | None) -> None:
    """Show the report of a campaign: the steps of its halt, its counts, and what became of its mail.

    Below the counts are the deliveries by the clock (around the stop, if there was one), the destinations with the most
    recipients, and the replies seen most: in them a `*` stands for what differs from one recipient to the next.
    """
    if page is not None and session.json:
        raise click.UsageError("--json and --html are two things; choose one.")
    report = session.client.get(campaign_path(campaign), CampaignReport)
    if page is not None:
        found = None if analysis is False else _analyse(session, report.value)
        _write_page(session, page, report.value, None if found is None else found.value, top)
    elif session.json:
        session.write_json(_combine(report, _analyse(session, report.value)) if analysis else report.raw)
    else:
        screen = Screen()
        screen.show(draw_report(report.value, screen))
        if analysis is not False:
            from mtactl.cli.analysis import draw_analysis  # noqa: PLC0415  not for --json

            found = _analyse(session, report.value)
            screen.show(*draw_analysis(found.value, report.value, screen, top=top))


def _analyse(session: Session, report: CampaignReport) -> Answer[CampaignAnalysis]:
    with _waiting(report):
        path = campaign_path(report.campaign, "analysis")
        return session.client.get(path, CampaignAnalysis, patience=_ANALYSIS_TIME)


@contextlib.contextmanager
def _waiting(report: CampaignReport) -> Iterator[None]:
    """Say on a terminal that something goes on, where it takes a while."""
    screen = Screen(errors=True)
    if report.counts.accepted < _MANY or not screen.is_live:
        yield
        return
    with screen.console.status(f"counting {count(report.counts.accepted)} recipients"):
        yield


def _combine(report: Answer[CampaignReport], analysis: Answer[CampaignAnalysis]) -> bytes:
    """Give the report with the analysis as one more member."""
    members = msgspec.json.decode(report.raw, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({**members, "analysis": msgspec.Raw(analysis.raw.strip())})


def _write_page(
    session: Session, path: str, report: CampaignReport, analysis: CampaignAnalysis | None, top: int
) -> None:
    """Write the page, whole or not at all. Raises Failure."""
    from mtactl.cli.page import draw_page  # noqa: PLC0415  for --html only

    octets = draw_page(report, analysis, top=top).encode("utf-8", "backslashreplace")
    if path == "-":
        session.write(octets)
        return
    target = Path(path)
    try:
        if target.exists() and not target.is_file():  # /dev/stdout and its like
            target.write_bytes(octets)
            return
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(octets)
            mask = os.umask(0)
            os.umask(mask)
            Path(name).chmod(0o666 & ~mask)
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Failure(f"{path} can't be written: {error.strerror or error}") from error
    session.tell(f"Written: {path}")
