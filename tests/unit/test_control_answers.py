"""What goes out: cells of a CSV, JSON without control characters, a problem for each failure."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtactl.control.answers import encode
from mtactl.control.events import frame
from mtactl.control.problems import ProblemKind, Refusal, refusal_of
from mtactl.control.recipients import csv_rows, defuse
from mtactl.control.types import Event
from mtactl.errors import CampaignError, ConfigError, IllegalMove, UnknownCampaign
from queue_store.errors import CampaignHalted, StoreClosed, StoreFailed, StoreFull

words = st.text(
    alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("=+-@\t\r\n\"',;\x1b\x7f\x9b"))
)


@given(text=words)
def test_no_cell_is_a_formula_or_drives_a_terminal(text):
    """Broken: a recipient's address is computed by the spreadsheet that shows it."""
    cell = defuse(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in cell)
    if text.isprintable() and text[:1].isalnum():
        assert cell == text


@given(rows=st.lists(st.lists(words, min_size=2, max_size=4), max_size=4))
def test_csv_is_read_back_as_it_was_written(rows):
    """Broken: a quotation mark or a comma in a reply shifts the columns."""
    text = csv_rows(rows).decode()
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == [
        [defuse(cell) for cell in row] for row in rows
    ]
    assert text.count("\r\n") == len(rows)


def test_csv_values_that_are_not_text():
    """Broken: a negative number gets an apostrophe, or None is a word."""
    assert csv_rows([[None, True, False, -1, 250, ""]]) == b",true,false,-1,250,\r\n"


@given(text=words)
def test_json_is_printable_and_exact(text):
    """Broken: what an administrator pipes to the terminal acts on it, or is not what was stored."""
    octets = encode({"text": text, text: [text]})
    assert json.loads(octets) == {"text": text, text: [text]}
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029\u202e\u2066" for c in octets.decode())


@given(text=words)
def test_an_event_is_one_event(text):
    """Broken: a line end in the data makes two events of one, or an event of an address."""
    octets = frame(Event(id=7, at="2026-11-22T10:00:00.000000Z", kind="outcome", data={"reply": text}))
    lines = octets.decode().split("\n")
    assert [line.partition(":")[0] for line in lines] == ["id", "event", "data", "", ""]
    assert json.loads(lines[2].removeprefix("data: "))["data"] == {"reply": text}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnknownCampaign("c1"), 404),
        (IllegalMove("c1", "halted", "hold"), 409),
        (CampaignHalted("c1"), 409),
        (CampaignError("c1", "does not work"), 409),
        (ConfigError(["a", "b"]), 422),
        (StoreFull("/var/lib/mtactl", 0), 503),
        (StoreFailed("EIO"), 503),
        (StoreClosed(), 503),
        (Refusal(ProblemKind.BUSY, "busy"), 503),
    ],
)
def test_each_failure_has_its_status(error, status):
    """Broken: a monitoring system takes our fault for the caller's, or the other way round."""
    refusal = refusal_of(error)
    assert refusal is not None
    assert refusal.kind.status == status
    assert refusal.document.detail


def test_a_defect_has_no_answer_of_its_own():
    """Broken: the text of an unforeseen error goes to whoever asks."""
    assert refusal_of(RuntimeError("secret")) is None


def test_the_kinds_of_problems_are_told_apart_by_their_names():
    """Broken: a program can't tell two problems apart."""
    assert len({kind.urn for kind in ProblemKind}) == len(ProblemKind)
