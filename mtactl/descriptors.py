"""How the file descriptors of the process are shared out, so that what must go on never lacks one.

A process that meets its limit on open files can't accept: asyncio's loop then complains a thousand times a second,
uvloop's takes the connection and drops it without a word, and either does it to the control socket as well. So the
limit is not met: clients and peers get what is left when the store, the control socket, the monitoring and a burst of
connections that are only accepted to be turned away have theirs. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtactl.errors import MtactlError
from mtactl.settings import Settings

__all__ = ["LEAST", "Shares", "TooFewDescriptors", "fit", "share_out"]

LEAST = 96

_FIXED = 36  # the loop's, the store's, the log's, and those that are open for a moment only
_A_PEER = 2  # look-ups of A and AAAA together; a connection that is opened again without TLS


class TooFewDescriptors(MtactlError):
    """The limit on open files is too low for any work."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the limit on open files (RLIMIT_NOFILE) is {limit}, and {LEAST} are the least that will do")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Connections at most, by kind. `backlog` is how many may wait to be accepted, for control and for monitoring."""

    clients: int
    peers: int
    control: int
    monitoring: int
    backlog: int


def share_out(limit: int, *, clients: int, peers: int) -> Shares:
    """Share a limit out, with so many clients and peers wanted. Raises TooFewDescriptors."""
    if limit < LEAST:
        raise TooFewDescriptors(limit)
    room = limit - _FIXED
    control = min(256, max(6, room // 8))
    monitoring = min(32, max(3, room // 16))
    backlog = min(128, max(8, room // 16))
    bodies = min(128, max(3, room // 16))  # of the store, which sees to that itself
    # Who is turned away from the control socket lingers. There and for monitoring, all that waits is accepted at once.
    left = room - control - control // 4 - monitoring - 2 * backlog - bodies
    wanted = clients + _A_PEER * peers
    if wanted > left:
        clients, peers = max(1, left * clients // wanted), max(1, left * peers // wanted)
    return Shares(clients=clients, peers=peers, control=control, monitoring=monitoring, backlog=backlog)


def fit(settings: Settings, limit: int) -> tuple[Settings, Shares]:
    """Cut the limits on connections down to what descriptors allow; give the settings and all shares.

    Raises TooFewDescriptors.
    """
    wanted = sum(listener.max_connections for listener in settings.listener)
    shares = share_out(limit, clients=wanted, peers=settings.delivery.max_connections)
    if (shares.clients, shares.peers) == (wanted, settings.delivery.max_connections):
        return settings, shares
    listeners = tuple(
        listener.model_copy(
            update={"max_connections": max(1, listener.max_connections * shares.clients // max(1, wanted))}
        )
        for listener in settings.listener
    )
    delivery = settings.delivery.model_copy(update={"max_connections": shares.peers})
    return settings.model_copy(update={"listener": listeners, "delivery": delivery}), shares
