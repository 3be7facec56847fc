"""The control API from the client's side: HTTP/1.1 over the Unix socket, one connection a request.

A new connection costs microseconds here, and none goes stale while a person thinks about a question. What goes wrong
with the socket or the protocol is mapped here, once: Unreachable, NotPermitted, or Refused with the daemon's reasons.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import http.client
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from mtactl.cli.failures import NotPermitted, Refused, Unreachable
from mtactl.cli.figures import duration
from mtactl.control.types import Problem

__all__ = ["Answer", "Client", "campaign_path", "message_path"]

T = TypeVar("T")

_PATIENCE = 10.0  # seconds without an octet from the daemon
_SILENCE = 60.0  # seconds without an octet on a stream; on the events there is a sign of life every 15
_PAUSE = 0.05  # seconds between two tries to connect while the daemon's backlog is full
_PIECE = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[T]):
    """A JSON answer: what it means, and as it came."""

    value: T
    raw: bytes


def campaign_path(campaign: str, verb: str = "") -> str:
    """Give the path of a campaign, or of a verb on it. The id may have slashes in it, so it is percent-encoded."""
    path = f"/v1/campaigns/{quote(campaign, safe='')}"
    return f"{path}/{verb}" if verb else path


def message_path(queue_id: str) -> str:
    """Give the path of a message in the queue."""
    return f"/v1/queue/{quote(queue_id, safe='')}"


class Client:
    """Asks the daemon behind a control socket. `patience` is how long to wait for an octet, in seconds."""

    def __init__(self, path: str, *, patience: float = _PATIENCE) -> None:
        self.path = path
        self._patience = patience
        self._open: set[_UnixConnection] = set()

    def hang_up(self) -> None:
        """End what other threads wait for on this client; they get Unreachable."""
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.opened.shutdown(socket.SHUT_RDWR)

    def get(self, path: str, kind: type[T], *, patience: float | None = None, **query: Any) -> Answer[T]:
        """Read something. Parameters that are None are left out. Raises Failure."""
        return self._ask("GET", _target(path, query), kind, body=None, patience=patience or self._patience)

    def post(
        self, path: str, kind: type[T], body: msgspec.Struct | None = None, *, patience: float | None = None
    ) -> Answer[T]:
        """Command something. What is None in the body is left out. Raises Failure."""
        facts = {} if body is None else {k: v for k, v in msgspec.structs.asdict(body).items() if v is not None}
        octets = msgspec.json.encode(facts)
        return self._ask("POST", path, kind, body=octets, patience=patience or self._patience)

    @contextlib.contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, silence: float = _SILENCE, **query: Any
    ) -> Iterator[Iterator[bytes]]:
        """Open a stream and give its octets as they come. Raises Failure, at once or on the way."""
        with self._connected(self._patience) as connection:
            response = self._send(connection, "GET", _target(path, query), headers=headers)
            with contextlib.closing(response):
                if response.status >= 300:
                    raise self._refusal(response.status, self._read(response, self._patience))
                connection.opened.settimeout(silence)
                yield self._pieces(response, silence)

    def _ask(self, method: str, target: str, kind: type[T], *, body: bytes | None, patience: float) -> Answer[T]:
        with self._connected(patience) as connection:
            response = self._send(connection, method, target, body=body)
            with contextlib.closing(response):
                raw = self._read(response, patience)
            if response.status >= 300:
                raise self._refusal(response.status, raw)
            return Answer(value=self._decode(raw, kind), raw=raw)

    def _decode(self, raw: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unreachable(
                f"the answer on {self.path} is not one that this mtactl understands: {error}",
                "Are mtactl and mtactld of the same version? (mtactl --version, mtactl --json status)",
            ) from error

    @contextlib.contextmanager
    def _connected(self, patience: float) -> Iterator[_UnixConnection]:
        connection = _UnixConnection(self.path, patience)
        try:
            connection.connect()
        except _Silent as error:
            raise self._silent(patience) from error
        except OSError as error:
            raise self._why_not_open(error) from error
        self._open.add(connection)
        try:
            yield connection
        except Unreachable as failure:
            failure.asked = True
            raise
        finally:
            self._open.discard(connection)
            connection.close()

    def _send(
        self,
        connection: _UnixConnection,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        given = {"Connection": "close", "Accept": "*/*", **(headers or {})}
        if body is not None:
            given["Content-Type"] = "application/json"
        with self._mapping(connection.timeout):
            # A server that turns us away may have closed its end before it read what we ask; the answer is there.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, body, given)
            return connection.getresponse()

    def _read(self, response: http.client.HTTPResponse, patience: float) -> bytes:
        with self._mapping(patience):
            return response.read()

    def _pieces(self, response: http.client.HTTPResponse, silence: float) -> Iterator[bytes]:
        while True:
            with self._mapping(silence):
                piece = response.read1(_PIECE)
                if not piece and response.length:  # read1 does not mind a body that is shorter than it was said to be
                    raise http.client.IncompleteRead(piece, response.length)
            if not piece:
                return
            yield piece

    @contextlib.contextmanager
    def _mapping(self, patience: float | None) -> Iterator[None]:
        """Say what went wrong on a connection that was open."""
        try:
            yield
        except TimeoutError as error:
            raise self._silent(patience or self._patience) from error
        except (http.client.IncompleteRead, http.client.RemoteDisconnected, ConnectionError) as error:
            raise Unreachable(
                f"the daemon hung up in the middle of its answer on {self.path}",
                "Was mtactld stopped or restarted just now? systemctl status mtactld",
            ) from error
        except http.client.HTTPException as error:
            raise Unreachable(
                f"what listens on {self.path} does not speak HTTP",
                "Is that the control socket? Another one: --socket PATH or $MTACTL_SOCKET",
            ) from error

    def _silent(self, patience: float) -> Unreachable:
        return Unreachable(
            f"the daemon did not answer on {self.path} within {duration(patience)}",
            "It takes connections and is stuck, or stopped: systemctl status mtactld",
        )

    def _refusal(self, status: int, raw: bytes) -> Refused:
        try:
            problem = msgspec.json.decode(raw, type=Problem)
        except (msgspec.DecodeError, UnicodeDecodeError):
            text = f"the daemon answered with HTTP status {status} and no reason"
            problem = Problem(type="about:blank", title=text, status=status, detail=text)
            raw = msgspec.json.encode(problem)
        return Refused(problem, raw)

    def _why_not_open(self, error: OSError) -> Unreachable | NotPermitted:
        other = "Another socket: --socket PATH or $MTACTL_SOCKET"
        match error.errno:
            case errno.EACCES | errno.EPERM:
                return NotPermitted(f"you may not open the control socket {self.path}", _who_may(self.path))
            case errno.ENOENT:
                sentence = f"there is no control socket at {self.path}"
                return Unreachable(sentence, f"Is mtactld running? systemctl status mtactld. {other}")
            case errno.ECONNREFUSED:
                sentence = f"nothing listens on {self.path}"
                return Unreachable(sentence, f"mtactld was stopped or killed: systemctl status mtactld. {other}")
            case _:
                return Unreachable(f"{self.path} can't be opened: {error.strerror or error}", other)


class _Silent(OSError):
    """The daemon's backlog stayed full."""


