"""Mail hosts and addresses by DNS (RFC 5321 §5.1, RFC 7505), with a cache. dnspython is met here and nowhere else.

What is asked twice at the same time is asked once. Answers are kept for their TTL, also that there is no such name or
no such record (RFC 2308); that the name servers failed is not kept: the lane's back-off spaces the attempts.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.resolver

from mtactl.errors import LocalShortage, PermanentFailure, TransientFailure
from mtactl.message.reply import Reply, printable
from mtactl.relay.opening import SHORTAGES
from mtactl.settings import DnsSettings

__all__ = ["MailHost", "Resolver"]

MAX_ENTRIES = 20_000
MIN_TTL = 10.0  # seconds; of less than that a queue would ask at each connection
MAX_TTL = 86_400.0
MAX_NEGATIVE_TTL = 900.0  # a domain that was set up late should not wait for longer (RFC 2308 §5)
MAX_QUERIES = 256  # at the same time; each is a socket
MAX_ALIASES = 8
SYSTEM_CONFIGURATION_AGE = 60.0  # seconds until resolv.conf is read anew

_SERVER_FAILURE = "4.4.3"


@dataclass(frozen=True, slots=True)
class MailHost:
    """A host that takes a domain's mail. The name is in lower case, without the root's dot."""

    preference: int
    name: str


@dataclass(frozen=True, slots=True)
class _Records:
    """The records of a name and type, as text. `exists` False: there is no such name at all."""

    texts: tuple[str, ...]
    exists: bool = True


_Outcome = _Records | TransientFailure


class _TooManyAliases(Exception):
    pass


@dataclass(slots=True)
class _Query:
    """A question under way. `outcome` stays None if the one who asked was cancelled: then another one has to."""

    done: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: _Outcome | None = None


class Resolver:
    """Asks the name servers of the settings, or else the system's. `settings` is asked at each question."""

    def __init__(self, settings: Callable[[], DnsSettings], *, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._cache: dict[tuple[str, str], tuple[float, _Records]] = {}
        self._queries: dict[tuple[str, str], _Query] = {}
        self._slots = asyncio.Semaphore(MAX_QUERIES)
        self._stub: dns.asyncresolver.Resolver | None = None
        self._stub_settings: DnsSettings | None = None
        self._stub_until = 0.0

    async def mail_hosts(self, domain: str) -> Sequence[MailHost]:
        """Give the mail hosts of a domain in the order of the answer; the domain itself if it has no MX.

        Raises PermanentFailure: 550 5.1.2 if there is no such domain, 556 5.1.10 if it says that it takes no mail
        (RFC 7505). Raises TransientFailure, 451 4.4.3, if no name server could say.
        """
        records = await self._records(domain, "MX")
        if not records.exists:
            raise PermanentFailure(Reply(550, "5.1.2", f"there is no domain {printable(domain)}"))
        if not records.texts:
            return [MailHost(0, domain.rstrip(".").lower())]
        hosts = []
        for text in records.texts:
            preference, name = text.split(" ", 1)
            if name != ".":
                hosts.append(MailHost(int(preference), name.rstrip(".").lower()))
        if not hosts:
            raise PermanentFailure(Reply(556, "5.1.10", f"{printable(domain)} does not take mail (null MX)"))
        return hosts

    async def addresses(self, host: str) -> Sequence[str]:
        """Give the IPv4 and IPv6 addresses of a host in random order, at least one.

        Raises PermanentFailure, 550 5.4.4, if there are none; TransientFailure, 451 4.4.3, if no name server could say.
        """
        async with asyncio.TaskGroup() as group:
            questions = [group.create_task(self._outcome(host, kind)) for kind in ("A", "AAAA")]
        outcomes = [question.result() for question in questions]
        found = [text for outcome in outcomes if isinstance(outcome, _Records) for text in outcome.texts]
        if found:
            self._rng.shuffle(found)
            return found
        for outcome in outcomes:
            if isinstance(outcome, TransientFailure):
                raise outcome
        raise PermanentFailure(Reply(550, "5.4.4", f"the host {printable(host)} has no address"))

    def clear(self) -> None:
        """Forget all answers."""
        self._cache.clear()
        self._stub = None

    # -- the cache --------------------------------------------------------------------------------------------------

    async def _records(self, name: str, kind: str) -> _Records:
        outcome = await self._outcome(name, kind)
        if isinstance(outcome, TransientFailure):
            raise outcome
        return outcome

    async def _outcome(self, name: str, kind: str) -> _Outcome:
        """Answer from the cache, or by the one question that is under way for it, or by asking."""
        self._follow_settings()
        key = (name.rstrip(".").lower(), kind)
        while True:
            cached = self._cache.get(key)
            if cached is not None and cached[0] > _now():
                return cached[1]
            under_way = self._queries.get(key)
            if under_way is None:
                break
            await under_way.done.wait()
            if under_way.outcome is not None:
                return under_way.outcome
        query = self._queries[key] = _Query()
        try:
            query.outcome = await self._ask(*key)
        finally:
            del self._queries[key]
            query.done.set()
        return query.outcome

    def _keep(self, name: str, kind: str, records: _Records, ttl: float) -> None:
        longest = MAX_TTL if records.texts else MAX_NEGATIVE_TTL
        self._cache.pop((name, kind), None)
        while len(self._cache) >= MAX_ENTRIES:
            del self._cache[next(iter(self._cache))]
        self._cache[name, kind] = (_now() + min(max(ttl, MIN_TTL), longest), records)

    # -- dnspython --------------------------------------------------------------------------------------------------

    def _follow_settings(self) -> None:
        """Make the stub resolver anew after a reload, or now and then for the system's configuration."""
        settings = self._settings()
        if settings != self._stub_settings:
            self.clear()
            self._stub_settings = settings
        elif not settings.nameservers and _now() >= self._stub_until:
            self._stub = None

    def _stub_resolver(self) -> dns.asyncresolver.Resolver:
        if self._stub is None:
            settings = self._settings()
            stub = dns.asyncresolver.Resolver(configure=not settings.nameservers)
            if settings.nameservers:
                stub.nameservers = [_nameserver(text) for text in settings.nameservers]
            stub.timeout = settings.timeout
            stub.lifetime = settings.lifetime
            self._stub = stub
            self._stub_until = _now() + SYSTEM_CONFIGURATION_AGE
        return self._stub

    async def _ask(self, name: str, kind: str) -> _Outcome:
        try:
            async with self._slots:
                records, ttl = await self._resolve(name, kind)
        except (dns.exception.SyntaxError, dns.name.EmptyLabel, dns.name.LabelTooLong, dns.name.NameTooLong):
            # nothing that can be asked for exists under such a name
            return _Records((), exists=False)
        except dns.exception.Timeout as error:
            return _shortage_in(error) or _failed(f"no name server answered on {kind} of {printable(name)}")
        except _TooManyAliases:
            return _failed(f"{kind} of {printable(name)}: over {MAX_ALIASES} aliases")
        except (dns.exception.DNSException, OSError) as error:
            return _shortage_in(error) or _failed(f"{kind} of {printable(name)}: {printable(str(error), 300)}")
        self._keep(name, kind, records, ttl)
        return records

    async def _resolve(self, name: str, kind: str) -> tuple[_Records, float]:
        """Ask for the records and their TTL; go after an alias whose target the answer has left out."""
        stub = self._stub_resolver()
        target = dns.name.from_text(name)
        ttl = MAX_TTL
        for _ in range(MAX_ALIASES):
            try:
                answer = await stub.resolve(target, kind, raise_on_no_answer=False, search=False)
            except dns.resolver.NXDOMAIN as error:
                negative_ttl = error.kwargs["responses"][target].resolve_chaining().minimum_ttl
                return _Records((), exists=False), min(ttl, negative_ttl)
            ttl = min(ttl, answer.chaining_result.minimum_ttl)
            if answer.rrset is not None:
                return _Records(tuple(rdata.to_text() for rdata in answer.rrset)), ttl
            if answer.canonical_name == target:
                return _Records(()), ttl
            target = answer.canonical_name
        raise _TooManyAliases


def _failed(text: str) -> TransientFailure:
    return TransientFailure(Reply(451, _SERVER_FAILURE, text))


def _shortage_in(error: dns.exception.DNSException | OSError) -> LocalShortage | None:
    """Give what to say if it failed because this machine lacked a socket, not because of the name servers."""
    causes = [error] if isinstance(error, OSError) else [each[3] for each in error.kwargs.get("errors", ())]
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in SHORTAGES:
            return LocalShortage(Reply(451, "4.3.2", f"no room here for a query: {os.strerror(cause.errno)}"))
    return None


def _now() -> float:
    return asyncio.get_running_loop().time()


def _nameserver(text: str) -> dns.nameserver.Do53Nameserver:
    """Read "address", "address:port" or "[address]:port"; the settings have checked that it is one of them."""
    host, _, port = text.rpartition(":")
    if text.startswith("[") or text.count(":") == 1:
        return dns.nameserver.Do53Nameserver(host.strip("[]"), int(port))
    return dns.nameserver.Do53Nameserver(text)
