"""mtactl queue ls, show, retry and drop: the queue itself."""

from __future__ import annotations

import sys
import time
from typing import get_args

import click
from rich.text import Text

from mtactl.cli.client import message_path
from mtactl.cli.facts import draw_facts
from mtactl.cli.failures import Unconfirmed
from mtactl.cli.figures import age, date, moment, plural, size
from mtactl.cli.printable import printable
from mtactl.cli.screen import Screen
from mtactl.cli.session import Session, check_campaign, check_filled, takes_session
from mtactl.cli.suggestions import complete_campaign, complete_lane
from mtactl.cli.table import Cell, Column, Table
from mtactl.cli.verbs import VerbGroup
from mtactl.control.types import (
    QueueChanged,
    QueueList,
    QueueMessage,
    QueueRecipient,
    QueueSelection,
    QueueState,
    RecipientRow,
)

__all__ = ["queue"]

_STATE_STYLES = {"in_flight": "green", "deferred": "yellow", "scheduled": "cyan", "held": "bold yellow"}

_QUEUE_COLUMNS = (
    Column(title="message"),
    Column(title="state"),
    Column(title="recipient", least=16),
    Column(title="campaign", least=8),
    Column(title="tries", right=True, optional=True),
    Column(title="age", right=True),
    Column(title="due", right=True),
    Column(title="last reply", least=16, optional=True, middle=False, style="dim"),
    Column(title="size", right=True, optional=True),
    Column(title="sender", least=12, optional=True),
)
_WAITING_COLUMNS = (
    Column(title="recipient", least=16),
    Column(title="state"),
    Column(title="tries", right=True),
    Column(title="due", right=True),
    Column(title="last reply", least=16, optional=True, middle=False, style="dim"),
)
_SETTLED_COLUMNS = (
    Column(title="recipient", least=16),
    Column(title="outcome"),
    Column(title="tries", right=True),
    Column(title="at"),
    Column(title="reply", least=16, optional=True, middle=False, style="dim"),
)

_campaign_option = click.option(
    "--campaign",
    callback=check_campaign,
    metavar="C",
    help="Only this campaign.",
    shell_complete=complete_campaign("active", "held", "halting"),
)
_domain_option = click.option(
    "--domain", callback=check_filled, metavar="D", help="Only this destination.", shell_complete=complete_lane
)


@click.group(cls=VerbGroup)
def queue() -> None:
    """Look at the queue, and change what is in it."""


@queue.command("ls")
@_campaign_option
@_domain_option
@click.option("--state", type=click.Choice(get_args(QueueState)), help="Only this state.")
@click.option("--limit", type=click.IntRange(1, 100_000), metavar="N", help="So many at most; 1,000 if not given.")
@takes_session
def list_queue(
    session: Session, *, campaign: str | None, domain: str | None, state: str | None, limit: int | None
) -> None:
    """List recipients that wait or are in flight, the oldest first."""
    answer = session.client.get("/v1/queue", QueueList, campaign=campaign, domain=domain, state=state, limit=limit)
    if session.json:
        session.write_json(answer.raw)
        return
    rows = answer.value.recipients
    if not rows:
        session.tell("Nothing of that kind is in the queue." if campaign or domain or state else "The queue is empty.")
        return
    now = time.time()
    Table(Screen(), _QUEUE_COLUMNS).show(_queue_cells(row, now) for row in rows)
    if answer.value.truncated:
        session.tell(f"There are more than these {plural(len(rows), 'recipient')}: --limit N, up to 100,000.")


@queue.command("show")
@click.argument("queue_id", metavar="ID", callback=check_filled)
@takes_session
def show_message(session: Session, *, queue_id: str) -> None:
    """Show one message: its recipients that wait and those that have an outcome."""
    answer = session.client.get(message_path(queue_id), QueueMessage)
    if session.json:
        session.write_json(answer.raw)
        return
    screen = Screen()
    message = answer.value
    screen.show(*_describe(message, screen))
    now = time.time()
    if message.waiting:
        screen.show("")
        Table(screen, _WAITING_COLUMNS).show(_waiting_cells(row, now) for row in message.waiting)
    if message.settled:
        screen.show("")
        Table(screen, _SETTLED_COLUMNS).show(_settled_cells(row) for row in message.settled)


