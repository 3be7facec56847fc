"""mtactl top: a live screen of the node; with --json a line for each look at it."""

from __future__ import annotations

import os
import sys
import time

import click

from mtactl.cli.failures import Failure, Unreachable
from mtactl.cli.figures import duration
from mtactl.cli.session import Session, takes_session
from mtactl.cli.top.snapshot import Poller, Snapshot, Wanted

__all__ = ["top"]

_ABSENCE = 10.0  # seconds that the daemon may be away while lines are written


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(min=0.2, max=3600),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks.",
)
@takes_session
def top(session: Session, *, interval: float) -> None:
    """Watch the node live: rates, campaigns by their queue, lanes, halts in progress, what happens.

    Keys: ? for help, / to filter, s to sort, h to hold, r to release, x to halt (the Campaign ID has to be typed), q to
    quit. A daemon that goes away is waited for. It needs a terminal; with --json it prints a line of JSON every
    --interval seconds instead, until Ctrl-C, and ends when the daemon stays away. In it are the status, rates in
    recipients a second (null while they are not known), the 200 campaigns with the longest queues, the 200 busiest
    lanes, and the halts.
    """
    if session.json:
        session.streams = True
        _write_lines(session, interval)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        raise click.UsageError("top is a live screen and needs a terminal; for a program there is mtactl --json top")
    if os.environ.get("TERM", "") in {"", "dumb", "unknown"}:
        raise click.UsageError("this terminal (TERM) can't show a live screen; try mtactl --json top")
    _show(session, interval)


def _show(session: Session, interval: float) -> None:
    """Show the screen until it is left. A daemon that is not there to begin with is a failure, as everywhere."""
    client = session.client
    poller = Poller(client)
    first = poller.poll(Wanted())
    if not os.environ.get("NO_COLOR"):
        os.environ.pop("NO_COLOR", None)  # set, but empty: textual takes that for a wish
    from mtactl.cli.top.app import TopApp  # noqa: PLC0415  (a tenth of a second, for this verb alone)

    app = TopApp(client, poller, first, interval=interval)
    app.run(mouse=False)  # so that text can be marked and copied as anywhere
    for campaign in app.unanswered:
        raise Unreachable(
            f"left before the daemon had answered the halt of {campaign}",
            f"Whether it was recorded is not known: mtactl show {campaign}. Halting again does no harm.",
        )
    if app.return_code:
        raise SystemExit(app.return_code)


def _write_lines(session: Session, interval: float) -> None:
    poller = Poller(session.client)
    wanted = Wanted(lanes=True)
    seen: float | None = None
    due = time.monotonic()
    while True:
        snapshot: Snapshot | None = None
        try:
            snapshot = poller.poll(wanted)
        except Failure as failure:
            now = time.monotonic()
            if seen is None:
                raise
            if now - seen >= _ABSENCE + interval:
                raise Unreachable(f"the daemon was away for {duration(now - seen)}: {failure.sentence}") from failure
        else:
            seen = time.monotonic()
            session.write_json(snapshot.document())
        due = max(due + interval, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
