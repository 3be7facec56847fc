"""The edge for tests: an intake in memory, listeners on free ports, and a client that says just what it is told to."""

import asyncio
from contextlib import asynccontextmanager

from mtactl.edge.listener import Listeners
from mtactl.edge.policy import ListenerPolicy
from mtactl.message.headers import CampaignHeaders
from mtactl.message.reply import Reply
from mtactl.settings import ListenerSettings

NOW = 1_795_000_000_000_000
HEADERS = ("X-Campaign-ID", "X-Campaign", "X-Job")
QUEUED = Reply(250, "2.0.0", "Ok: queued as 0000000001")


class MemoryIntake:
    """Keeps what it is given. `commit` is waited for before each reply; `refusal` is what `ready` says."""

    def __init__(self):
        self.messages = []
        self.reply = QUEUED
        self.refusal = None
        self.error = None
        self.commit = asyncio.Event()
        self.commit.set()
        self.begun = 0
        self.committed = 0

    def ready(self):
        return self.refusal

    async def accept(self, message):
        self.begun += 1
        await self.commit.wait()
        if self.error is not None:
            raise self.error
        self.committed += 1
        self.messages.append(message)
        return self.reply


def make_policy(intake, *, max_hold=86_400, max_errors=20, now=None, **settings):
    return ListenerPolicy(
        hostname="mx.test",
        settings=ListenerSettings(listen=("127.0.0.1", 0), **settings),
        campaigns=CampaignHeaders(HEADERS),
        intake=intake,
        longest_hold=lambda: max_hold,
        max_errors=max_errors,
        **({} if now is None else {"now": now}),
    )


class Edge:
    """Running listeners with one policy."""

    def __init__(self, intake, policy, listeners):
        self.intake = intake
        self.policy = policy
        self.listeners = listeners

    @property
    def address(self):
        return self.listeners.addresses[0]

    @asynccontextmanager
    async def client(self, *, ehlo=True):
        client = Client(*await asyncio.open_connection(*self.address))
        try:
            if ehlo:
                assert (await client.reply())[0] == 220
                assert (await client.ask(b"EHLO client.test\r\n"))[0] == 250
            yield client
        finally:
            client.writer.close()

    async def until(self, holds):
        """Wait until something holds."""
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.002)


@asynccontextmanager
async def running_edge(**options):
    intake = MemoryIntake()
    policy = make_policy(intake, **options)
    listeners = Listeners([policy])
    await listeners.start()
    try:
        yield Edge(intake, policy, listeners)
        intake.commit.set()
    finally:
        await listeners.stop(5.0)
        assert listeners.connections == 0
        assert policy.budget.used == 0


class Client:
    """A raw connection."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    def send(self, octets):
        self.writer.write(octets)

    async def send_apart(self, *pieces):
        """Send pieces in packets of their own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.002)

    async def reply(self):
        """Read a reply; give its code and its text."""
        lines = []
        while True:
            async with asyncio.timeout(10):
                line = await self.reader.readuntil(b"\r\n")
            lines.append(line[4:-2].decode())
            if line[3:4] == b" ":
                return int(line[:3]), "\n".join(lines)

    async def codes(self, count):
        return [(await self.reply())[0] for _ in range(count)]

    async def ask(self, octets):
        self.send(octets)
        return await self.reply()

    async def refused(self, octets):
        """Ask, and give code and enhanced status code."""
        code, text = await self.ask(octets)
        return code, text.split()[0]

    async def begin(self, *recipients, sender=b"<a@example.com>"):
        """Begin a transaction, up to where DATA or BDAT is due."""
        recipients = recipients or (b"<b@example.org>",)
        self.send(b"MAIL FROM:" + sender + b"\r\n" + b"".join(b"RCPT TO:" + to + b"\r\n" for to in recipients))
        assert await self.codes(1 + len(recipients)) == [250] * (1 + len(recipients))

    async def deliver(self, message):
        """Give a message by DATA, in wire form with its end; give the reply."""
        assert (await self.ask(b"DATA\r\n"))[0] == 354
        return await self.ask(message)

    async def end(self):
        """Read to the end of the connection, and close; give what still came."""
        async with asyncio.timeout(10):
            said = await self.reader.read()
        self.writer.close()
        return said


class MemoryTransport(asyncio.Transport):
    """A transport that keeps what is written, for a protocol that is driven by hand."""

    def __init__(self):
        super().__init__(extra={"peername": ("127.0.0.1", 4711)})
        self.written = []
        self.closed = False
        self.reading = True

    def write(self, data):
        self.written.append(bytes(data))

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    abort = close

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True