@queue.command("retry")
@_campaign_option
@_domain_option
@click.option("--id", "queue_id", callback=check_filled, metavar="ID", help="Only this message.")
@takes_session
def retry(session: Session, *, campaign: str | None, domain: str | None, queue_id: str | None) -> None:
    """Make deferred recipients ready now, all or those that are meant, and end the back-off of their destinations."""
    selection = QueueSelection(campaign=campaign, domain=domain, id=queue_id)
    answer = session.client.post("/v1/queue/retry", QueueChanged, selection)
    if session.json:
        session.write_json(answer.raw)
    else:
        Screen().show(f"{plural(answer.value.recipients, 'recipient')} made ready.")


@queue.command("drop")
@click.option(
    "--domain",
    callback=check_filled,
    metavar="D",
    help="Recipients at this destination.",
    shell_complete=complete_lane,
)
@click.option("--sender", metavar="A", help="Mail from this reverse-path; <> for the empty one.")
@click.option("--id", "queue_id", callback=check_filled, metavar="ID", help="The recipients of this message.")
@click.option("--confirm", is_flag=True, help="Do it without asking; needed where there is no terminal.")
@takes_session
def drop(session: Session, *, domain: str | None, sender: str | None, queue_id: str | None, confirm: bool) -> None:
    """Drop queued recipients: they count as dropped, and nobody gets a bounce. What is in flight is not touched.

    One of --domain, --sender and --id is needed; where more are given, all must fit. To stop a campaign: mtactl halt.
    """
    if domain is None and sender is None and queue_id is None:
        raise click.UsageError("One of --domain, --sender and --id is needed.")
    if sender == "":
        raise click.BadParameter("it is empty; the empty reverse-path is <>", param_hint="'--sender'")
    if not confirm:
        _ask(domain=domain, sender=sender, queue_id=queue_id)
    selection = QueueSelection(domain=domain, sender=sender, id=queue_id)
    answer = session.client.post("/v1/queue/drop", QueueChanged, selection)
    if session.json:
        session.write_json(answer.raw)
    else:
        Screen().show(f"{plural(answer.value.recipients, 'recipient')} dropped.")


def _ask(*, domain: str | None, sender: str | None, queue_id: str | None) -> None:
    """Have it confirmed with a y. Raises Unconfirmed."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Unconfirmed(
            "a drop can't be undone, and without a terminal there is no one to ask. Nothing was dropped.",
            "To go on, add --confirm.",
        )
    meant = [f"to {domain}" if domain else "", f"from {sender}" if sender else "", f"of {queue_id}" if queue_id else ""]
    what = printable(" ".join(filter(None, meant)))
    try:
        sys.stderr.write(f"Drop all queued recipients {what}? It can't be undone. [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
    except (KeyboardInterrupt, UnicodeDecodeError):
        answer = ""
    if not answer.endswith("\n"):
        Screen(errors=True).show("")
    if answer.strip().lower() not in {"y", "yes"}:
        raise Unconfirmed("not confirmed. Nothing was dropped.")


def _queue_cells(row: QueueRecipient, now: float) -> list[Cell]:
    return [
        row.message,
        (row.state.replace("_", " "), _STATE_STYLES.get(row.state, "")),
        row.recipient,
        row.campaign or "-",
        str(row.attempts),
        _age(row.arrived_at, now),
        _due(row.due_at, now),
        row.last_reply,
        size(row.size),
        row.sender or "<>",
    ]


def _waiting_cells(row: QueueRecipient, now: float) -> list[Cell]:
    state = (row.state.replace("_", " "), _STATE_STYLES.get(row.state, ""))
    return [row.recipient, state, str(row.attempts), _due(row.due_at, now), row.last_reply]


def _settled_cells(row: RecipientRow) -> list[Cell]:
    outcome = row.outcome + (" after stop" if row.after_stop else "")
    reply = f"{row.code} {row.reply}" if row.code is not None else row.reply
    return [row.recipient, outcome, str(row.attempts), date(row.at)[:19], reply]


def _describe(message: QueueMessage, screen: Screen) -> list[Text]:
    counted = f"{plural(len(message.waiting), 'recipient')} waiting, {len(message.settled)} done"
    lines = [Text.assemble((printable(message.message), "bold"), f"  {counted}")]
    if message.waiting:
        first = message.waiting[0]
        facts = {
            "campaign": first.campaign or "-",
            "sender": first.sender or "<>",
            "size": size(first.size),
            "arrived": date(first.arrived_at),
        }
        lines += draw_facts(screen, facts.items(), label=9)
    return lines


def _age(text: str, now: float) -> str:
    at = moment(text)
    return "" if at is None else age(now - at.timestamp())


def _due(text: str | None, now: float) -> str:
    at = moment(text)
    if at is None:
        return ""
    wait = at.timestamp() - now
    return f"in {age(wait)}" if wait >= 1 else "now"
