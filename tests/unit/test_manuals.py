"""The manual pages: everything that the programs take is in them, and the tools that read pages find no fault."""

import os
import re
import subprocess
import tomllib

import click
import pytest
from pydantic import BaseModel

from mtactl.app import command_line
from mtactl.cli.main import EXIT_CODES, program
from mtactl.settings import LaneSettings, ListenerSettings, Settings
from tools.manuals import pages
from tools.manuals.client import walk
from tools.manuals.roff import Page, plain
from tools.manuals.settings import FILE, read_file

PAGES = pages()


def shown(name: str) -> str:
    """Give a page without the macros and escapes."""
    text = re.sub(r"\\f[BIR]", "", PAGES[name])
    for escape, sign in ((r"\-", "-"), (r"\(aq", "'"), (r"\(dq", '"'), (r"\(rs", "\\"), (r"\&", "")):
        text = text.replace(escape, sign)
    return text


def test_every_command_and_option_of_the_client_is_told():
    """Broken: what --help knows can't be looked up in the manual."""
    text = shown("mtactl.1")
    seen = 0
    for names, command, ctx in walk(program, click.Context(program, info_name="mtactl")):
        part = text.partition(f'.SS "mtactl {names[0]}"')[2].partition(".SS")[0]
        assert part, names
        for other in names[1:]:
            assert other in part
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                for option in (*parameter.opts, *parameter.secondary_opts):
                    assert option in part, (names, option)
                    seen += 1
            elif isinstance(parameter, click.Argument):
                assert parameter.make_metavar(ctx).strip("[]") in part
        first = (command.help or "").split()[:5]
        assert " ".join(first) in " ".join(part.split())
    assert seen > 30
    for option in (each for parameter in program.params for each in parameter.opts):
        assert option in text
    for code, told in EXIT_CODES.items():
        assert re.search(rf"^{int(code)}\n{told[0].upper()}", text, re.MULTILINE), code
    assert set(program.list_commands(click.Context(program))) == {
        name.split()[0] for names, *_ in walk(program, click.Context(program)) for name in names
    }


def test_every_option_of_the_daemon_is_told():
    """Broken: an option of the daemon is nowhere to be found."""
    text = shown("mtactld.8")
    for action in command_line()._actions:
        for option in action.option_strings:
            assert re.search(rf"^(.*, )?{option}\b", text, re.MULTILINE), option
    assert "/etc/mtactl/mtactl.toml" in text


def keys_of(model: type[BaseModel], path: str = "") -> set[tuple[str, str]]:
    """Give (table, key) of every key in the schema."""
    found = set()
    for name, field in model.model_fields.items():
        inner = {"listener": ListenerSettings, "lane": LaneSettings}.get(name) if model is Settings else None
        inner = inner or field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            table = f"{path}.{name}".strip(".") + ('."*"' if name == "lane" else "")
            found |= keys_of(inner, table)
        else:
            found.add((path, name))
    return found


def test_every_setting_is_told():
    """Broken: a key of the schema is in no manual, or the manual has one that the daemon refuses."""
    _, tables = read_file(FILE.read_text("utf-8"))
    told = {(table.path, key.name) for table in tables if not table.example for key in table.keys}
    assert told == keys_of(Settings)
    text = shown("mtactl.toml.5")
    for table in tables:
        part = text.partition('.SS "' + table.header.replace('"', '"') + '"')[2].partition(".SS")[0]
        for key in table.keys:
            assert re.search(rf"^{key.name} = ", part, re.MULTILINE), (table.header, key.name)
            assert key.value in part
    assert tomllib.loads(FILE.read_text("utf-8"))


def test_the_file_of_settings_is_read_as_it_is_written():
    """Broken: a comment goes to the wrong key, or a line that is not understood is left out in silence."""
    head, tables = read_file('# A.\n#\n# B.\n\n# On it.\n[[x]]  # its own\na = "#"  # one\n        # more\n# b = [1]\n')
    assert head == ["A.", "B."]
    (table,) = tables
    assert (table.header, table.told) == ("[[x]]", ["On it.", "its own"])
    assert [(key.name, key.value, key.told, key.off) for key in table.keys] == [
        ("a", '"#"', "one more", False),
        ("b", "[1]", "", True),
    ]
    with pytest.raises(ValueError, match="neither"):
        read_file("[x]\nwhat is this\n")


def test_a_text_is_no_macro():
    """Broken: a sentence that begins with a dot vanishes, or a backslash eats what follows it."""
    page = Page("x", 1, "y", group="z")
    page.paragraph(".so /etc/passwd")
    page.paragraph("'quoted' \\n and \u201cüber\u201d")
    page.paragraphs("one\n\n\b\n.two\n  three")
    text = str(page)
    assert text.isascii()
    assert "\n.so" not in text
    assert "\\(aqquoted\\(aq \\(rsn and \\[u201C]\\[u00FC]ber\\[u201D]" in text
    assert "\\&.two\nthree\n.fi" in text
    assert plain("a-b") == "a\\-b"


@pytest.mark.needs("man", "man-db")
@pytest.mark.needs("groff", "groff-base")
@pytest.mark.needs("mandoc", "mandoc")
def test_the_readers_of_pages_find_no_fault(tmp_path):
    """Broken: the pages show garbage in some reader."""
    for name, text in PAGES.items():
        path = tmp_path / name
        path.write_text(text, "ascii")
        for command in (
            ["man", "--warnings", "-l", str(path)],
            ["groff", "-man", "-Tutf8", "-ww", "-z", str(path)],
            ["mandoc", "-T", "lint", "-W", "style", str(path)],
        ):
            environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANPAGER": "cat", "MANWIDTH": "80"}
            ended = subprocess.run(command, capture_output=True, text=True, env=environment)
            assert (ended.returncode, ended.stderr) == (0, ""), command
            assert command[0] == "man" or ended.stdout == "", command


def test_a_build_can_be_repeated(monkeypatch):
    """Broken: two builds of the package differ."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert '"2023-11-14"' in pages()["mtactl.1"]
    assert pages() == pages()
