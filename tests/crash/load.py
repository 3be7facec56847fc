"""What a daemon that may be killed at any moment has to bear: peers, and an application that remembers each answer."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

DOMAINS = ("swift.example", "steady.example", "slow.example", "moody.example", "rude.example")
PROFILES = {
    "*": {"latency": 0.01, "reject": 0.04, "defer": 0.04, "defer_end": 0.03, "hang_up": 0.01},
    "swift.example": {"latency": 0.0},
    "slow.example": {"latency": 0.25},
    "moody.example": {"latency": 0.03, "defer": 0.15, "defer_end": 0.1},
    "rude.example": {"latency": 0.06, "hang_up": 0.08},
}
SIZES = (300, 300, 2_000, 2_000, 2_000, 12_000, 40_000)
CONNECTIONS = 6
RATE = 1100.0  # messages a second that are offered, as long as the daemon takes them


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One message to inject; `data` is what follows DATA, less the final dot."""

    sender: str
    recipients: list[str]
    data: bytes


class Application:
    """Injects letters over several connections until the daemon is gone.

    `sent` has the stamp at which each recipient's message was begun (ns of CLOCK_MONOTONIC), `answers` the reply to its
    final dot (0: none), `contents` the size and the CRC-32 of what it was after DATA.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._injected = 0
        self.sent: dict[str, int] = {}
        self.answers: dict[str, int] = {}
        self.contents: dict[str, tuple[int, int]] = {}

    async def inject(self, letters: Iterator[Letter]) -> None:
        """Inject letters until they end or all connections are lost."""
        self._begun = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._connect(letters))

    async def _connect(self, letters: Iterator[Letter]) -> None:
        with contextlib.suppress(OSError, EOFError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                await _reply(reader)
                writer.write(b"EHLO application.example\r\n")
                await _reply(reader)
                for letter in letters:
                    await self._inject(reader, writer, letter)
            finally:
                writer.close()

    async def _inject(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, letter: Letter) -> None:
        self._injected += 1
        await asyncio.sleep(self._begun + self._injected / RATE - asyncio.get_running_loop().time())
        self.sent.update(dict.fromkeys(letter.recipients, time.monotonic_ns()))
        self.answers.update(dict.fromkeys(letter.recipients, 0))
        self.contents.update(dict.fromkeys(letter.recipients, (len(letter.data), zlib.crc32(letter.data))))
        envelope = [f"MAIL FROM:<{letter.sender}>", *(f"RCPT TO:<{each}>" for each in letter.recipients), "DATA", ""]
        writer.write("\r\n".join(envelope).encode())
        codes = [await _reply(reader) for _ in envelope[:-1]]
        if codes == [250] * (len(codes) - 1) + [354]:
            writer.write(letter.data + b".\r\n")
            self.answers.update(dict.fromkeys(letter.recipients, await _reply(reader)))
        else:
            assert 421 in codes, codes  # it is stopping


def write_letter(chance: random.Random, campaign: str, number: int) -> Letter:
    """Write a letter to one recipient, or to some at one domain and some elsewhere."""
    own, *elsewhere = chance.choices(DOMAINS, k=4)
    domains = [own] if chance.random() < 0.7 else [own, own, own, *elsewhere]
    head = f"X-Campaign-ID: {campaign}\r\n" if campaign else ""
    filler = ("x" * 70 + "\r\n") * (chance.choice(SIZES) // 72)
    return Letter(
        sender=f"bounce+{campaign}+{number}@news.example",
        recipients=[f"{campaign or 'none'}-{number}-{k}@{domain}" for k, domain in enumerate(domains)],
        data=f"{head}From: a@news.example\r\nSubject: {number}\r\n\r\n{filler}".encode(),
    )


async def _reply(reader: asyncio.StreamReader) -> int:
    while True:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        if line[3:4] != b"-":
            return int(line[:3])
