"""What may go to a terminal. Ids, addresses and replies are written by strangers; nothing in them is to move the
cursor, change a colour, turn the direction of writing, or look like a line of its own.
"""

from __future__ import annotations

import re

from rich.cells import cell_len, set_cell_size

__all__ = ["elide", "escape_json", "escape_line", "printable"]

_ASCII_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]")


def printable(text: str) -> str:
    r"""Give the text with everything unprintable spelt out: \x1b, \u202e. A backslash stays as it is."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _spelt(ord(each)) for each in text)


def _spelt(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escape_json(document: bytes) -> bytes:
    r"""Give one line of JSON with everything unprintable as \uXXXX, which means the same.

    Unprintable octets can stand in strings only, save for white space between the tokens, which becomes a space.
    """
    if document.isascii() and _ASCII_CONTROL.search(document) is None and b"\n" not in document:
        return document
    text = " ".join(document.decode("utf-8", "backslashreplace").split("\n"))
    escaped = (each if each.isprintable() else " " if each in "\t\r" else _json_escape(each) for each in text)
    return "".join(escaped).encode("utf-8", "backslashreplace")


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[index]:02x}{units[index + 1]:02x}" for index in range(0, len(units), 2))


def escape_line(line: bytes) -> bytes:
    """Give a line of CSV as a terminal may have it; its end stays."""
    text = line.decode("utf-8", "backslashreplace")
    body = text.rstrip("\r\n")
    return (printable(body) + text[len(body) :]).encode("utf-8", "backslashreplace")


def elide(text: str, width: int, *, mark: str = "…", middle: bool = True) -> str:
    """Cut the text to so many columns. Ids that differ at their ends are cut in the middle; sentences at the end."""
    if cell_len(text) <= width:
        return text
    if width <= len(mark):
        return mark[: max(0, width)]
    room = width - len(mark)
    if not middle:
        return set_cell_size(text, room).rstrip() + mark
    back = room // 2
    tail = text[len(text) - back :] if back else ""
    while cell_len(tail) > back:
        tail = tail[1:]
    return set_cell_size(text, room - cell_len(tail)) + mark + tail
