"""mtactl.toml(5), from config/mtactl.toml, whose comments say what each key does, and the schema of the settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mtactl.reload import AT_START
from tools.manuals.roff import Page, bold, italic

__all__ = ["Key", "Table", "read_file", "settings_page"]

FILE = Path(__file__).parents[2] / "config" / "mtactl.toml"

_HEADER = re.compile(r"(?P<off># )?(?P<header>\[{1,2}[^\]]+\]{1,2})\s*(?:#\s*(?P<told>.*))?$")
_KEY = re.compile(r"(?P<off># )?(?P<key>[a-z_]+) = (?P<value>\"[^\"]*\"|\[[^\]]*\]|[^\s#]+)\s*(?:#\s*(?P<told>.*))?$")


@dataclass(slots=True, kw_only=True)
class Key:
    """A key as the file has it. `off`: it stands in a comment, since what it is when left out can't be written down."""

    name: str
    value: str
    told: str
    off: bool


@dataclass(slots=True, kw_only=True)
class Table:
    """A table of the file, with what is said on it. An example stands in a comment."""

    header: str
    told: list[str]
    keys: list[Key] = field(default_factory=list)
    example: bool = False

    @property
    def path(self) -> str:
        """Give the table's name without brackets."""
        return self.header.strip("[]")


def read_file(text: str) -> tuple[list[str], list[Table]]:
    """Read the file: the paragraphs at its head, and its tables."""
    head: list[str] = []
    tables: list[Table] = []
    said: list[str] = []
    for line in text.splitlines():
        found = _HEADER.match(line)
        if found is not None:
            told = _paragraphs(said) + ([found["told"]] if found["told"] else [])
            tables.append(Table(header=found["header"], told=told, example=found["off"] is not None))
            said = []
        elif (found := _KEY.match(line)) is not None and tables:
            tables[-1].told += _paragraphs(said)
            said = []
            about, off = (found["told"] or "").strip(), found["off"] is not None
            tables[-1].keys.append(Key(name=found["key"], value=found["value"], told=about, off=off))
        elif line.startswith("#"):
            said.append(line.removeprefix("#").strip())
        elif (more := line.strip()).startswith("#") and tables and tables[-1].keys:
            tables[-1].keys[-1].told += f" {more.removeprefix('#').strip()}"
        elif not line.strip():
            if not tables:
                head += _paragraphs(said)
                said = []
            else:
                said.append("")
        else:
            raise ValueError(f"a line that is neither a table nor a key nor a comment: {line}")
    return head, tables


def _paragraphs(lines: list[str]) -> list[str]:
    return [" ".join(part.split("\n")) for part in re.split(r"\n\n+", "\n".join(lines).strip()) if part]


def settings_page() -> str:
    """Give the page."""
    head, tables = read_file(FILE.read_text("utf-8"))
    page = Page("mtactl.toml", 5, "the configuration of mtactld", group="File Formats")
    page.section("Synopsis")
    page.synopsis(italic("/etc/mtactl/mtactl.toml"))
    page.section("Description")
    page.paragraph(
        "The file is TOML. Every key may be left out; shown is what it then is. A key that does not exist, a value of "
        "a wrong kind and one that is impossible are errors, which name the key, its line and the reason, all at once; "
        "a file with an error is refused whole."
    )
    for told in head[1:]:
        page.paragraph(told)
    page.paragraph("Keys that are marked with * are read at the start only; the others are applied by a reload.")
    page.section("Tables")
    for table in tables:
        page.subsection(table.header)
        for told in table.told:
            page.paragraph(told)
        for tag, said in _items(table):
            if said:
                page.item(tag, _sentence(said))
            else:
                page.line(tag)
    page.section("Files")
    page.item(italic("/etc/mtactl/mtactl.toml"), "Where the packaged service looks for it.")
    page.section("See also")
    page.paragraph("mtactld(8), mtactl(1)")
    return str(page)


def _items(table: Table) -> Iterator[tuple[str, str]]:
    if table.example:
        for key in table.keys:
            yield f"{bold(key.name)} = {italic(key.value)}", key.told
        return
    for key in table.keys:
        path = (*table.path.split("."), key.name)
        late = any(path[: len(start)] == start for start in AT_START)
        mark = (" (an example)" if key.off else "") + (" *" if late else "")
        yield f"{bold(key.name)} = {italic(key.value)}{mark}", key.told


def _sentence(said: str) -> str:
    """Give a comment as a sentence. A list of values keeps its first letter, which is one of a value."""
    first = said.split(maxsplit=1)[0]
    start = said[0] if first.endswith(",") else said[0].upper()
    return f"{start}{said[1:].rstrip('.:')}."
