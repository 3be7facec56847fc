"""The commands that the documents tell people to type, and a shell on a terminal that types them.

A fenced block of `sh` or `console` says in a comment before it who runs it:

    <!-- run: node -->                      a node with mail in it, in the order of the page
    <!-- run: tests/integration/x.py -->    that test, which sets up what it takes (a machine, a package)

Commands of mtactl and mtactld that stand in the text as `mtactl …` are run as well, all of them on a node.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
_RUN = re.compile(r"<!-- run: (?P<how>[^>]+?) -->\n*\Z")
_CODE = re.compile(r"(?<!`)`(mtactld? [^`]+)`(?!`)")
_TYPE = re.compile(r"Type the Campaign ID to go on \((?P<campaign>[^)]+)\): \Z")
_LASTING = ("--follow", "mtactl top")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block: where it begins, who runs it ("" where nobody is named), and its commands."""

    page: str
    line: int
    how: str
    commands: tuple[str, ...]


def pages() -> list[Path]:
    """Give the documents that are for users. Records of decisions and of measurements are none."""
    return [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "performance.md")]


def blocks(page: Path) -> list[Block]:
    """Give the blocks of commands of a page."""
    text = page.read_text()
    found = []
    for fence in _FENCE.finditer(text):
        if fence["language"] not in {"sh", "console"}:
            continue
        before = _RUN.search(text[: fence.start()])
        commands = _shell(fence["text"]) if fence["language"] == "sh" else _transcript(fence["text"])
        found.append(
            Block(
                page=page.name,
                line=text.count("\n", 0, fence.start()) + 1,
                how="" if before is None else before["how"],
                commands=tuple(commands),
            )
        )
    return found


def inline(page: Path) -> list[str]:
    """Give the commands that stand in the text."""
    text = _FENCE.sub("", page.read_text())
    return [" ".join(found.replace("\\|", "|").split()) for found in _CODE.findall(text)]


def _shell(text: str) -> list[str]:
    """Give the commands of a script, a line each; a line that ends in a backslash goes on."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def _transcript(text: str) -> list[str]:
    return [line[2:] for line in re.sub(r"\\\n\s*", " ", text).splitlines() if line.startswith("$ ")]


def put_in(command: str, words: Mapping[str, str]) -> str:
    """Give a command with what stands for something replaced: paths and ports anywhere, WORDS as whole words."""
    for word, value in words.items():
        pattern = rf"(?<![\w-]){re.escape(word)}(?![\w-])" if word.isupper() else re.escape(word)
        command = re.sub(pattern, lambda _, value=value: value, command)
    return command


def type_in(command: str, *, env: Mapping[str, str], folder: Path, seconds: float = 60.0) -> tuple[int, str]:
    """Run a command with bash on a terminal; give its exit status and what the screen got.

    A Campaign ID that is asked for is typed. What would go on for ever is interrupted once it has shown something.
    """
    child, master = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvpe("bash", ["bash", "-c", command], {**os.environ, "TERM": "xterm-256color", **env})
    shown = b""
    lasting = any(word in command for word in _LASTING)
    begun = time.monotonic()
    stop_at = begun + seconds
    try:
        while time.monotonic() < stop_at:
            if not select.select([master], [], [], 0.1)[0]:
                if lasting and shown and time.monotonic() > begun + 2.0:
                    os.write(master, b"q" if "top" in command else b"\x03")
                    lasting = False
                continue
            try:
                piece = os.read(master, 65536)
            except OSError:  # EIO: it has ended
                break
            if not piece:
                break
            shown += piece
            asked = _TYPE.search(shown.decode(errors="replace"))
            if asked is not None:
                os.write(master, f"{asked['campaign']}\n".encode())
                shown += b"\n"
        else:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(master)
        _, ended = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(ended), shown.decode(errors="replace")
