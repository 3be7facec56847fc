"""Which addresses a destination's mail may be handed to, in the order in which they are to be tried (RFC 5321 §5.1)."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from mtactl.errors import PermanentFailure, TransientFailure
from mtactl.message.reply import Reply, printable
from mtactl.relay.opening import Endpoint
from mtactl.relay.resolver import MailHost, Resolver
from mtactl.settings import Settings

__all__ = ["Router"]


class Router:
    """Finds endpoints: a lane's static route, an address literal, or the domain's MX. Looks names up as it goes."""

    def __init__(self, settings: Callable[[], Settings], resolver: Resolver, *, rng: random.Random) -> None:
        self._settings = settings
        self._resolver = resolver
        self._rng = rng
        self._turns: dict[tuple[tuple[str, int], ...], int] = {}

    async def endpoints(self, lane: str, domain: str) -> AsyncGenerator[Endpoint]:
        """Give the endpoints one by one. Raises TransientFailure or PermanentFailure if there is none at all."""
        settings = self._settings()
        route = settings.lane_settings(lane).route
        port = settings.delivery.port
        literal = None if route else _address_literal(domain)
        look_up: Callable[[str], Awaitable[Sequence[str]]]
        if route:
            hops, look_up = self._turn(route), self._static_addresses
        elif literal is not None:
            yield Endpoint(literal, literal, port)
            return
        else:
            hosts = await self._mail_hosts(domain, settings.node.hostname)
            hops, look_up = [(host.name, port) for host in hosts], self._resolver.addresses
        found = False
        transient: TransientFailure | None = None
        for name, hop_port in hops:
            try:
                addresses = await look_up(name)
            except PermanentFailure:
                continue
            except TransientFailure as failure:
                transient = failure
                continue
            for address in addresses:
                found = True
                yield Endpoint(name, address, hop_port)
        if found:
            return
        if transient is not None:
            # a name server out of reach may be hiding the address of the only good host
            raise transient
        if route:
            # whatever DNS says of it, a smart host that is not there is the administrator's to mend
            names = printable(", ".join(name for name, _ in hops))
            raise TransientFailure(Reply(451, "4.4.4", f"no host of the static route has an address: {names}"))
        raise PermanentFailure(Reply(550, "5.4.4", f"no mail host of {printable(domain)} has an address"))

    def _turn(self, route: tuple[tuple[str, int], ...]) -> Sequence[tuple[str, int]]:
        """Give a static route's hosts, beginning with another one each time."""
        turn = self._turns.get(route, 0)
        self._turns[route] = (turn + 1) % len(route)
        return (*route[turn:], *route[:turn])

    async def _mail_hosts(self, domain: str, own: str) -> Sequence[MailHost]:
        """Give the mail hosts, the equal ones in random order, up to where this node is one of them."""
        hosts = list(await self._resolver.mail_hosts(domain))
        self._rng.shuffle(hosts)
        hosts.sort(key=lambda host: host.preference)
        own = own.rstrip(".").lower()
        ours = [host.preference for host in hosts if host.name == own]
        if not ours:
            return hosts
        before = [host for host in hosts if host.preference < ours[0]]
        if not before:
            raise PermanentFailure(Reply(554, "5.4.6", f"mail for {printable(domain)} loops back to this host"))
        return before

    async def _static_addresses(self, host: str) -> Sequence[str]:
        """Look a static route's name up the way the system does (hosts file, search list), or by our name servers."""
        address = _numeric(host)
        if address is not None:
            return [address]
        dns = self._settings().dns
        if dns.nameservers and host != "localhost":
            return await self._resolver.addresses(host)
        try:
            async with asyncio.timeout(dns.lifetime):
                found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            text = "time-out" if isinstance(error, TimeoutError) else error.strerror or str(error)
            raise TransientFailure(Reply(451, "4.4.3", printable(f"{host}: {text}"))) from error
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _numeric(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _address_literal(domain: str) -> str | None:
    """Give the address of `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3), None for a name.

    Raises PermanentFailure for what is in brackets and is no address.
    """
    if not domain.startswith("["):
        return None
    inner = domain[1:].removesuffix("]")
    is_tagged = inner[:5].lower() == "ipv6:"
    address = _numeric(inner[5:] if is_tagged else inner)
    if address is None or not domain.endswith("]") or (":" in address) is not is_tagged:
        raise PermanentFailure(Reply(550, "5.1.2", f"{printable(domain)} is no address"))
    return address
