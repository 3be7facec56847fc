"""On which line of a TOML text each key and each list item stands.

tomllib gives values without their places. This walks a text that tomllib has accepted already (at least up to its last
line), so it needs to know only where things end, not whether they are right.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from typing import TypeAlias

__all__ = ["KeyPath", "find_lines", "find_repetition"]

KeyPath: TypeAlias = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}\n#]*")


def find_lines(text: str) -> dict[KeyPath, int]:
    """Give the line (from 1) of each table, key and list item of a valid TOML text."""
    return _Walk(text.replace("\r\n", "\n")).document()


def find_repetition(text: str) -> tuple[KeyPath, int] | None:
    """Give the key or table that stands a second time, and where it stood first; None when nothing does."""
    walk = _Walk(text.replace("\r\n", "\n"))
    walk.document()
    return walk.repetition


class _Walk:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._ends = [found.start() for found in re.finditer("\n", text)]
        self._lines: dict[KeyPath, int] = {}
        self._items: dict[KeyPath, int] = {}  # how many times [[…]] stood so far
        self._given: dict[KeyPath, int] = {}  # where each table's header and each key's value stands
        self.repetition: tuple[KeyPath, int] | None = None

    def document(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while True:
            self._skip(_BLANK)
            if self._at >= len(self._text):
                return self._lines
            if self._take("[["):
                table = self._open_item(self._key())
                self._take("]]")
            elif self._take("["):
                table = self._resolve(self._key())
                self._note(table)
                self._give(table)
                self._take("]")
            else:
                self._pair(table)

    def _open_item(self, key: KeyPath) -> KeyPath:
        array = self._resolve(key[:-1]) + key[-1:]
        number = self._items.get(array, 0)
        self._items[array] = number + 1
        self._note(array)
        self._note((*array, number))
        return (*array, number)

    def _resolve(self, key: KeyPath) -> KeyPath:
        """Put the number of the latest item behind each part that is an array of tables."""
        path: KeyPath = ()
        for part in key:
            path = (*path, part)
            if path in self._items:
                path = (*path, self._items[path] - 1)
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for part in self._key():
            path = (*path, part)
            self._lines.setdefault(path, line)
        self._give(path)
        self._take("=")
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        self._skip(_BLANK)
        if self._take("["):
            number = 0
            while not self._closes("]"):
                self._note((*path, number))
                self._value((*path, number))
                number += 1
        elif self._take("{"):
            while not self._closes("}"):
                self._pair(path)
        elif not self._skip(_STRING):
            self._skip(_SCALAR)

    def _closes(self, bracket: str) -> bool:
        """Pass a comma and blanks; tell whether the bracket (or the end of the text) follows."""
        self._skip(_BLANK)
        self._take(",")
        self._skip(_BLANK)
        return self._take(bracket) or self._at >= len(self._text)

    def _key(self) -> KeyPath:
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            start = self._at
            if self._skip(_STRING):
                parts.append(tomllib.loads(f"key = {self._text[start : self._at]}")["key"])
            else:
                self._skip(_BARE)
                parts.append(self._text[start : self._at])
            self._skip(_SPACE)
            if not self._take("."):
                return tuple(parts)

    def _skip(self, what: re.Pattern[str]) -> bool:
        found = what.match(self._text, self._at)
        if found is None:
            return False
        self._at = found.end()
        return True

    def _take(self, what: str) -> bool:
        if not self._text.startswith(what, self._at):
            return False
        self._at += len(what)
        return True

    def _give(self, path: KeyPath) -> None:
        first = self._given.setdefault(path, self._at)
        if first != self._at and self.repetition is None:
            self.repetition = path, self._line(first)

    def _note(self, path: KeyPath) -> None:
        self._lines.setdefault(path, self._line())

    def _line(self, at: int | None = None) -> int:
        return bisect_left(self._ends, self._at if at is None else at) + 1
