"""Who calls, by the credentials that the kernel keeps of a Unix socket's peer, and what they may do.

Root and the daemon's own user are known without a look-up of any kind. For everyone else the groups of the calling
process (SO_PEERCRED, SO_PEERGROUPS) are compared with those of the configuration, and only where they do not settle it
the system's user and group tables are asked. What was found holds for a few seconds, so that a slow directory service
is asked once and not for each request.
"""

from __future__ import annotations

import enum
import errno
import grp
import os
import pwd
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import structlog

from mtactl.control.types import RequestedBy

__all__ = ["Caller", "Doorkeeper", "Peer", "Role", "read_peer"]

# Not in the socket module. The number is that of all Linux ports but parisc and sparc, where it is merely not found.
_SO_PEERGROUPS = 59
_UCRED = struct.Struct("=iII")
_MOST_GROUPS = 256  # socket.getsockopt() takes 1024 bytes at most
_REMEMBER = 5.0  # seconds
_REMEMBER_CALLERS = 1024

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Role(enum.IntEnum):
    """What a caller may do; each role may do what the one before it may."""

    STRANGER = 0
    OBSERVER = 1  # read
    OPERATOR = 2  # all


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process at the other end, as it was when it connected. `groups` are its supplementary groups."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A peer with its name and its role."""

    peer: Peer
    role: Role
    by: RequestedBy


class HasSocketOptions(Protocol):
    """A socket, or what asyncio and uvloop give out in its place."""

    def getsockopt(self, level: int, option: int, length: int, /) -> bytes:
        """Give a socket option's bytes."""


def read_peer(connection: HasSocketOptions) -> Peer:
    """Ask the kernel who is at the other end of a Unix stream socket. Raises OSError."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid=pid, uid=uid, gid=gid, groups=_read_groups(connection))


def _read_groups(connection: HasSocketOptions) -> tuple[int, ...]:
    try:
        groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS * 4)
    except OSError as error:
        # A kernel before 4.13, or a process in more groups than fit: the group table then has to do.
        if error.errno in {errno.ENOPROTOOPT, errno.ERANGE}:
            return ()
        raise
    return struct.unpack(f"={len(groups) // 4}I", groups)


class Doorkeeper:
    """Knows the operators and the observers. Groups that the system does not have are left out, with a warning."""

    def __init__(
        self, *, operators: Iterable[str], observers: Iterable[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._own = os.geteuid()
        self._operators = _group_ids("operators", operators)
        self._observers = _group_ids("observers", observers)
        self._clock = clock
        self._known: dict[tuple[int, int, tuple[int, ...]], tuple[float, Role, RequestedBy]] = {}

    def recognise(self, peer: Peer) -> Caller:
        """Give the caller's name and role; what was found for the same ids less than five seconds ago is used again."""
        now = self._clock()
        key = (peer.uid, peer.gid, peer.groups)
        known = self._known.get(key)
        if known is None or known[0] <= now:
            if len(self._known) >= _REMEMBER_CALLERS:
                self._known.clear()
            known = self._known[key] = (now + _REMEMBER, *self._look_up(peer))
        return Caller(peer=peer, role=known[1], by=known[2])

    def _look_up(self, peer: Peer) -> tuple[Role, RequestedBy]:
        user = _user(peer.uid)
        by = RequestedBy(uid=peer.uid, user=str(peer.uid) if user is None else user.pw_name)
        if peer.uid in {0, self._own}:
            return Role.OPERATOR, by
        role = self._role({peer.gid, *peer.groups})
        if role is not Role.OPERATOR and user is not None:
            # A user who was entered in a group counts at once, not from the next login on.
            role = max(role, self._role(os.getgrouplist(user.pw_name, user.pw_gid)))
        return role, by

    def _role(self, groups: Iterable[int]) -> Role:
        mine = frozenset(groups)
        if mine & self._operators:
            return Role.OPERATOR
        return Role.OBSERVER if mine & self._observers else Role.STRANGER


def _user(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _group_ids(setting: str, names: Iterable[str]) -> frozenset[int]:
    found = set()
    for name in names:
        try:
            found.add(grp.getgrnam(name).gr_gid)
        except KeyError:
            log.warning("control_group_unknown", setting=f"control.{setting}", group=name)
    return frozenset(found)
