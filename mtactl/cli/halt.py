"""`mtactl halt`, also called `stop` and `cancel`: nothing of a campaign begins on this node again, ever.

What is in the way of a confirmed halt is kept small: the look at the campaign before it may fail or be slow, and a
stderr that no one reads is no reason not to halt.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import click

from mtactl.cli.client import Answer, Client, campaign_path
from mtactl.cli.failures import Failure, NotCompleted, NotConfirmed, NotPermitted, Refused, Unreachable
from mtactl.cli.halt_screen import Progress, open_progress, render_plan
from mtactl.cli.report_screen import halted_by, render_report
from mtactl.cli.screen import open_console
from mtactl.cli.session import Session, Word, verb
from mtactl.cli.text import number, plural
from mtactl.control.types import CampaignReport, HaltBody

__all__ = ["halt"]

_LOOK = 2.0  # seconds that the look before a confirmed halt may take
_DURABLE = 30.0  # seconds that a disk may take for an fsync
_SOONEST, _LATEST = 0.05, 0.25  # seconds between two looks at the progress
_AWAY = 10.0  # seconds that mtactld may be away, for a restart, while the progress is followed


@verb("halt", short_help="Stop a campaign for ever. Also: stop, cancel.")
@click.argument("campaign", type=Word())
@click.option("--confirm", metavar="CAMPAIGN", help="The campaign's id again, instead of typing it.")
@click.option("--reason", type=Word(), metavar="TEXT", help="Why; kept with the halt.")
@click.option("--no-wait", is_flag=True, help="End as soon as the halt is durable.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait that long for the halt to complete."
)
def halt(
    session: Session, campaign: str, confirm: str | None, reason: str | None, no_wait: bool, timeout: float | None
) -> None:
    """Stop CAMPAIGN for ever: nothing of it begins on this node again, and what is queued of it is dropped.

    What is in flight finishes. It can't be undone: see `mtactl hold` for what can. Asks for the id to be typed, unless
    --confirm has it. Ends with the report, once nothing is queued or in flight; with exit code 5 if the time given
    ends before.
    """
    if confirm is not None:
        _check(campaign, confirm)
    elif not session.can_ask:
        raise NotConfirmed(
            f"Nothing was halted: there is no terminal to ask on. To halt {campaign}, add --confirm {campaign}."
        )
    client = Client(session.socket)
    before = _look(client, campaign, must=confirm is None)
    if before is not None and before.stop is not None:
        session.note(f"{campaign} is {before.state} already: asked for by {halted_by(before.stop)}.")
    else:
        _tell_plan(campaign, before)
        if confirm is None:
            _check(campaign, session.ask("Type the Campaign ID to halt it:"))
    answer = _send(client, campaign, reason, timeout)
    if not no_wait:
        answer = _follow(session, client, answer, timeout)
    _show(session, answer)


def _check(campaign: str, typed: str) -> None:
    if typed != campaign:
        what = f"{typed!r} is not {campaign!r}" if typed else "the Campaign ID was not typed"
        raise NotConfirmed(f"Nothing was halted: {what}.")


def _look(client: Client, campaign: str, *, must: bool) -> CampaignReport | None:
    """Give the campaign's report, or None when it was not seen here, or can't be had and need not."""
    try:
        return client.get(campaign_path(campaign), CampaignReport, timeout=None if must else _LOOK).value
    except Refused as refused:
        if must and refused.kind != "unknown-campaign":
            raise
        return None
    except (Unreachable, NotPermitted):
        if must:
            raise
        return None


def _tell_plan(campaign: str, report: CampaignReport | None) -> None:
    console = open_console(sys.stderr)
    try:
        console.print(render_plan(console, campaign, report))
    except OSError:
        return


def _send(client: Client, campaign: str, reason: str | None, timeout: float | None) -> Answer[CampaignReport]:
    limit = _DURABLE if timeout is None else min(_DURABLE, max(timeout, 5.0))
    body = HaltBody(confirm=campaign, reason=reason)
    try:
        return client.post(campaign_path(campaign, "halt"), CampaignReport, body=body, timeout=limit)
    except Unreachable as failure:
        failure.details += (f"Whether {campaign} is halted is not known. Run the command again: it does no harm.",)
        raise
    except KeyboardInterrupt:
        raise Unreachable(
            f"Interrupted before mtactld answered. It may have halted {campaign} or not: `mtactl show {campaign}` tells."
        ) from None


def _follow(
    session: Session, client: Client, answer: Answer[CampaignReport], timeout: float | None
) -> Answer[CampaignReport]:
    """Show the progress until the halt is completed; give the last report. Raises NotCompleted, after showing it."""
    started = time.monotonic()
    pause = _SOONEST
    try:
        with open_progress(session) as progress:
            progress.show(answer.value)
            while not _is_completed(answer.value):
                left = float("inf") if timeout is None else started + timeout - time.monotonic()
                if left <= 0:
                    break
                time.sleep(min(pause, left))
                pause = min(pause * 1.3, _LATEST)
                answer = _patiently(client, answer, progress, lambda: left)
                progress.show(answer.value)
    except KeyboardInterrupt:
        _show(session, answer)
        raise NotCompleted(
            f"The halt goes on without you: {_open_part(answer.value)}.",
            details=(f"`mtactl show {answer.value.campaign}` tells how far it is.",),
        ) from None
    if not _is_completed(answer.value):
        _show(session, answer)
        assert timeout is not None
        raise NotCompleted(f"Halted, but not completed within {timeout:g} s: {_open_part(answer.value)}. It goes on.")
    return answer
