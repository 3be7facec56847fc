"""An application that injects mail by SMTP: several connections, pipelined, and it remembers every answer.

Where the server offers PIPELINING (RFC 2920), a message's content and the next message's MAIL, RCPT and DATA go out
together: one round trip a message. In a process of its own, with newsletters:

    python -m tests.world.injector --port PORT [--rate MESSAGES_A_SECOND] [--answers FILE] CAMPAIGN:COUNT ...

prints a line of JSON at the end; FILE has a line for each message, "CODE ADDRESS".
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from tests.world.newsletter import Mail, newsletters

_ENVELOPE = ("mail", "rcpt", "data")


class Injector:
    """Injects mails; `answers` has the code of each recipient (0: the connection was lost before the answer).

    `ledger` is a file to which acknowledged addresses are written, a line each, in the tick in which the 250 was read.
    `rate` is messages a second, of all connections together. `texts` has one reply of each code.
    """

    def __init__(
        self,
        port: int,
        *,
        connections: int = 8,
        rate: float | None = None,
        ledger: Path | None = None,
        host: str = "127.0.0.1",
        pipelining: bool = True,
    ) -> None:
        self.host = host
        self.port = port
        self.connections = connections
        self.rate = rate
        self.pipelining = pipelining
        self.answers: dict[str, int] = {}
        self.texts: dict[int, str] = {}
        self._ledger = None if ledger is None else os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._lines: list[str] = []
        self._sent = 0
        self._stopped = False

    @property
    def acknowledged(self) -> set[str]:
        """Recipients whose message was answered 250."""
        return {address for address, code in self.answers.items() if code == 250}

    def stop(self) -> None:
        """Begin no further message."""
        self._stopped = True

    async def inject(self, mails: Iterable[Mail]) -> None:
        """Inject all mails; a lost connection is not opened again, and its message has no answer."""
        source = iter(mails)
        loop = asyncio.get_running_loop()
        self._begun = loop.time()
        self._sent = 0
        ends = []
        try:
            for _ in range(self.connections):
                connection = _Connection(self, source)
                try:
                    await loop.create_connection(lambda one=connection: one, self.host, self.port)
                except OSError:
                    continue
                ends.append(connection.ended)
            await asyncio.gather(*ends)
        finally:
            for end in ends:
                end.cancel()
            self._write_ledger()

    # -- asked by the connections -----------------------------------------------------------------------------------

    def take(self, source: Iterator[Mail]) -> Mail | float | None:
        """Give the next mail, or the seconds until one may be sent, or None when there are no more."""
        if self._stopped:
            return None
        if self.rate is not None:
            wait = self._begun + self._sent / self.rate - asyncio.get_running_loop().time()
            if wait > 0:
                return wait
        mail = next(source, None)
        if mail is not None:
            self._sent += 1
            self.answers[mail.recipient] = 0
        return mail

    def answered(self, mail: Mail, code: int, text: str) -> None:
        """Keep an answer."""
        self.answers[mail.recipient] = code
        self.texts.setdefault(code, text)
        if code == 250 and self._ledger is not None:
            if not self._lines:
                asyncio.get_running_loop().call_soon(self._write_ledger)
            self._lines.append(f"{mail.recipient}\n")

    def _write_ledger(self) -> None:
        lines, self._lines = self._lines, []
        if lines and self._ledger is not None:
            os.write(self._ledger, "".join(lines).encode())

    def close(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            os.close(self._ledger)
            self._ledger = None


class _Connection(asyncio.Protocol):
    """One connection: what it waits for is in `expected`, in order."""

    def __init__(self, injector: Injector, source: Iterator[Mail]) -> None:
        self.injector = injector
        self.source = source
        self.buffer = b""
        self.features: set[str] = set()
        self.expected: deque[Callable[[int, str], None]] = deque()
        self.next: Mail | None = None  # its envelope is on its way
        self.refusal: tuple[int, str] | None = None  # of the envelope that is being answered
        self.rcpt_taken = False
        self.unsent: list[bytes] = []  # commands kept back, where they go one at a time
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.expected.append(self.on_greeting)

    def connection_lost(self, exc) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        *lines, self.buffer = (self.buffer + data).split(b"\r\n")
        for line in lines:
            text = line.decode("utf-8", "replace")
            if line[3:4] == b"-":
                self.features.add(text[4:].upper())
                continue
            if not self.expected or not line[:3].isdigit():
                self.transport.abort()  # 421 on its own, or nonsense
                return
            self.expected.popleft()(int(line[:3]), text)

    def on_greeting(self, code: int, text: str) -> None:
        if code != 220:
            self.transport.close()
            return
        self.transport.write(b"EHLO injector.example\r\n")
        self.expected.append(self.on_ehlo)

    def on_ehlo(self, code: int, text: str) -> None:
        self.features.add(text[4:].upper())
        self.pipelining = self.injector.pipelining and "PIPELINING" in self.features
        self.go_on()

    def go_on(self, before: bytes = b"") -> None:
        """Send the next envelope, with what is to go out before it; or say QUIT."""
        taken = None if self.transport.is_closing() else self.injector.take(self.source)
        if isinstance(taken, float):
            self.transport.write(before)
            asyncio.get_running_loop().call_later(taken, self.go_on)
            return
        if taken is None:
            self.transport.write(before + b"QUIT\r\n")
            self.expected.append(lambda code, text: self.transport.close())
            return
        self.next = taken
        commands = [
            b"MAIL FROM:<%s>\r\n" % taken.sender.encode(),
            b"RCPT TO:<%s>\r\n" % taken.recipient.encode(),
            b"DATA\r\n",
        ]
        if self.pipelining:
            self.transport.write(before + b"".join(commands))
        else:
            self.transport.write(before + commands[0])
            self.unsent = commands[1:]
        self.expected += (self.on_mail, self.on_rcpt, self.on_data)

    def send_on(self) -> None:
        if self.unsent:
            self.transport.write(self.unsent.pop(0))

    def on_mail(self, code: int, text: str) -> None:
        self.refusal = None if code == 250 else (code, text)
        self.send_on()

    def on_rcpt(self, code: int, text: str) -> None:
        self.rcpt_taken = code in (250, 251)
        if not self.rcpt_taken and self.refusal is None:
            self.refusal = code, text
        self.send_on()

    def on_data(self, code: int, text: str) -> None:
        mail = self.next
        assert mail is not None
        if code != 354:
            self.injector.answered(mail, *(self.refusal or (code, text)))
            self.transport.write(b"RSET\r\n")
            self.expected.append(lambda code, text: self.go_on())
            return
        content = mail.wire if self.rcpt_taken else b".\r\n"
        refusal = self.refusal
        self.expected.append(lambda code, text: self.on_end(mail, *(refusal or (code, text))))
        if self.pipelining:
            self.go_on(content)
        else:
            self.transport.write(content)

    def on_end(self, mail: Mail, code: int, text: str) -> None:
        self.injector.answered(mail, code, text)
        if not self.pipelining:
            self.go_on()


async def _run(arguments: argparse.Namespace) -> dict:
    injector = Injector(arguments.port, connections=arguments.connections, rate=arguments.rate)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, injector.stop)
    mails = []
    for campaign in arguments.campaigns:
        name, _, count = campaign.rpartition(":")
        mails.append(newsletters(name, int(count), seed=arguments.seed))
    begun = time.monotonic()
    await injector.inject(chain(*mails))
    seconds = time.monotonic() - begun
    if arguments.answers is not None:
        arguments.answers.write_text("".join(f"{code} {address}\n" for address, code in injector.answers.items()))
    return {"seconds": seconds, "answers": Counter(injector.answers.values())}


def main() -> None:
    parser = argparse.ArgumentParser(prog="injector", description="inject newsletters by SMTP")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--answers", type=Path)
    parser.add_argument("campaigns", nargs="+", metavar="CAMPAIGN:COUNT")
    json.dump(asyncio.run(_run(parser.parse_args())), sys.stdout)
    print()


if __name__ == "__main__":
    main()
