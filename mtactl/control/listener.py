"""The control socket in the file system: bound so that at no instant anyone can connect whom its mode keeps out."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

import structlog

from mtactl.control.peers import read_peer
from mtactl.errors import MtactlError

__all__ = ["ControlSocketError", "Listener"]

_BACKLOG = 128
_TRY = 1.0  # seconds to wait for whoever may be listening on the socket that is there already

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class ControlSocketError(MtactlError):
    """The control socket can't be opened at its path."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"control socket {path}: {why}")
        self.path = path
        self.why = why


class Listener:
    """A listening Unix socket, bound by us or handed to us by the service manager (and then not ours to remove)."""

    def __init__(self, listening: socket.socket, *, path: Path | None = None) -> None:
        listening.setblocking(False)
        self.socket = listening
        self._path = path
        self._inode = None if path is None else _inode(path)

    @classmethod
    def bind(cls, path: Path, *, mode: int, groups: Sequence[str] = (), backlog: int = _BACKLOG) -> Listener:
        """Bind a socket at the path, making its folder if need be and replacing the socket of a dead daemon.

        The socket gets the first of the groups that exists, where we may give it that. Raises ControlSocketError.
        """
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _clear(path)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as error:
            raise ControlSocketError(path, _why(error)) from error
        bound = False
        try:
            # The mode of an unbound socket is the one that its name in the file system is made with, less the umask.
            # It is closed to all but us until its group is right, and no one can connect before listen().
            os.fchmod(listening.fileno(), 0o600)
            listening.bind(str(path))
            bound = True
            _give_to_group(path, groups)
            path.chmod(mode)
            listening.listen(min(backlog, _BACKLOG))
            return cls(listening, path=path)
        except OSError as error:
            listening.close()
            if bound:
                path.unlink(missing_ok=True)
            raise ControlSocketError(path, _why(error)) from error

    def change(self, groups: Sequence[str]) -> None:
        """Give the socket's file, if it is ours, the first of the groups that exists."""
        if self._path is not None and self._inode == _inode(self._path):
            with contextlib.suppress(FileNotFoundError):
                _give_to_group(self._path, groups)

    def remove(self) -> None:
        """Take the name out of the file system, unless another daemon has put its own there by now."""
        if self._path is not None and self._inode == _inode(self._path):
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()


def _clear(path: Path) -> None:
    """Remove a socket on which no one listens. Raises ControlSocketError when someone does, or it is not a socket."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ControlSocketError(path, "there is something that is not a socket; it is left as it is")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_TRY)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            pass
        except (TimeoutError, BlockingIOError):
            raise ControlSocketError(path, "a process that does not answer is listening on it") from None
        else:
            raise ControlSocketError(path, f"process {read_peer(probe).pid} is listening on it")
    path.unlink(missing_ok=True)


def _give_to_group(path: Path, groups: Sequence[str]) -> None:
    for name in groups:
        try:
            group = grp.getgrnam(name).gr_gid
        except KeyError:
            continue
        try:
            os.chown(path, -1, group)
        except PermissionError:
            log.info("control_socket_group_kept", path=str(path), group=name)
        return


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _why(error: OSError) -> str:
    return error.strerror or str(error)
