"""mtactl halt CAMPAIGN: nothing of the campaign begins on this node again, ever.

Shows what it is about to do, has the Campaign ID typed, asks the daemon, and follows the halt until it is completed.
From the moment that the daemon has answered, the halt is durable and goes on without this command.
"""

from __future__ import annotations

import sys
import textwrap
import time

import click
from rich.text import Text

from mtactl.cli.client import Answer, Client, campaign_path
from mtactl.cli.facts import draw_facts
from mtactl.cli.failures import ExitCode, Failure, ReaderGone, Refused, Unconfirmed, Unfinished, Unreachable
from mtactl.cli.figures import duration
from mtactl.cli.outlook import describe_outlook, look_ahead
from mtactl.cli.printable import printable
from mtactl.cli.progress import open_progress
from mtactl.cli.report import describe_open, describe_request, draw_report, summarise
from mtactl.cli.screen import Screen
from mtactl.cli.session import Session, check_campaign, takes_session
from mtactl.cli.suggestions import complete_campaign, nearest_campaigns
from mtactl.control.types import CampaignReport, HaltBody

__all__ = ["halt"]

_LOOK_TIME = 2.0  # seconds that the look before a confirmed halt may hold it up
_DURABLE_TIME = 30.0  # seconds that the record of the halt may take to be on disk
_SHORTEST, _LONGEST = 0.05, 0.25  # seconds between two looks at the report
_LEAST_PATIENCE = 0.5  # seconds for an answer, however little time is left
_ABSENCE = 10.0  # seconds that the daemon may be away, for a restart, while a halt is followed

Report = Answer[CampaignReport]


