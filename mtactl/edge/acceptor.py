"""Accepts the connections of clients, a few in each turn of the event loop, so that a crowd is no burst.

The loops' own servers accept all that waits before anything hears of the first: a crowd then takes every descriptor,
and the control socket has none for the next command. Here a client for whom there is no place is told so and closed
on the spot, at the price of one descriptor; when there is none even for that, clients wait in the kernel's queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable

import structlog

__all__ = ["Acceptor", "bind"]

BACKLOG = 1024
ACCEPTS_A_TURN = 16
PAUSE = 0.2  # seconds, when there is no descriptor or memory for another connection
TOLD_EVERY = 60.0  # seconds between two words in the log on that

_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = structlog.get_logger()


async def bind(host: str, port: int) -> list[socket.socket]:
    """Bind a socket for each address of a host ("": all addresses). Raises OSError."""
    loop = asyncio.get_running_loop()
    # It knows how to bind; its sockets do not listen, and are closed again.
    server = await loop.create_server(asyncio.Protocol, host or None, port, start_serving=False)
    try:
        return [socket.socket(fileno=os.dup(bound.fileno())) for bound in server.sockets]
    finally:
        server.close()


class Acceptor:
    """Accepts on one socket, which it owns.

    `admit(peer)` gives None for a client that is let in, or what it is told; `make` makes its protocol.
    """

    def __init__(
        self,
        listening: socket.socket,
        *,
        admit: Callable[[str], bytes | None],
        make: Callable[[], asyncio.Protocol],
    ) -> None:
        name = listening.getsockname()
        self.address = (str(name[0]), int(name[1])) if isinstance(name, tuple) else (str(name), 0)
        self.arriving: set[asyncio.Task[object]] = set()  # connections that have no session yet
        self._listening = listening
        self._admit = admit
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._told_at = float("-inf")

    def start(self) -> None:
        """Listen. Raises OSError."""
        self._listening.setblocking(False)
        self._listening.listen(BACKLOG)
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        """Listen no more."""
        if self._listening.fileno() < 0:
            return
        self._loop.remove_reader(self._listening)
        if self._pause is not None:
            self._pause.cancel()
        self._listening.close()

    async def wait_closed(self) -> None:
        """Wait for the connections that were accepted to become sessions."""
        if self.arriving:
            await asyncio.wait(self.arriving)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                connection, name = self._listening.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                if error.errno in _SHORTAGES:
                    self._rest(error)
                    return
                continue  # an error of the connection that was to be accepted (accept(2))
            refusal = self._admit(f"[{name[0]}]:{name[1]}")
            if refusal is not None:
                with contextlib.suppress(OSError):
                    connection.send(refusal, socket.MSG_DONTWAIT)
                connection.close()
                continue
            connection.setblocking(False)
            task = self._loop.create_task(self._take(connection))
            self.arriving.add(task)
            task.add_done_callback(self.arriving.discard)

    async def _take(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._make, connection)
        except OSError:
            connection.close()  # it is gone already

    def _rest(self, error: OSError) -> None:
        """Leave the clients in the kernel's queue for a moment; asking again at once would only take the CPU."""
        self._loop.remove_reader(self._listening)
        self._pause = self._loop.call_later(PAUSE, self._go_on)
        now = self._loop.time()
        if now >= self._told_at + TOLD_EVERY:
            self._told_at = now
            _log.warning("no room for clients", address=self.address[0], port=self.address[1], why=error.strerror)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listening, self._accept)
