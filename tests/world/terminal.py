"""The real client in a process of its own: on pipes, or on a pseudo-terminal where it takes a person to be there."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLIENT = (sys.executable, "-m", "mtactl.cli.main")
REPOSITORY = Path(__file__).parents[2]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def environment(socket: Path | None, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give the client's environment; nothing of the terminal that the tests run on is in it."""
    strange = ("MTACTL_SOCKET", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "LANG", "LC_ALL", "TZ")
    found = {name: value for name, value in os.environ.items() if name not in strange}
    given = {} if socket is None else {"MTACTL_SOCKET": str(socket)}
    return {**found, "PYTHONPATH": str(REPOSITORY), "LANG": "C.UTF-8", "TZ": "UTC", **given, **(more or {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Give the one document, after a look at whether it is one, in a line."""
        assert self.out.endswith("\n") and self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    @property
    def rows(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


async def start(socket: Path | None, *arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> Any:
    """Start the client on pipes, with no terminal."""
    settings = {"stdin": asyncio.subprocess.DEVNULL, "stdout": asyncio.subprocess.PIPE, **options}
    settings.setdefault("stderr", asyncio.subprocess.PIPE)
    return await asyncio.create_subprocess_exec(*CLIENT, *arguments, env=environment(socket, env), **settings)


@asynccontextmanager
async def running(socket: Path | None, *arguments: str, **options: Any) -> AsyncIterator[Any]:
    """Run the client for a block; it is ended with it."""
    process = await start(socket, *arguments, **options)
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.communicate()


async def end(process: Any, *, seconds: float = 60.0) -> Ended:
    """Wait until it has ended."""
    async with asyncio.timeout(seconds):
        out, err = await process.communicate()
    ended = Ended(code=process.returncode, out=(out or b"").decode(), err=(err or b"").decode())
    assert "Traceback" not in ended.err, ended.err
    return ended


async def run(socket: Path | None, *arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> Ended:
    """Run the client on pipes and wait for its end."""
    return await end(await start(socket, *arguments, env=env, **options))


class Terminal:
    """The client on a pseudo-terminal, and who sits before it. `shown` is all that was written, escapes and all."""

    def __init__(self, master: int, process: Any) -> None:
        self._master = master
        self.process = process
        self.shown = ""
        self._octets = bytearray()
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # EIO: no one has the other end any more
            piece = b""
        if not piece:
            asyncio.get_running_loop().remove_reader(self._master)
        self._octets += piece
        self.shown = self._octets.decode(errors="replace")

    @property
    def text(self) -> str:
        """Give what was written, without escapes."""
        return ESCAPES.sub("", self.shown).replace("\r\n", "\n")

    async def expect(self, text: str, *, seconds: float = 30.0) -> None:
        """Wait until the text was written."""
        try:
            async with asyncio.timeout(seconds):
                while text not in self.text:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{text!r} is not in {self.text!r}") from None

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    async def end(self, *, seconds: float = 60.0) -> int:
        """Wait until it has ended; give the exit code."""
        async with asyncio.timeout(seconds):
            code = await self.process.wait()
        await asyncio.sleep(0.05)
        assert "Traceback" not in self.text, self.text
        return code


@asynccontextmanager
async def terminal(
    socket: Path, *arguments: str, columns: int = 80, env: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[Terminal]:
    """Run the client on a terminal of its own; Ctrl-C reaches it. `options` may put a stream elsewhere."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = None
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *CLIENT,
                *arguments,
                env=environment(socket, {"TERM": "xterm-256color", **(env or {})}),
                preexec_fn=lambda: (os.setsid(), fcntl.ioctl(slave, termios.TIOCSCTTY, 0)),
                **{"stdin": slave, "stdout": slave, "stderr": slave, **options},
            )
        finally:
            os.close(slave)
        yield Terminal(master, process)
    finally:
        asyncio.get_running_loop().remove_reader(master)
        os.close(master)
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
