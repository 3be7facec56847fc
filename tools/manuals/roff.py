"""Manual pages in the macros of man(7), in ASCII: what is not is written as an escape, so that no locale matters."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version

__all__ = ["Page", "bold", "italic", "plain"]

_WIDTH = 78  # of a line of the source
_CODE = re.compile(r"`([^`]+)`")
_REFERENCE = re.compile(r"\b(mtactl\.toml|mtactld|mtactl|systemd|systemctl)\((\d)\)")


def plain(text: str) -> str:
    """Give a text as roff has it: nothing in it is a command."""
    escaped = text.replace("\\", "\\(rs").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    escaped = escaped.replace("^", "\\(ha").replace("~", "\\(ti").replace('"', "\\(dq")
    return "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in escaped)


def bold(text: str) -> str:
    """Give a text in bold."""
    return f"\\fB{plain(text)}\\fR"


def italic(text: str) -> str:
    """Give a text in italics: what is to be replaced."""
    return f"\\fI{plain(text)}\\fR"


def prose(text: str) -> str:
    """Give a text with `code` and references to pages in bold."""
    parts = []
    for number, part in enumerate(_CODE.split(text)):
        if number % 2:
            parts.append(bold(part))
            continue
        place = 0
        for found in _REFERENCE.finditer(part):
            parts.append(plain(part[place : found.start()]) + f"{bold(found[1])}({found[2]})")
            place = found.end()
        parts.append(plain(part[place:]))
    return "".join(parts)


class Page:
    """A page, written from the top to the bottom."""

    def __init__(self, name: str, section: int, about: str, *, group: str) -> None:
        self._lines = [
            '.\\" Made by make man; what it says comes from the program itself.',
            f'.TH {name.upper()} {section} "{_date()}" "mtactl {version("mtactl")}" "{group}"',
            ".nh",
            ".ad l",
        ]
        self.section("NAME")
        self._add(f"{plain(name)} \\- {plain(about)}")

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"

    def section(self, title: str) -> None:
        """Begin a section."""
        self._lines.append(f'.SH "{title.upper()}"')

    def subsection(self, title: str) -> None:
        """Begin a part of a section."""
        self._lines.append(f'.SS "{plain(title)}"')

    def paragraph(self, text: str) -> None:
        """Write a paragraph."""
        if not self._lines[-1].startswith((".SH", ".SS")):
            self._lines.append(".PP")
        self._fill(prose(" ".join(text.split())))

    def paragraphs(self, text: str) -> None:
        """Write paragraphs that have an empty line between them; one that begins with a backspace keeps its lines."""
        for part in re.split(r"\n\s*\n", text.strip()):
            if part.lstrip().startswith("\b"):
                self.verbatim(line for line in part.replace("\b", "").splitlines() if line.strip())
            else:
                self.paragraph(part)

    def synopsis(self, line: str) -> None:
        """Write a line of the synopsis, which is roff already."""
        if not self._lines[-1].startswith((".SH", ".SS")):
            self._lines.append(".br")
        self._add(line)

    def item(self, tag: str, text: str) -> None:
        """Write an item: its tag, which is roff already, and what there is to say."""
        self._lines.append(".TP")
        self._add(tag)
        self._fill(prose(" ".join(text.split())))

    def verbatim(self, lines: Iterable[str]) -> None:
        """Write lines as they are, indented."""
        self._lines += [".PP", ".RS 4", ".nf"]
        for line in lines:
            self._add(plain(line.strip()))
        self._lines += [".fi", ".RE"]

    def line(self, text: str) -> None:
        """Write a line of its own, which is roff already."""
        if not self._lines[-1].startswith((".SH", ".SS")):
            self._lines.append(".PP")
        self._add(text)

    def _add(self, line: str) -> None:
        self._lines.append(f"\\&{line}" if line.startswith((".", "'")) else line)

    def _fill(self, text: str) -> None:
        for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False):
            self._add(line)


def _date() -> str:
    """Give the day that the page is of, which a build that is to be repeated sets."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    day = datetime.fromtimestamp(int(given), UTC) if given.isdigit() else datetime.now(UTC)
    return day.strftime("%Y-%m-%d")
