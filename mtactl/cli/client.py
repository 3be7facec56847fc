"""HTTP/1.1 over the control socket. What can go wrong with a socket or an answer becomes a Failure here."""

from __future__ import annotations

import errno
import http.client
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NoReturn, TypeVar
from urllib.parse import quote

import msgspec

from mtactl.cli.failures import NotPermitted, Refused, Unreachable
from mtactl.control.types import Problem

__all__ = ["Answer", "Client", "Query", "campaign_path"]

T = TypeVar("T")

Query = Sequence[tuple[str, str]]

TIMEOUT = 10.0  # seconds without an octet
_PIECE = 1 << 16
_STRANGE = "Is it mtactld's control socket, and of the same version as this client?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[T]):
    """What the daemon answered: the document as it came, and what it means."""

    body: bytes
    value: T


class Client:
    """Asks the daemon behind a Unix socket, with one connection a request. Raises Failure."""

    def __init__(self, path: Path, *, timeout: float = TIMEOUT) -> None:
        self.path = path
        self._timeout = timeout

    def get(self, path: str, kind: type[T], *, query: Query = (), timeout: float | None = None) -> Answer[T]:
        """Read a document. `timeout` is seconds without an octet."""
        return self._ask("GET", path + _query(query), None, kind, timeout)

    def post(
        self, path: str, kind: type[T], *, body: msgspec.Struct | None = None, timeout: float | None = None
    ) -> Answer[T]:
        """Give a command, and read the document that answers it."""
        return self._ask("POST", path, msgspec.json.encode({} if body is None else body), kind, timeout)

    @contextmanager
    def stream(
        self, path: str, *, query: Query = (), headers: Mapping[str, str] | None = None, timeout: float | None = None
    ) -> Iterator[Iterator[bytes]]:
        """Open a stream; give its pieces as they come. A stream that is cut raises Unreachable, from the iterator."""
        with self._failures(), self._open("GET", path + _query(query), None, headers or {}, timeout) as response:
            yield self._pieces(response)

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        with self._failures():
            while piece := response.read1(_PIECE):
                yield piece
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)

    def _ask(self, method: str, target: str, body: bytes | None, kind: type[T], timeout: float | None) -> Answer[T]:
        with self._failures(), self._open(method, target, body, {}, timeout) as response:
            text = response.read()
        try:
            return Answer(body=text, value=msgspec.json.decode(text, type=kind))
        except msgspec.MsgspecError as error:
            raise Unreachable(f"{self.path} answered what is not understood: {error}. {_STRANGE}") from None

    @contextmanager
    def _open(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], timeout: float | None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = _UnixConnection(self.path, self._timeout if timeout is None else timeout)
        try:
            given = {"Connection": "close", **({} if body is None else {"Content-Type": "application/json"})}
            connection.request(method, target, body=body, headers={**given, **headers})
            with connection.getresponse() as response:
                if response.status != http.client.OK:
                    self._refuse(response.status, response.read())
                yield response
        finally:
            connection.close()

    def _refuse(self, status: int, body: bytes) -> NoReturn:
        try:
            problem = msgspec.json.decode(body, type=Problem)
        except msgspec.MsgspecError:
            raise Unreachable(f"{self.path} answered {status} without a reason. {_STRANGE}") from None
        if status == http.client.FORBIDDEN:
            raise NotPermitted(problem.detail)
        raise Refused(problem)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Map what sockets and http.client raise."""
        where = str(self.path)
        try:
            yield
        except TimeoutError:
            raise Unreachable(f"mtactld does not answer on {where}. Is it stuck? Its log may tell.") from None
        except (http.client.IncompleteRead, ConnectionResetError, BrokenPipeError):
            raise Unreachable(f"mtactld hung up on {where} before its answer was complete.") from None
        except http.client.HTTPException as error:
            raise Unreachable(f"{where} does not speak HTTP ({type(error).__name__}). {_STRANGE}") from None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("mtactl", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket. Raises Failure with what to check."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.timeout)
            connection.connect(os.fsencode(self._path))
        except OSError as error:
            connection.close()
            raise _unconnected(self._path, error) from None
        self.sock = connection


def _unconnected(path: Path, error: OSError) -> NotPermitted | Unreachable:
    other = "Another socket: --socket PATH or $MTACTL_SOCKET."
    match error:
        case PermissionError():
            return NotPermitted(
                f"You may not open {path}.",
                details=(
                    "Ask as root, or as a member of one of the groups in control.operators or control.observers.",
                ),
            )
        case FileNotFoundError() | NotADirectoryError():
            return Unreachable(f"There is no {path}. Does mtactld run here?", details=(other,))
        case ConnectionRefusedError():
            return Unreachable(f"No one listens on {path}. Does mtactld run here?", details=(other,))
        case TimeoutError() | BlockingIOError():
            return Unreachable(f"mtactld takes no connection on {path}. Is it stuck? Its log may tell.")
        case _:
            why = os.strerror(error.errno) if error.errno in errno.errorcode else str(error)
            return Unreachable(f"{path} can't be reached: {why}.", details=(other,))


def campaign_path(campaign: str, verb: str = "") -> str:
    """Give the path of a campaign's report or of one of its verbs. The id is one segment, whatever is in it."""
    path = f"/v1/campaigns/{quote(campaign, safe='')}"
    return f"{path}/{verb}" if verb else path


def _query(pairs: Query) -> str:
    # Not urlencode: it writes a space as a plus sign, and the daemon takes a plus sign for one.
    text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    return f"?{text}" if text else ""
