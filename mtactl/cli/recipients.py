"""mtactl recipients CAMPAIGN: who got it and who did not, streamed as it comes.

NDJSON and CSV pass through as the daemon wrote them, in whole lines, so that a stream which breaks off never ends in
half a row. Without --format there are columns for people.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import get_args

import click
import msgspec

from mtactl.cli.client import campaign_path
from mtactl.cli.failures import Unreachable
from mtactl.cli.figures import date
from mtactl.cli.printable import escape_json, escape_line
from mtactl.cli.screen import Screen
from mtactl.cli.session import Session, check_campaign, takes_session
from mtactl.cli.suggestions import complete_campaign
from mtactl.cli.table import Cell, Column, Table
from mtactl.control.types import OutcomeName, RecipientRow

__all__ = ["recipients"]

_PAGE = 200  # rows that decide on the widths, and are written at once

_OUTCOME_STYLES = {"delivered": "green", "bounced": "red", "expired": "magenta", "unknown": "bold red"}
_COLUMNS = (
    Column(title="recipient", least=16),
    Column(title="outcome"),
    Column(title="stop"),
    Column(title="at"),
    Column(title="reply", least=16, optional=True, middle=False, style="dim"),
    Column(title="message", optional=True),
)


@click.command()
@click.argument("campaign", callback=check_campaign, shell_complete=complete_campaign())
@click.option(
    "--outcome",
    "outcomes",
    type=click.Choice(get_args(OutcomeName)),
    multiple=True,
    help="Only this outcome; may be repeated.",
)
@click.option("--after-stop", is_flag=True, help="Only outcomes that came after the gate closed.")
@click.option("--format", "form", type=click.Choice(["csv", "ndjson"]), help="For programs, in place of columns.")
@takes_session
def recipients(
    session: Session, *, campaign: str, outcomes: tuple[str, ...], after_stop: bool, form: str | None
) -> None:
    """List who got a campaign and who did not, in the order of arrival."""
    if session.json and form == "csv":
        raise click.UsageError("--json and --format csv are two things; choose one.")
    if session.json:
        form = "ndjson"
    session.streams = True
    with session.client.stream(
        campaign_path(campaign, "recipients"),
        outcome=outcomes or None,
        after_stop=True if after_stop else None,
        format=form or "ndjson",
    ) as pieces:
        if form is None:
            _show(session, _decode(_whole_lines(pieces)))
        else:
            _pass_on(session, _whole_lines(pieces), form)


def _whole_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Give the octets again in pieces that end with a line."""
    rest = b""
    for piece in pieces:
        lines, newline, rest = (rest + piece).rpartition(b"\n")
        if newline:
            yield lines + newline
    if rest:
        yield rest


def _pass_on(session: Session, pieces: Iterable[bytes], form: str) -> None:
    escape = escape_line if form == "csv" else lambda line: escape_json(line.rstrip(b"\n")) + b"\n"
    on_terminal = sys.stdout.isatty()
    for piece in pieces:
        if on_terminal:
            session.write(b"".join(escape(line) for line in piece.splitlines(keepends=True)))
        else:
            session.write(piece)


def _decode(pieces: Iterable[bytes]) -> Iterator[RecipientRow]:
    decoder = msgspec.json.Decoder(RecipientRow)
    try:
        for piece in pieces:
            yield from decoder.decode_lines(piece)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreachable(f"a row is not one that this mtactl understands: {error}") from error


def _show(session: Session, rows: Iterator[RecipientRow]) -> None:
    table = Table(Screen(), _COLUMNS)
    empty = True
    while page := [_cells(row) for row in islice(rows, _PAGE)]:
        table.show(page)
        empty = False
    if empty:
        session.tell("No recipient has such an outcome.")


def _cells(row: RecipientRow) -> list[Cell]:
    return [
        row.recipient,
        (row.outcome, _OUTCOME_STYLES.get(row.outcome, "")),
        ("after", "yellow") if row.after_stop else "",
        date(row.at)[:19],
        f"{row.code} {row.reply}" if row.code is not None else row.reply,
        row.message,
    ]
