"""The queue id that people see and type."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtactl.message.queue_id import QUEUE_ID_PATTERN, decode, encode


@given(st.integers(1, 2**63 - 1))
def test_id_is_that_of_one_message(number):
    """If this fails, a command about one message is done to another."""
    text = encode(number)
    assert decode(text) == decode(text.lower()) == number
    assert re.fullmatch(QUEUE_ID_PATTERN, text)


@given(st.one_of(st.text(max_size=15), st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZabz\u017f", max_size=15)))
def test_pattern_is_what_is_read(text):
    """If this fails, the OpenAPI document says of an id that it is one, and the daemon that it is none."""
    try:
        decode(text)
    except ValueError:
        assert re.fullmatch(QUEUE_ID_PATTERN, text) is None
    else:
        assert re.fullmatch(QUEUE_ID_PATTERN, text)


@pytest.mark.parametrize(
    "text", ["", "0", "0000000000", "U", "\u017f1", "8000000000000", "00000000000001", " 1", "1\n"]
)
def test_what_is_no_id(text):
    """If this fails, a slip of the finger means a message, or the daemon fails on a number that SQLite can't hold."""
    with pytest.raises(ValueError, match="not a queue id"):
        decode(text)
