"""The listening sockets of the edge, and the sessions that came through them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Sequence

import structlog

from mtactl.edge.policy import ListenerPolicy
from mtactl.edge.session import SMTPSession
from mtactl.message.reply import Reply

__all__ = ["Listeners"]

BACKLOG = 1024
CLOSING = 1.0  # seconds

_log = structlog.get_logger()


class Listeners:
    """All listeners of a node, one for each policy, in their order."""

    def __init__(self, policies: Sequence[ListenerPolicy]) -> None:
        self._listeners = [_Listener(policy) for policy in policies]

    async def start(self, sockets: Sequence[Sequence[socket.socket]] = ()) -> None:
        """Begin to listen; all or none. `sockets` are bound ones to use instead, for each listener (empty: bind).

        Raises OSError.
        """
        # aiosmtpd tells the library's own logger of every connection, with what the client sent.
        logging.getLogger("mail.log").setLevel(logging.ERROR)
        try:
            for number, listener in enumerate(self._listeners):
                await listener.start(sockets[number] if number < len(sockets) else ())
        except OSError:
            await self.stop(0.0)
            raise

    async def stop(self, grace: float) -> None:
        """Take no more clients, send the idle ones away; messages on their way in have `grace` seconds to finish."""
        for listener in self._listeners:
            listener.close()
        sessions = [session for listener in self._listeners for session in listener.sessions]
        for session in sessions:
            session.stop()
        running = [(session, session.driver) for session in sessions if session.driver is not None]
        finished = [driver.finished for _, driver in running]
        if finished:
            await asyncio.wait(finished, timeout=grace)
            for session, driver in running:
                if not driver.finished.done():
                    _log.warning("session_aborted", client=session.peer)
                    session.abort()
                    driver.cancel()
            await asyncio.gather(*finished, return_exceptions=True)
        for listener in self._listeners:
            await listener.wait_closed()

    @property
    def addresses(self) -> Sequence[tuple[str, int]]:
        """Where the listeners are bound, with the real ports."""
        return [address for listener in self._listeners for address in listener.addresses]

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return sum(len(listener.sessions) for listener in self._listeners)


class _Listener:
    """One listener and its sessions."""

    def __init__(self, policy: ListenerPolicy) -> None:
        self._policy = policy
        self._servers: list[asyncio.Server] = []
        self._closed = False
        self.sessions: set[SMTPSession] = set()

    async def start(self, bound: Sequence[socket.socket]) -> None:
        loop = asyncio.get_running_loop()

        def factory() -> SMTPSession:
            return SMTPSession(self._policy, loop, opened=self._open, closed=self.sessions.discard)

        for each in bound:
            self._servers.append(await loop.create_server(factory, sock=each, backlog=BACKLOG))
        if not bound:
            host, port = self._policy.settings.listen
            self._servers.append(await loop.create_server(factory, host or None, port, backlog=BACKLOG))
        for host, port in self.addresses:
            _log.info("listening", address=host, port=port)

    def close(self) -> None:
        self._closed = True
        for server in self._servers:
            server.close()

    async def wait_closed(self) -> None:
        # From Python 3.12 on it waits for the last client to take the last reply, which may be never.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING):
                for server in self._servers:
                    await server.wait_closed()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        names = [listening.getsockname() for server in self._servers for listening in server.sockets]
        return [(str(name[0]), int(name[1])) for name in names if isinstance(name, tuple)]

    def _open(self, session: SMTPSession) -> Reply | None:
        if self._closed:
            return Reply(421, "4.3.2", f"{self._policy.hostname} is shutting down")
        if len(self.sessions) >= self._policy.settings.max_connections:
            _log.warning("too_many_connections", client=session.peer, limit=self._policy.settings.max_connections)
            return Reply(421, "4.3.2", f"{self._policy.hostname} too many connections, try again later")
        self.sessions.add(session)
        return None
