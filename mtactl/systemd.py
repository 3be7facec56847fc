"""What the daemon tells systemd, and what it gets from it: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).

Without systemd (no NOTIFY_SOCKET, WATCHDOG_USEC or LISTEN_FDS in the environment) all of it does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

__all__ = ["Notifier", "take_sockets", "watchdog_interval"]

_FIRST_FD = 3  # SD_LISTEN_FDS_START


class Notifier:
    """Tells the service manager how the daemon is. Never raises: a daemon must not die of not being listened to."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # '@' stands for the NUL of an abstract socket (unix(7)).
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    @property
    def listening(self) -> bool:
        """Whether a service manager asked to be told."""
        return bool(self._address)

    def ready(self, status: str = "") -> None:
        """Say that the start, or a reload, is done."""
        self._send("READY=1", *_status(status))

    def status(self, text: str) -> None:
        """Give one line for `systemctl status`."""
        self._send(*_status(text))

    def reloading(self) -> None:
        """Say that a reload begins (Type=notify-reload wants the time with it); `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "") -> None:
        """Say that the daemon is on its way out."""
        self._send("STOPPING=1", *_status(status))

    def watchdog(self) -> None:
        """Say that the event loop still turns."""
        self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> None:
        if not self._address or not assignments:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as out:
                out.sendto("\n".join(assignments).encode(), self._address)
        except OSError:
            return  # gone, full or not permitted: nothing that the daemon could mend


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(text.split())}",) if text else ()


def watchdog_interval(environ: MutableMapping[str, str] = os.environ) -> float | None:
    """Give the seconds between calls of `watchdog` (half of what systemd waits), or None if it does not watch us."""
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000


def take_sockets(environ: MutableMapping[str, str] = os.environ) -> dict[str, list[socket.socket]]:
    """Take the sockets that systemd opened for us, by their FileDescriptorName= ("unknown" where it is not set).

    They are removed from the environment, so that a second call, or a child, does not take them again. They are
    non-blocking and not inherited.
    """
    count, pid = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if not count.isdecimal() or pid != str(os.getpid()):
        return {}
    taken: dict[str, list[socket.socket]] = {}
    for number in range(int(count)):
        inherited = socket.socket(fileno=_FIRST_FD + number)
        inherited.set_inheritable(False)
        inherited.setblocking(False)
        name = names[number] if number < len(names) and names[number] else "unknown"
        taken.setdefault(name, []).append(inherited)
    return taken
