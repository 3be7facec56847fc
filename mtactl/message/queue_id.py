"""The queue id that people see: the message's number in Crockford's base 32, at least ten digits, as Postfix's look."""

from __future__ import annotations

__all__ = ["QUEUE_ID_PATTERN", "decode", "encode"]

QUEUE_ID_PATTERN = "(?!0+$)[0-7]?[0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{1,12}"

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]
_VALUE = {digit: value for value, digit in enumerate(_DIGITS)}


def encode(message_id: int) -> str:
    """Give the queue id of a message's number (positive, below 2**63)."""
    text = ""
    rest = message_id
    while rest:
        text = _PAIRS[rest & 0x3FF] + text
        rest >>= 10
    return text.lstrip("0").rjust(10, "0")


def decode(text: str) -> int:
    """Give the message's number of a queue id. Raises ValueError when it is none."""
    value = 0
    if not (1 <= len(text) <= 13 and text.isascii()):  # the long s, say, is a capital S in upper case
        raise ValueError(f"not a queue id: {text!r}")
    for character in text.upper():
        if character not in _VALUE:
            raise ValueError(f"not a queue id: {text!r}")
        value = value * 32 + _VALUE[character]
    if not 0 < value < 1 << 63:
        raise ValueError(f"not a queue id: {text!r}")
    return value
