"""`mtactl recipients`: who got it and who did not, streamed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import get_args

import click
import msgspec

from mtactl.cli.client import Client, campaign_path
from mtactl.cli.failures import Unreachable
from mtactl.cli.session import Session, Word, verb
from mtactl.control.types import OutcomeName, RecipientRow

__all__ = ["recipients"]

_decoder = msgspec.json.Decoder(RecipientRow)


@verb("recipients", short_help="Who got it and who did not.")
@click.argument("campaign", type=Word())
@click.option(
    "--outcome",
    "outcomes",
    type=click.Choice(get_args(OutcomeName)),
    multiple=True,
    help="Only this outcome; may be repeated.",
)
@click.option("--after-stop", is_flag=True, help="Only outcomes that came after the campaign was stopped.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("csv", "ndjson")),
    help="The form of the stream; otherwise lines for people on a terminal, and ndjson elsewhere.",
)
def recipients(session: Session, campaign: str, outcomes: tuple[str, ...], after_stop: bool, form: str | None) -> None:
    """List who of CAMPAIGN got it and who did not, in the order in which the mail arrived.

    Recipients that still wait are not in it: see `mtactl queue ls --campaign CAMPAIGN`.
    """
    if session.json and form == "csv":
        raise click.UsageError("--json and --format csv exclude each other.")
    for_people = form is None and not session.json and sys.stdout.isatty()
    query = [("format", form or "ndjson"), *(("outcome", outcome) for outcome in outcomes)]
    if after_stop:
        query.append(("after_stop", "true"))
    with Client(session.socket).stream(campaign_path(campaign, "recipients"), query=query, timeout=60) as pieces:
        for lines in whole_lines(pieces):
            if for_people:
                session.say(*_describe(session, lines))
            else:
                session.write(lines)


def whole_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Give the same octets in pieces that end where a line ends."""
    rest: list[bytes] = []
    for piece in pieces:
        head, newline, tail = piece.rpartition(b"\n")
        if newline:
            yield b"".join((*rest, head, newline))
            rest = []
        if tail:
            rest.append(tail)
    if rest:
        yield b"".join(rest)


def _describe(session: Session, lines: bytes) -> Iterator[str]:
    try:
        for row in _decoder.decode_lines(lines):
            reply = f"{row.code} {row.reply}" if row.code is not None else row.reply
            after = "after the stop" if row.after_stop else ""
            yield f"{row.outcome:9}  {after:14}  {row.recipient:32}  {reply}".rstrip()
    except msgspec.MsgspecError as error:
        raise Unreachable(f"{session.socket} streams what is not understood: {error}.") from None