@click.command()
@click.argument("campaign", callback=check_campaign, shell_complete=complete_campaign("active", "held", "halting"))
@click.option("--confirm", metavar="CAMPAIGN", help="The Campaign ID again, in place of typing it.")
@click.option("--reason", metavar="TEXT", help="Why; it is kept with the halt.")
@click.option("--no-wait", is_flag=True, help="End as soon as the halt is durable.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="Wait for so many seconds at most.")
@takes_session
def halt(
    session: Session, *, campaign: str, confirm: str | None, reason: str | None, no_wait: bool, timeout: float | None
) -> None:
    """Stop a campaign for ever: nothing of it begins on this node again.

    What is queued is dropped; what is in flight finishes and is counted. It can't be undone, and works for a campaign
    that was never seen here, too. Without a terminal, --confirm is needed.
    """
    screen = Screen(errors=True)
    may_ask = sys.stdin.isatty() and screen.is_terminal
    _check_confirm(campaign, confirm, may_ask=may_ask)
    client = session.client
    before = _look(client, campaign, confirmed=confirm is not None)
    if before is not None and _is_recorded(before.value) and confirm is None:
        answer = before
    else:
        if confirm is None:
            _ask(screen, client, campaign, None if before is None else before.value)
        answer = _send(client, campaign, reason)
    since = time.monotonic()
    if before is not None and _is_recorded(before.value) and before.value.stop is not None:
        done = "is halted already" if before.value.state == "halted" else "is being halted already"
        session.tell(f"{campaign} {done}, {describe_request(before.value.stop)}")
    if not no_wait and answer.value.state != "halted":
        deadline = None if timeout is None else since + timeout
        answer, failure = _follow(client, answer, deadline, screen=screen, session=session)
        if failure is not None:
            _print(session, answer)
            raise failure
    _print(session, answer)


def _check_confirm(campaign: str, confirm: str | None, *, may_ask: bool) -> None:
    """See that the halt is confirmed, or can be. Raises Unconfirmed before anything is sent."""
    if confirm is None and not may_ask:
        raise Unconfirmed(
            "a halt can't be undone, and without a terminal there is no one to ask. Nothing was halted.",
            f"To go on: mtactl halt {campaign} --confirm {campaign}",
        )
    if confirm is not None and confirm != campaign:
        raise Unconfirmed(f"--confirm says {confirm!r}, but the campaign is {campaign!r}. Nothing was halted.")


def _look(client: Client, campaign: str, *, confirmed: bool) -> Report | None:
    """Give the report as it is; None when the daemon has none, or can't tell: that hinders no confirmed halt."""
    try:
        return client.get(campaign_path(campaign), CampaignReport, patience=_LOOK_TIME if confirmed else None)
    except Unreachable as failure:
        if not (confirmed and failure.asked):
            raise
        return None
    except Refused as refused:
        if refused.code == ExitCode.NOT_PERMITTED:
            raise
        return None


def _is_recorded(report: CampaignReport) -> bool:
    """Whether a halt is durable: one that could not be recorded has to be asked for again."""
    return any(step.name == "recorded" and step.at is not None for step in report.steps)


def _ask(screen: Screen, client: Client, campaign: str, report: CampaignReport | None) -> None:
    """Say what is about to happen and have the Campaign ID typed. Raises Unconfirmed."""
    question = f"A halt can't be undone. Type the Campaign ID to go on ({campaign}): "
    try:
        _tell(screen, client, campaign, report)
        sys.stderr.write(question)
        sys.stderr.flush()
        line = sys.stdin.readline()
    except (KeyboardInterrupt, UnicodeDecodeError):
        line = ""
    if not line.endswith("\n"):
        screen.show("")
    typed = line.strip()
    if typed != campaign:
        why = f"what was typed is not {campaign!r}" if typed else "no Campaign ID was typed"
        raise Unconfirmed(f"{why}. Nothing was halted.")


def _tell(screen: Screen, client: Client, campaign: str, report: CampaignReport | None) -> None:
    """Say what goes on and what a halt will change."""
    if report is None:
        screen.show(f"{campaign} has not been seen on this node.")
        if near := nearest_campaigns(client, campaign):
            screen.show(Text(f"Did you mean {' or '.join(printable(name) for name in near)}?", style="bold yellow"))
        screen.show("It can be halted all the same: its mail will be refused.")
        return
    screen.show(
        *textwrap.wrap(
            printable(summarise(report)), max(20, screen.width), subsequent_indent="  ", break_on_hyphens=False
        )
    )
    screen.show(*draw_facts(screen, describe_outlook(look_ahead(client, report)), label=11))


def _send(client: Client, campaign: str, reason: str | None) -> Report:
    """Ask for the halt and wait until it is durable."""
    body = HaltBody(confirm=campaign, reason=reason)
    try:
        return client.post(campaign_path(campaign, "halt"), CampaignReport, body, patience=_DURABLE_TIME)
    except KeyboardInterrupt:
        lost = Unreachable("interrupted before the daemon had answered", *_after_doubt(campaign))
        raise lost from None
    except Unreachable as failure:
        if not failure.asked:
            raise
        raise Unreachable(failure.sentence, *failure.hints, *_after_doubt(campaign)) from failure


def _after_doubt(campaign: str) -> tuple[str, ...]:
    return (f"Whether the halt was recorded is not known: mtactl show {campaign}. Halting again does no harm.",)


def _follow(
    client: Client, answer: Report, deadline: float | None, *, screen: Screen, session: Session
) -> tuple[Report, Failure | None]:
    """Look at the report until the halt is completed; give the last one, and why it is not completed."""
    campaign = answer.value.campaign
    pause, seen = _SHORTEST, time.monotonic()
    goes_on = f"The halt is recorded and goes on: mtactl show {campaign} looks, mtactl halt {campaign} watches again."
    try:
        with open_progress(screen, wanted=not session.json or screen.is_live) as progress:
            while True:
                progress.update(answer.value)
                if answer.value.state == "halted":
                    return answer, None
                now = time.monotonic()
                if deadline is not None and now >= deadline:
                    still = f"not completed in the time given, still open: {describe_open(answer.value.counts)}"
                    return answer, Unfinished(still, goes_on)
                time.sleep(pause if deadline is None else min(pause, max(0.0, deadline - now)))
                pause = min(pause * 1.2, _LONGEST)
                left = _ABSENCE if deadline is None else deadline - time.monotonic()
                try:
                    answer = client.get(
                        campaign_path(campaign), CampaignReport, patience=min(max(left, _LEAST_PATIENCE), _ABSENCE)
                    )
                    seen = time.monotonic()
                except (Unreachable, Refused) as lost:
                    if lost.code == ExitCode.NOT_PERMITTED:
                        raise
                    away = time.monotonic() - seen
                    if away >= _ABSENCE:
                        gone = f"the daemon was away for {duration(away)} while the halt went on: {lost.sentence}"
                        return answer, Unreachable(gone, *lost.hints, f"The halt is recorded: {campaign} stays halted.")
    except KeyboardInterrupt:
        open_now = describe_open(answer.value.counts)
        return answer, Unfinished(f"no longer watching, still open: {open_now}", goes_on)


def _print(session: Session, answer: Report) -> None:
    """Print the report. That no one reads it changes nothing about the halt."""
    try:
        if session.json:
            session.write_json(answer.raw)
        else:
            screen = Screen()
            screen.show(draw_report(answer.value, screen))
    except ReaderGone:
        return
