"""The listening sockets of the edge, and the sessions that came through them."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Sequence

import structlog

from mtactl.edge.acceptor import Acceptor, bind
from mtactl.edge.policy import ListenerPolicy
from mtactl.edge.session import SMTPSession
from mtactl.message.reply import Reply

__all__ = ["Listeners"]

TOLD_EVERY = 60.0  # seconds between two words in the log on clients that were turned away
LATELY = 5.0  # seconds for which it counts as a problem that one was

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

    def problems(self) -> Sequence[str]:
        """Give a sentence for each listener that has turned clients away lately."""
        return [problem for listener in self._listeners if (problem := listener.problem)]


class _Listener:
    """One listener and its sessions."""

    def __init__(self, policy: ListenerPolicy) -> None:
        self._policy = policy
        self._turned_away = 0  # clients that the log does not know of
        self._turned_away_at = float("-inf")
        self._told_at = float("-inf")
        self._acceptors: list[Acceptor] = []
        self._closed = False
        self.sessions: set[SMTPSession] = set()

    async def start(self, bound: Sequence[socket.socket]) -> None:
        sockets = bound or await bind(*self._policy.settings.listen)
        self._acceptors = [Acceptor(each, admit=self._admit, make=self._make_session) for each in sockets]
        for acceptor in self._acceptors:
            acceptor.start()
        for host, port in self.addresses:
            _log.info("listening", address=host, port=port)

    def close(self) -> None:
        self._closed = True
        for acceptor in self._acceptors:
            acceptor.close()

    async def wait_closed(self) -> None:
        for acceptor in self._acceptors:
            await acceptor.wait_closed()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [acceptor.address for acceptor in self._acceptors if not self._closed]

    def _make_session(self) -> SMTPSession:
        return SMTPSession(self._policy, asyncio.get_running_loop(), opened=self._open, closed=self.sessions.discard)

    def _admit(self, peer: str) -> bytes | None:
        """Say why a client that has connected is turned away, else None."""
        arriving = sum(len(acceptor.arriving) for acceptor in self._acceptors)
        if len(self.sessions) + arriving < self._policy.settings.max_connections:
            return None
        self._note_turned_away(peer)
        return Reply(421, "4.3.2", f"{self._policy.hostname} too many connections, try again later").encode()

    def _open(self, session: SMTPSession) -> Reply | None:
        if self._closed:
            return Reply(421, "4.3.2", f"{self._policy.hostname} is shutting down")
        self.sessions.add(session)
        return None

    def _note_turned_away(self, peer: str) -> None:
        """Keep in mind that there are too many clients, and say so now and then: they come by the thousand."""
        self._turned_away += 1
        now = self._turned_away_at = time.monotonic()
        if now >= self._told_at + TOLD_EVERY:
            self._told_at = now
            limit = self._policy.settings.max_connections
            _log.warning("too_many_connections", client=peer, limit=limit, turned_away=self._turned_away)
            self._turned_away = 0

    @property
    def problem(self) -> str:
        """Say that clients were turned away lately, or ""."""
        if time.monotonic() >= self._turned_away_at + LATELY:
            return ""
        limit = self._policy.settings.max_connections
        where = ", ".join(f"{host}:{port}" for host, port in self.addresses)
        return f"too many clients on {where}: beyond {limit} connections they are answered 421"
