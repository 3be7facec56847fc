"""An SMTP server for tests that says what a test tells it to, when it tells it to."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

EHLO = b"250-peer.test\r\n250-8BITMIME\r\n250 PIPELINING\r\n"
EHLO_PLAIN = b"250-peer.test\r\n250 8BITMIME\r\n"


class HangUp(Exception):
    """The client closed the connection."""


class Conversation:
    """The peer's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.heard: list[bytes] = []
        self.messages: list[bytes] = []

    def say(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def say_slowly(self, octets: bytes) -> None:
        """Say it in single octets, each in a packet of its own as far as the kernel allows."""
        for octet in octets:
            self.writer.write(bytes([octet]))
            await self.writer.drain()
            await asyncio.sleep(0)

    async def hear(self, *expected: bytes) -> bytes:
        """Read a command for each verb that is expected; give the last."""
        line = b""
        for verb in expected:
            line = await self.reader.readline()
            if not line:
                raise HangUp
            self.heard.append(line)
            assert line.startswith(verb), f"{line!r} came where {verb!r} was due"
        return line

    async def hear_message(self) -> bytes:
        """Read a message with its end; the client is to wait for the reply before it goes on."""
        message = bytearray()
        try:
            while not (message.endswith(b"\r\n.\r\n") or message == b".\r\n"):
                part = await self.reader.read(1 << 16)
                if not part:
                    raise HangUp
                message += part
        finally:
            self.messages.append(bytes(message))
        return self.messages[-1]

    async def open(self, ehlo: bytes = EHLO) -> None:
        """Greet and answer EHLO."""
        self.say(b"220 peer.test ESMTP\r\n")
        await self.hear(b"EHLO ")
        self.say(ehlo)

    async def take(self, recipients: int = 1) -> None:
        """Take one pipelined transaction."""
        await self.hear(b"MAIL ", *[b"RCPT "] * recipients, b"DATA")
        self.say(b"250 ok\r\n" * (recipients + 1) + b"354 go\r\n")
        await self.hear_message()
        self.say(b"250 2.0.0 queued\r\n")

    async def hang(self) -> None:
        """Say nothing more, until the client closes."""
        while await self.reader.read(65536):
            pass
        raise HangUp


Script = Callable[[Conversation], Awaitable[None]]


class SmtpPeer:
    """Runs a script for each connection; the connection is closed when it ends. The last script repeats."""

    def __init__(self, scripts: tuple[Script, ...]) -> None:
        self.scripts = scripts
        self.conversations: list[Conversation] = []
        self.failures: list[BaseException] = []
        self.port = 0
        self._tasks: set[asyncio.Task] = set()

    @property
    def heard(self) -> list[bytes]:
        """All commands of all connections."""
        return [line for conversation in self.conversations for line in conversation.heard]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        conversation = Conversation(reader, writer)
        script = self.scripts[min(len(self.conversations), len(self.scripts) - 1)]
        self.conversations.append(conversation)
        try:
            await script(conversation)
        except (HangUp, ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:
            self.failures.append(error)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def stop(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        while self._tasks:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def run_smtp_peer(*scripts: Script):
    """Run a peer on a free port of 127.0.0.1 until the block ends; what went wrong in its scripts is raised there."""
    peer = SmtpPeer(scripts)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        await peer.stop()
        await server.wait_closed()
    if peer.failures:
        raise peer.failures[0]
