"""GET /v1/campaigns/{campaign}/recipients: who got it and who did not, streamed as NDJSON or CSV.

The pages of the node are written as they come; a reader that falls behind slows them down, and one that goes away ends
them. The CSV is RFC 4180 in UTF-8. Recipient addresses and replies are written by strangers, so a cell that a
spreadsheet would take for a formula gets an apostrophe in front, and control characters are spelt out.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import get_args

import msgspec
from aiohttp import web

from mtactl.control.answers import Outflow, end_iteration, escape_unprintable
from mtactl.control.parameters import Choice, Choices, Flag
from mtactl.control.problems import ProblemKind
from mtactl.control.route import Call, Route
from mtactl.control.types import OutcomeName, RecipientRow

__all__ = ["ROUTES", "csv_rows", "defuse"]

_NDJSON = "application/x-ndjson"
_CSV = "text/csv"
_MEDIA = {"ndjson": _NDJSON, "csv": f"{_CSV}; charset=utf-8; header=present"}
_COLUMNS = RecipientRow.__struct_fields__

# The wide forms are taken for the plain ones by spreadsheets with an East Asian setting.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_json = msgspec.json.Encoder()


async def stream_recipients(call: Call) -> web.StreamResponse:
    """Stream the outcomes of the campaign's recipients."""
    pages = call.node.recipients(call.name, outcomes=call.query["outcome"], after_stop=call.query["after_stop"])
    form: str = call.query["format"]
    try:
        first = await anext(pages, None)  # what fails before the first page is still told as a problem
        out = Outflow(call.request, _MEDIA[form])
        with call.streaming(out.cut):
            async with out:
                await out.write((csv_rows([_COLUMNS]) if form == "csv" else b"") + _encode(form, first or ()))
                async for page in pages:
                    await out.write(_encode(form, page))
    finally:
        await end_iteration(pages)
    return out.response


def _encode(form: str, page: Sequence[RecipientRow]) -> bytes:
    if form == "csv":
        return csv_rows([[getattr(row, column) for column in _COLUMNS] for row in page])
    return escape_unprintable(b"".join(_json.encode(row) + b"\n" for row in page))


def csv_rows(rows: Sequence[Sequence[object]]) -> bytes:
    """Give rows of text, numbers, truth values and None as lines of CSV."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return defuse(value)
        case _:
            return str(value)


def defuse(text: str) -> str:
    """Give the text as a cell that no spreadsheet computes and no terminal acts on."""
    printable = _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return f"'{printable}" if text.startswith(_FORMULA) else printable


ROUTES = (
    Route(
        name="recipients",
        method="GET",
        path="/v1/campaigns/{campaign}/recipients",
        summary="Who got it and who did not: the outcomes of a campaign, in the order of arrival, streamed.",
        handle=stream_recipients,
        parameters=(
            Choices(
                name="outcome",
                about="Only these outcomes; repeated, or with commas between them.",
                words=get_args(OutcomeName),
            ),
            Flag(name="after_stop", about="Only outcomes that came after the gate closed.", otherwise=False),
            Choice(name="format", about="The form of the stream.", words=("ndjson", "csv"), otherwise="ndjson"),
        ),
        media=(_NDJSON, _CSV),
        item=RecipientRow,
        problems=(ProblemKind.BAD_CAMPAIGN, ProblemKind.UNKNOWN_CAMPAIGN),
    ),
)
