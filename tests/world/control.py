"""A control server with a client on it, in a folder of its own with a short path (a socket's has at most 107 bytes)."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from mtactl.control.server import ControlServer
from mtactl.settings import ControlSettings
from tests.world.memory_node import MemoryNode

LIMIT = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """Give the last part of the problem's type, after a look at whether it is a problem document at all."""
        assert self.headers["Content-Type"] == "application/problem+json", self.body
        assert self.json["status"] == self.status
        assert self.json["title"]
        assert self.json["detail"]
        return self.json["type"].removeprefix("urn:mtactl:problem:")


class Api:
    """A client that sends paths as they are written."""

    def __init__(self, node: MemoryNode, server: ControlServer, path: Path, session: aiohttp.ClientSession) -> None:
        self.node = node
        self.server = server
        self.path = path
        self.session = session

    def open(self, method: str, path: str, **options: Any) -> Any:
        """Send a request; give what aiohttp gives, to be entered with `async with`."""
        return self.session.request(method, URL(f"http://mtactl{path}", encoded=True), **options)

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        async with self.open(method, path, **options) as response:
            return Answer(status=response.status, headers=response.headers, body=await response.read())

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.ask("POST", path, data=data, **options)


@asynccontextmanager
async def short_folder() -> AsyncIterator[Path]:
    """Give a new folder that all users may enter, and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="mtactl-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def serving(node: MemoryNode | None = None, *, keep_alive: float = 15.0, **settings: Any) -> AsyncIterator[Api]:
    """Serve a node and give a client of it."""
    node = MemoryNode() if node is None else node
    async with short_folder() as folder:
        path = folder / "control.sock"
        given = ControlSettings(**{"socket": path, "operators": (), "observers": (), **settings})
        server = ControlServer(node, given, keep_alive=keep_alive)
        await server.start()
        try:
            connector = aiohttp.UnixConnector(str(path), limit=0)
            async with aiohttp.ClientSession(connector=connector, timeout=LIMIT) as session:
                yield Api(node, server, path, session)
        finally:
            await server.stop()


async def curl(path: Path, *arguments: str, **options: Any) -> tuple[int, bytes]:
    """Run curl on the socket; give the HTTP status (0 when there was none) and the body."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--max-time", "20", "--unix-socket", str(path), "--write-out", "\n%{http_code}"),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        cwd="/",
        **options,
    )
    output, _ = await process.communicate()
    body, _, status = output.rpartition(b"\n")
    return int(status), body


async def until(holds: Any, *, seconds: float = 10.0) -> None:
    """Wait until a condition holds; fail when it does not come to hold."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)
