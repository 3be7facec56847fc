"""What strangers wrote never reaches the terminal raw."""

import json

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mtactl.cli.printable import elide, escape_json, escape_line, printable

nasty = st.text(
    st.characters(exclude_categories=("Cs",)) | st.sampled_from("\x00\x07\x1b\x7f\x9b\u202e\u2028\u200b\r\n\t")
)


@given(nasty)
def test_nothing_unprintable_is_left(text):
    """Broken: a recipient's reply clears the administrator's screen, or forges a line of it."""
    assert printable(text).isprintable()
    if text.isprintable():
        assert printable(text) == text


def test_the_escape_is_told():
    """Broken: what was there can't be recognised in what is shown."""
    assert printable("a\x1b[31m\u202eb\U000e0001") == "a\\x1b[31m\\u202eb\\U000e0001"


@given(st.dictionaries(nasty, nasty | st.integers() | st.lists(nasty)))
def test_json_means_the_same_after_escaping(value):
    """Broken: --json prints a document that is another, or that acts on the terminal."""
    for indent in (None, 2):
        escaped = escape_json(json.dumps(value, ensure_ascii=False, indent=indent).encode())
        assert json.loads(escaped) == value
        assert escaped.decode().isprintable()


@given(nasty.map(lambda text: text.replace("\r", "").replace("\n", "")))
def test_lines_keep_their_end(text):
    """Broken: CSV on a terminal runs into one line, or acts on the terminal."""
    line = escape_line(f"{text}\r\n".encode())
    assert line.endswith(b"\r\n")
    assert line[:-2].decode().isprintable()


@given(nasty.map(printable), st.integers(0, 40), st.booleans())
def test_a_cut_text_fits(text, width, middle):
    """Broken: a long id breaks the table; or the cut is not to be seen."""
    cut = elide(text, width, middle=middle)
    assert cell_len(cut) <= width or cell_len(text) <= width
    if cell_len(text) > width > 0:
        assert "…" in cut


def test_ids_are_cut_in_the_middle_and_sentences_at_the_end():
    """Broken: newsletter-2026-11-22-a and -b look alike in a table."""
    assert elide("newsletter-2026-11-22-a", 13) == "newsle…1-22-a"
    assert elide("a long sentence", 9, middle=False) == "a long s…"
    assert elide("a long sentence", 9, mark="...", middle=False) == "a long..."
