"""A terminal in tmux with the client on it: what stands on the screen is what a person would see."""

from __future__ import annotations

import asyncio
import itertools
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.world.terminal import CLIENT, environment

_numbers = itertools.count()  # a server that ends keeps its name for a moment
_NEEDED = ("PYTHONPATH", "MTACTL_SOCKET", "LANG", "TZ")


class TmuxScreen:
    """One window. Keys are named as tmux names them: "Enter", "Escape", "C-c"."""

    def __init__(self, server: str) -> None:
        self._server = server

    async def ask(self, *arguments: str) -> str:
        """Give tmux a command; give what it writes."""
        process = await asyncio.create_subprocess_exec(
            *("tmux", "-L", self._server, "-f", "/dev/null", *arguments),
            env=environment(None, {"TERM": "xterm-256color"}),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err
        return out.decode()

    async def read(self, *, escapes: bool = False) -> str:
        """Give the screen as it is, with the escapes for colours or without."""
        return await self.ask("capture-pane", "-p", *(["-e"] if escapes else []), "-t", "s")

    async def press(self, *keys: str) -> None:
        """Press keys, one after another."""
        await self.ask("send-keys", "-t", "s", *keys)

    async def type(self, text: str) -> None:
        """Type a text as it is."""
        await self.ask("send-keys", "-t", "s", "-l", text)

    async def resize(self, columns: int, lines: int) -> None:
        """Make the window larger or smaller."""
        await self.ask("resize-window", "-t", "s", "-x", str(columns), "-y", str(lines))

    async def look(self, *texts: str, without: tuple[str, ...] = (), seconds: float = 60.0) -> str:
        """Wait until all the texts are on the screen, and none of the others; give it."""
        screen = ""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    screen = await self.read()
                    if all(text in screen for text in texts) and not any(text in screen for text in without):
                        return screen
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{texts} without {without} never came:\n{screen}") from None


@asynccontextmanager
async def tmux_screen(
    folder: Path,
    socket: Path,
    *arguments: str,
    columns: int = 80,
    lines: int = 24,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[TmuxScreen]:
    """Run the client in a terminal of so many columns and lines; behind its end stands "ended" and the exit code."""
    screen = TmuxScreen(f"{folder.name}-{next(_numbers)}")
    given = {name: value for name, value in environment(socket, env).items() if name in (*_NEEDED, *(env or ()))}
    command = shlex.join(["env", *(f"{name}={value}" for name, value in given.items()), *CLIENT, *arguments])
    size = ("-x", str(columns), "-y", str(lines))
    await screen.ask("new-session", "-d", *size, "-s", "s", f"{command}; echo ended $?; sleep 120")
    try:
        yield screen
    finally:
        await screen.ask("kill-server")
