"""The relay: from a lane and a domain to an open session."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable
from contextlib import aclosing

from mtactl.errors import LocalShortage, TransientFailure
from mtactl.message.reply import Reply
from mtactl.relay.opening import HostUnreachable, open_session
from mtactl.relay.resolver import Resolver
from mtactl.relay.route import Router
from mtactl.relay.session import SmtpSession
from mtactl.relay.tls import opportunistic_context
from mtactl.settings import Settings

__all__ = ["SmtpRelay"]


class SmtpRelay:
    """A Relay by SMTP. `settings` is asked at each connection, so a reload needs no call."""

    def __init__(self, settings: Callable[[], Settings], *, rng: random.Random | None = None) -> None:
        self._settings = settings
        # the order of equal hosts is to spread the load, not to keep a secret
        rng = rng or random.Random()  # noqa: S311
        self._resolver = Resolver(lambda: settings().dns, rng=rng)
        self._router = Router(settings, self._resolver, rng=rng)
        self._tls: ssl.SSLContext | None = None

    async def connect(self, lane: str, domain: str) -> SmtpSession:
        """Open a session to the first host of the route that takes one, among the first few addresses.

        Raises TransientFailure with what the last of them said, PermanentFailure when the domain takes no mail,
        LocalShortage when it is this machine that can't.
        """
        settings = self._settings()
        delivery = settings.delivery
        limits = settings.lane_settings(lane)
        failure: TransientFailure | None = None
        tried = 0
        async with aclosing(self._router.endpoints(lane, domain)) as endpoints:
            async for endpoint in endpoints:
                try:
                    return await open_session(
                        endpoint,
                        hostname=settings.node.hostname,
                        timeouts=delivery.timeouts,
                        tls=self._context() if delivery.tls == "may" else None,
                        pipelining=limits.pipelining,
                    )
                except LocalShortage:
                    raise  # the next host would fare no better
                except HostUnreachable as unreachable:
                    # an address family that this machine does not have must not use up the attempts
                    failure = failure or unreachable
                except TransientFailure as transient:
                    failure = transient
                    tried += 1
                if tried >= delivery.max_connections_per_attempt:
                    break
        raise failure or TransientFailure(Reply(450, "4.4.4", f"there is no route to {domain}"))

    async def close(self) -> None:
        """Let go of what was cached."""
        self._resolver.clear()

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = opportunistic_context()
        return self._tls
