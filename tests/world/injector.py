"""An application that injects mail by SMTP: several connections, pipelined, and it remembers every answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.world.newsletter import Mail


class Injector:
    """Injects mails; `answers` has the code of each recipient (0: the connection was lost before the answer).

    `ledger` is a file to which acknowledged addresses are written, a line each, as soon as the 250 was read.
    """

    def __init__(
        self, port: int, *, connections: int = 8, rate: float | None = None, ledger: Path | None = None
    ) -> None:
        self.port = port
        self.connections = connections
        self.rate = rate
        self.answers: dict[str, int] = {}
        self.texts: dict[int, str] = {}
        self._ledger = ledger.open("a", buffering=1) if ledger else None
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
        self._begun = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for _ in range(self.connections):
                group.create_task(self._connection(source))

    async def _connection(self, source: Iterator[Mail]) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return
        try:
            await self._reply(reader)
            writer.write(b"EHLO injector.example\r\n")
            await self._reply(reader)
            while not self._stopped:
                await self._pace()
                mail = next(source, None)
                if mail is None:
                    break
                await self._send(reader, writer, mail)
            writer.write(b"QUIT\r\n")
            await self._reply(reader)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    async def _pace(self) -> None:
        if self.rate is not None:
            due = self._begun + self._sent / self.rate
            self._sent += 1
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))

    async def _send(self, reader, writer, mail: Mail) -> None:
        self.answers[mail.recipient] = 0
        writer.write(f"MAIL FROM:<{mail.sender}>\r\nRCPT TO:<{mail.recipient}>\r\nDATA\r\n".encode())
        codes = [await self._reply(reader) for _ in range(3)]
        if codes[2] == 354:
            data = mail.data.replace(b"\r\n.", b"\r\n..")
            writer.write(data + (b".\r\n" if data.endswith(b"\r\n") else b"\r\n.\r\n"))
            codes.append(await self._reply(reader))
        else:
            writer.write(b"RSET\r\n")
            await self._reply(reader)
        code = next((code for code in codes if code >= 400), codes[-1])
        self.answers[mail.recipient] = code
        if code == 250 and self._ledger is not None:
            self._ledger.write(f"{mail.recipient}\n")

    async def _reply(self, reader) -> int:
        while True:
            line = await reader.readline()
            if not line.endswith(b"\n"):
                raise EOFError
            if line[3:4] != b"-":
                code = int(line[:3])
                self.texts.setdefault(code, line.decode().strip())
                return code
