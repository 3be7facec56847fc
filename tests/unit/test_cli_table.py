"""Tables in the width that there is."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mtactl.cli import screen as screen_module
from mtactl.cli.campaigns import _COLUMNS as CAMPAIGN_COLUMNS
from mtactl.cli.lanes import LANE_COLUMNS
from mtactl.cli.queue import _QUEUE_COLUMNS, _SETTLED_COLUMNS, _WAITING_COLUMNS
from mtactl.cli.recipients import _COLUMNS as RECIPIENT_COLUMNS
from mtactl.cli.screen import Screen
from mtactl.cli.table import Column, Table


def lines_of(columns, *pages, width: int) -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    before, screen_module.sys.stdout = screen_module.sys.stdout, stream
    try:
        screen = Screen()
    finally:
        screen_module.sys.stdout = before
    screen.console.width = width
    table = Table(screen, columns)
    for page in pages:
        table.show(page)
    return stream.buffer.getvalue().decode().splitlines()


COLUMNS = (
    Column(title="name", least=6),
    Column(title="number", right=True),
    Column(title="reply", least=6, optional=True, middle=False),
)


def test_a_table():
    """Broken: columns don't stand below their titles."""
    rows = [["first", "1,000", "250 Ok"], [("second", "red"), "2", ""]]
    assert lines_of(COLUMNS, rows, width=80) == [
        "name    number  reply",
        "first    1,000  250 Ok",
        "second       2",
    ]


def test_what_is_nice_to_have_goes_first_and_then_texts_are_cut():
    """Broken: a long reply pushes the numbers off the screen."""
    rows = [["an-id-that-is-long", "1,000", "a reply that is long"]]
    assert lines_of(COLUMNS, rows, width=24) == ["name     number  reply", "an-…ong   1,000  a repl…"]
    assert lines_of(COLUMNS, rows, width=20) == ["name          number", "an-id-…-long   1,000"]


def test_later_pages_keep_the_widths_of_the_first():
    """Broken: a stream of rows starts a new table at each page."""
    lines = lines_of(COLUMNS, [["abcdef", "1", "x"]], [["a-much-longer-name", "2", "y"]], width=80)
    assert lines == ["name    number  reply", "abcdef       1  x", "a-m…me       2  y"]


@pytest.mark.parametrize(
    "columns",
    [CAMPAIGN_COLUMNS, LANE_COLUMNS, _QUEUE_COLUMNS, _WAITING_COLUMNS, _SETTLED_COLUMNS, RECIPIENT_COLUMNS],
    ids=["campaigns", "lanes", "queue", "waiting", "settled", "recipients"],
)
def test_our_tables_fit_eighty_columns(columns):
    """Broken: a row of a busy node does not fit an ordinary terminal."""
    widest = {"message": "0000000001", "state": "throttled", "outcome": "delivered", "at": "2026-11-22 10:00:00"}
    row = []
    for column in columns:
        if column.title == "state" and columns is LANE_COLUMNS:
            row.append("backoff 59m")
        elif column.least:
            row.append("x" * 200)
        else:
            row.append(widest.get(column.title, "999,999" if column.right and column.title not in _SHORT else "in 59m"))
    lines = lines_of(columns, [row], width=80)
    assert max(cell_len(line) for line in lines) <= 80
    assert not any(line.endswith("…" * 2) for line in lines)
    for number in (text for text, column in zip(row, columns, strict=True) if not column.least and not column.optional):
        assert number in lines[1], lines


_SHORT = ("age", "due", "tries", "conns")


@given(
    st.lists(st.tuples(st.text(max_size=40), st.integers(0, 10**6).map(str), st.text(max_size=40)), min_size=1),
    st.integers(22, 120),
)
def test_every_line_fits(rows, width):
    """Broken: wide or unprintable characters in an address wrap the table."""
    for line in lines_of(COLUMNS, rows, width=width):
        assert cell_len(line) <= width


def test_on_a_narrow_terminal_columns_go_and_no_number_is_cut():
    """Broken: 1,234,567 is shown as 1,2, and somebody acts on it."""
    columns = (Column(title="campaign", least=12), Column(title="state"))
    columns += tuple(Column(title=title, right=True) for title in ("queued", "delivered", "dropped"))
    row = ["spring-sale" * 3, "halting", "1,234,567", "7,654,321", "9,999,999"]
    for width in (40, 44, 52, 60, 80):
        title, line = lines_of(columns, [row], width=width)
        assert len(line) <= width
        shown = [number for number in row[2:] if number in line]
        assert line.split()[2:] == shown, line
        assert len(title.split()) == 2 + len(shown)
