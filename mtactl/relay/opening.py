"""The way to an open session: connect, greeting, EHLO, STARTTLS. aiosmtplib speaks up to there, and is met here alone.

Its exceptions, ssl's and the socket's end here as TransientFailure. No failure to open a session is permanent, not even
a 554 greeting: RFC 5321 §3.1 has it mean 'no mail here', but one of several hosts (or one of its bad days) must not
cost a queue its mail, so the next host is tried and the lane backs off, as Postfix does.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from dataclasses import dataclass
from typing import cast

import aiosmtplib

from mtactl.errors import LocalShortage, TransientFailure
from mtactl.message.reply import Reply, printable
from mtactl.relay.commands import Offers
from mtactl.relay.session import SmtpSession
from mtactl.settings import TimeoutSettings

__all__ = ["SHORTAGES", "Endpoint", "HostUnreachable", "open_session"]

_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class HostUnreachable(TransientFailure):
    """This machine has no way to that kind of address (no IPv6, say), which tells nothing of the peer."""


class _TlsFailed(Exception):
    """STARTTLS got no answer that makes sense, the handshake failed, or nothing could be said after it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address to try: the name that led to it, and the numeric address."""

    host: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{printable(self.host, 255)}[{self.address}]:{self.port}"


async def open_session(
    endpoint: Endpoint,
    *,
    hostname: str,
    timeouts: TimeoutSettings,
    tls: ssl.SSLContext | None,
    pipelining: bool,
) -> SmtpSession:
    """Open a session as `hostname`, encrypted if `tls` is given and the peer can.

    When the peer makes nothing of STARTTLS, or the handshake fails, it is opened again in the clear (RFC 7435 §3).
    Raises TransientFailure.
    """
    if tls is not None:
        try:
            return await _open(endpoint, hostname, timeouts, tls, pipelining)
        except _TlsFailed:
            pass
    return await _open(endpoint, hostname, timeouts, None, pipelining)


async def _open(
    endpoint: Endpoint, hostname: str, timeouts: TimeoutSettings, tls: ssl.SSLContext | None, pipelining: bool
) -> SmtpSession:
    client = aiosmtplib.SMTP(hostname=endpoint.host, local_hostname=hostname, timeout=timeouts.ehlo, start_tls=False)
    connection = await _connect(endpoint, timeouts.connect)
    stage = "greeting"
    try:
        # without a time-out of its own aiosmtplib makes the transport before it is suspended at all, so that from
        # here on the socket belongs to a transport, whatever is cancelled when
        async with asyncio.timeout(timeouts.greeting):
            await client.connect(sock=connection, timeout=None)
        _require_silence(client)
        stage = "EHLO"
        await _hello(client)
        version = ""
        if tls is not None and client.supports_extension("starttls"):
            stage = "STARTTLS"
            version = await _start_tls(client, endpoint, tls, timeouts)
        return SmtpSession(
            _live_transport(client),
            peer=str(endpoint),
            offers=Offers.from_extensions(client.esmtp_extensions, pipelining=pipelining),
            timeouts=timeouts,
            tls=version,
        )
    except BaseException as error:
        client.close()
        if isinstance(error, aiosmtplib.SMTPException | OSError):
            raise TransientFailure(_reply_of(error, stage), str(endpoint)) from error
        raise


async def _connect(endpoint: Endpoint, limit: float) -> socket.socket:
    """Connect a socket of our own, as aiosmtplib has one time-out for the connection and the greeting."""
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    try:
        connection = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _no_connection(error, endpoint) from error
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(limit):
            await asyncio.get_running_loop().sock_connect(connection, (endpoint.address, endpoint.port))
    except BaseException as error:
        connection.close()
        if isinstance(error, TimeoutError):
            reply = Reply(450, "4.4.1", f"no connection within {limit:g} s")
            raise TransientFailure(reply, str(endpoint)) from error
        if isinstance(error, OSError):
            raise _no_connection(error, endpoint) from error
        raise
    return connection


def _no_connection(error: OSError, endpoint: Endpoint) -> TransientFailure:
    if error.errno in SHORTAGES:
        return LocalShortage(Reply(451, "4.3.2", f"no room here for a connection: {_sentence(error)}"), str(endpoint))
    kind = HostUnreachable if error.errno in _NO_ROUTE else TransientFailure
    return kind(Reply(450, "4.4.1", f"no connection: {_sentence(error)}"), str(endpoint))


async def _hello(client: aiosmtplib.SMTP) -> None:
    """Say EHLO, and HELO to a peer that does not know it (RFC 5321 §3.2)."""
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError as error:
        if not 500 <= error.code < 600 or not client.is_connected:
            raise
        await client.helo()
    _require_silence(client)


async def _start_tls(
    client: aiosmtplib.SMTP, endpoint: Endpoint, context: ssl.SSLContext, timeouts: TimeoutSettings
) -> str:
    """Encrypt the session and say EHLO again (RFC 3207 §4.2); give the version of TLS, "" if the peer refused.

    aiosmtplib throws away what came behind the 220 in the clear, so nothing can be slipped in. Raises _TlsFailed.
    """
    try:
        await client.starttls(
            server_hostname=endpoint.host, validate_certs=False, tls_context=context, timeout=timeouts.starttls
        )
    except aiosmtplib.SMTPResponseException as error:
        if error.code == 421:
            raise
        if error.code < 400 or not client.is_connected:
            raise _TlsFailed from error
        return ""
    # a name that can't be sent in the handshake is a ValueError
    except (aiosmtplib.SMTPException, OSError, ValueError) as error:
        raise _TlsFailed from error
    try:
        await _hello(client)
        return str(client.get_transport_info("ssl_object").version())
    except aiosmtplib.SMTPResponseException:
        raise
    except (aiosmtplib.SMTPException, OSError) as error:
        # with TLS 1.3 the peer may refuse our part of the handshake after ours is done
        raise _TlsFailed from error


def _live_transport(client: aiosmtplib.SMTP) -> asyncio.Transport:
    if client.transport is None or client.transport.is_closing():
        raise aiosmtplib.SMTPServerDisconnected("the peer closed the connection")
    return cast("asyncio.Transport", client.transport)  # uvloop's is none by its type


def _require_silence(client: aiosmtplib.SMTP) -> None:
    """Refuse a peer that said more than was asked for: what is left would be taken for the next reply."""
    if client.protocol is not None and client.protocol._buffer:  # noqa: SLF001 - the only place where it can be seen
        raise aiosmtplib.SMTPException("the peer spoke out of turn")


def _reply_of(error: Exception, stage: str) -> Reply:
    """Give a reply that says what went wrong; the peer's own words where it gave some."""
    if isinstance(error, aiosmtplib.SMTPResponseException):
        lines = [line.encode("utf-8", "surrogateescape") for line in error.message.split("\n")]
        if 400 <= error.code < 600:
            return Reply.from_lines(error.code, lines)
        reply = Reply.from_lines(max(error.code, 0), lines)
        return Reply(451, "4.5.0", printable(f"{stage}: a reply that makes no sense: {reply}"))
    if isinstance(error, TimeoutError):
        return Reply(451, "4.4.2", f"{stage}: time-out")
    if isinstance(error, ConnectionError):
        return Reply(451, "4.4.2", f"{stage}: connection lost")
    return Reply(451, "4.5.0", f"{stage}: {_sentence(error)}")


def _sentence(error: Exception) -> str:
    """Say what the error is; the system's own words, as the loops put their own in place of them."""
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    return printable(str(error))
