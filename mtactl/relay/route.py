"""Which addresses a destination's mail may be handed to, in the order in which they are to be tried (RFC 5321 §5.1)."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import AsyncIterator, Callable, Sequence

from mtactl.errors import DeliveryFailure, PermanentFailure, TransientFailure
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
        self._turns: dict[str, int] = {}

    async def endpoints(self, lane: str, domain: str) -> AsyncIterator[Endpoint]:
        """Give the endpoints one by one. Raises TransientFailure or PermanentFailure if there is none at all."""
        settings = self._settings()
        route = settings.lane_settings(lane).route
        if route:
            async for endpoint in self._static(lane, route):
                yield endpoint
            return
        port = settings.delivery.port
        literal = _address_literal(domain)
        if literal is not None:
            yield Endpoint(domain, literal, port)
            return
        hosts = await self._mail_hosts(domain, settings.node.hostname)
        failures: list[DeliveryFailure] = []
        found = False
        for host in hosts:
            try:
                addresses = await self._resolver.addresses(host.name)
            except DeliveryFailure as failure:
                failures.append(failure)
                continue
            for address in addresses:
                found = True
                yield Endpoint(host.name, address, port)
        if not found:
            # one name server out of reach may be hiding the address of the only good host
            transient = [failure for failure in failures if isinstance(failure, TransientFailure)]
            if transient:
                raise transient[-1]
            raise PermanentFailure(Reply(550, "5.4.4", f"no mail host of {printable(domain)} has an address"))

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

    async def _static(self, lane: str, route: Sequence[tuple[str, int]]) -> AsyncIterator[Endpoint]:
        """Give a static route's endpoints, beginning with another host each time."""
        turn = self._turns.get(lane, 0) % len(route)
        self._turns[lane] = turn + 1
        failure: DeliveryFailure | None = None
        found = False
        for host, port in (*route[turn:], *route[:turn]):
            try:
                addresses = await self._static_addresses(host)
            except DeliveryFailure as error:
                failure = error
                continue
            for address in addresses:
                found = True
                yield Endpoint(host, address, port)
        if not found and failure is not None:
            # whatever DNS says of it, a smart host that is not there is the administrator's to mend
            raise TransientFailure(Reply(451, "4.4.4", f"static route: {failure.reply.text}"))

    async def _static_addresses(self, host: str) -> Sequence[str]:
        """Look a static route's name up the way the system does (hosts file, search list), or by our name servers."""
        address = _numeric(host)
        if address is not None:
            return [address]
        dns = self._settings().dns
        if dns.nameservers:
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
    tag, is_tagged = inner[:5].lower(), inner[:5].lower() == "ipv6:"
    address = _numeric(inner[5:] if is_tagged else inner)
    if address is None or not domain.endswith("]") or (":" in address) is not is_tagged:
        raise PermanentFailure(Reply(550, "5.1.2", f"{printable(domain)} is no address ({tag!r})"))
    return address
