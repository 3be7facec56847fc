"""Which of the sockets that systemd holds for the daemon is whose.

A socket belongs to the listener of the configuration that has its address. One that nobody takes would leave clients
waiting in it for ever, so it is an error at the start, as a mistake in the file is; what the configuration has and
systemd does not hold, the daemon opens itself.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtactl.errors import ConfigError
from mtactl.settings import Settings

__all__ = ["Activated", "share_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Activated:
    """Sockets by their owner: `smtp` has a list for each [[listener]], in their order, empty where it is to bind."""

    smtp: Sequence[Sequence[socket.socket]]
    control: socket.socket | None = None
    metrics: socket.socket | None = None


def share_out(given: Mapping[str, Sequence[socket.socket]], settings: Settings) -> Activated:
    """Give each socket, by its FileDescriptorName= (smtp, control, metrics), to its owner.

    Raises ConfigError with all that does not fit; then all of them are closed.
    """
    problems: list[str] = []
    smtp: list[list[socket.socket]] = [[] for _ in settings.listener]
    for bound in given.get("smtp", ()):
        owners = [number for number, listener in enumerate(settings.listener) if _is_at(bound, listener.listen)]
        if owners:
            smtp[owners[0]].append(bound)
        else:
            problems.append(f"no [[listener]] listens on {_show(bound)}, which systemd holds open for mail")
    control, metrics = [*given.get("control", ())], [*given.get("metrics", ())]
    if len(control) > 1 or len(metrics) > 1:
        problems.append("systemd holds open more than one socket for control, or for metrics")
    problems += [
        f"control.socket is {settings.control.socket}, but systemd holds {_show(bound)} open for it"
        for bound in control
        if not _is_path(bound, settings.control.socket)
    ]
    problems += [
        f"metrics.listen is not {_show(bound)}, which systemd holds open for it"
        for bound in metrics
        if settings.metrics.listen is None or not _is_at(bound, settings.metrics.listen)
    ]
    problems += [
        f'systemd holds a socket open by the name of "{name}"; FileDescriptorName= must be smtp, control or metrics'
        for name in sorted(given.keys() - {"smtp", "control", "metrics"})
    ]
    if problems:
        for bound in (bound for sockets in given.values() for bound in sockets):
            bound.close()
        raise ConfigError(problems)
    return Activated(
        smtp=smtp,
        control=control[0] if control else None,
        metrics=metrics[0] if metrics else None,
    )


def _is_at(bound: socket.socket, listen: tuple[str, int]) -> bool:
    """Whether a socket is bound where a listener would listen; all addresses may be one socket or one a family."""
    if bound.family not in {socket.AF_INET, socket.AF_INET6} or bound.type != socket.SOCK_STREAM:
        return False
    host, port = bound.getsockname()[:2]
    if port != listen[1]:
        return False
    address = ipaddress.ip_address(host.partition("%")[0])
    if listen[0] == "":
        return address.is_unspecified
    try:
        return address == ipaddress.ip_address(listen[0])
    except ValueError:
        with contextlib.suppress(OSError):
            found = socket.getaddrinfo(listen[0], port, bound.family, socket.SOCK_STREAM)
            return host in {entry[4][0] for entry in found}
        return False


def _is_path(bound: socket.socket, path: Path) -> bool:
    """Whether a socket is bound at a path, by whatever links (/var/run is one)."""
    name = bound.getsockname() if bound.family == socket.AF_UNIX else ""
    return isinstance(name, str) and name != "" and os.path.realpath(name) == os.path.realpath(path)


def _show(bound: socket.socket) -> str:
    name = bound.getsockname()
    if bound.family == socket.AF_INET6:
        return f"[{name[0]}]:{name[1]}"
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)