class _UnixConnection(http.client.HTTPConnection):
    """A connection to a Unix socket. `opened` stays at hand when http.client has handed the socket to a response."""

    opened: socket.socket

    def __init__(self, path: str, patience: float) -> None:
        super().__init__("mtactl", timeout=patience)
        self._path = path
        self._patience = patience

    def connect(self) -> None:
        """Open the socket. A full backlog is told with EAGAIN on Unix sockets; then try again for a while."""
        deadline = time.monotonic() + self._patience
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(self._patience)
                sock.connect(self._path)
            except (BlockingIOError, TimeoutError):
                sock.close()
                if time.monotonic() >= deadline:
                    raise _Silent from None
                time.sleep(_PAUSE)
            except BaseException:
                sock.close()
                raise
            else:
                self.sock = self.opened = sock
                return


def _target(path: str, query: Mapping[str, Any]) -> str:
    pairs = [
        f"{name}={quote(each, safe='')}"
        for name, value in query.items()
        if value is not None
        for each in (_text(value),)
    ]
    return f"{path}?{'&'.join(pairs)}" if pairs else path


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(value) if isinstance(value, (list, tuple)) else str(value)


def _who_may(path: str) -> str:
    """Say what would help, as far as the socket's file can be seen."""
    group = None
    for place in (Path(path), Path(path).parent):  # a socket in a closed folder can't be seen, but the folder can
        with contextlib.suppress(OSError, KeyError):
            group = grp.getgrgid(place.stat().st_gid).gr_name
            break
    if group is None:
        return "Ask with sudo, or as a member of one of the groups in control.operators."
    if group == "root":
        return "Ask with sudo; or name a group in control.operators and restart mtactld, so that the socket gets it."
    return f"Ask with sudo, or become a member of the group {group} (usermod -aG {group} USER, then log in again)."
