"""From a domain to the hosts of its mail: a real DNS server on loopback, and peers to arrive at."""

import asyncio
import random
from contextlib import asynccontextmanager

import dns.rcode
import pytest

from mtactl.errors import PermanentFailure, TransientFailure
from mtactl.relay.relay import SmtpRelay
from mtactl.relay.resolver import MailHost, Resolver, _nameserver
from mtactl.relay.route import Router
from mtactl.settings import DeliverySettings, DnsSettings, LaneSettings, NodeSettings, Settings
from tests.world.dns_server import run_dns_server
from tests.world.loops import on_both_loops
from tests.world.smtp_peer import run_smtp_peer


@asynccontextmanager
async def run_world(**changes):
    """Give a DNS server, a resolver that asks it, and a router over both."""
    async with run_dns_server() as server:
        dns = DnsSettings(nameservers=(server.nameserver,), timeout=0.3, lifetime=1.0)
        settings = Settings(
            node=NodeSettings(name="test", hostname="own.test"),
            dns=dns,
            **{"delivery": DeliverySettings(port=2525), **changes},
        )
        rng = random.Random(7)
        resolver = Resolver(lambda: settings.dns, rng=rng)
        yield server, resolver, Router(lambda: settings, resolver, rng=rng)


async def hosts_of(router, domain, lane="lane"):
    return [(endpoint.host, endpoint.address) async for endpoint in router.endpoints(lane, domain)]


@on_both_loops
async def test_hosts_come_by_preference_with_all_addresses():
    """If it failed, mail would go to a back-up host while the first one is up."""
    async with run_world() as (server, _resolver, router):
        server.mx("a.test", (20, "two.test"), (10, "ONE.test"))
        server.host("one.test", "192.0.2.1", "2001:db8::1")
        server.host("two.test", "192.0.2.2")
        found = await hosts_of(router, "a.test")
        assert sorted(found[:2]) == [("one.test", "192.0.2.1"), ("one.test", "2001:db8::1")]
        assert found[2:] == [("two.test", "192.0.2.2")]


@on_both_loops
async def test_equal_hosts_are_shuffled():
    """If it failed, one of several equal hosts would carry all the load (RFC 5321 §5.1)."""
    async with run_world() as (server, _resolver, router):
        server.mx("a.test", *[(10, f"h{number}.test") for number in range(4)], (20, "last.test"))
        for name in ("h0", "h1", "h2", "h3", "last"):
            server.host(f"{name}.test", "192.0.2.1")
        orders = {tuple(host for host, _ in await hosts_of(router, "a.test")) for _ in range(50)}
        assert len(orders) > 10
        assert {order[-1] for order in orders} == {"last.test"}


@on_both_loops
async def test_domain_without_mx_is_its_own_host():
    """If it failed, small domains would get no mail (implicit MX)."""
    async with run_world() as (server, _resolver, router):
        server.host("a.test", "192.0.2.1")
        assert await hosts_of(router, "A.test") == [("a.test", "192.0.2.1")]


@pytest.mark.parametrize("fault", [None, "bare"])
@on_both_loops
async def test_aliases_are_followed(fault):
    """If it failed, a domain or host that is an alias would get no mail, with some name servers at least."""
    async with run_world() as (server, _resolver, router):
        server.records["a.test. CNAME"] = ["b.test."]
        server.mx("b.test", (10, "alias.test"))
        server.records["alias.test. CNAME"] = ["host.test."]
        server.host("host.test", "192.0.2.1")
        if fault:
            server.broken |= {"a.test. MX": fault, "alias.test. A": fault, "alias.test. AAAA": fault}
        assert await hosts_of(router, "a.test") == [("alias.test", "192.0.2.1")]


@on_both_loops
async def test_aliases_in_a_ring_are_put_off():
    """If it failed, a domain's mistake would keep us busy for ever, or bounce its mail at once."""
    async with run_world() as (server, _resolver, router):
        server.records |= {"a.test. CNAME": ["b.test."], "b.test. CNAME": ["a.test."]}
        server.broken |= {"a.test. MX": "bare", "b.test. MX": "bare"}
        with pytest.raises(TransientFailure) as failure:
            await hosts_of(router, "a.test")
        assert str(failure.value.reply).startswith("451 4.4.3 ")


@on_both_loops
async def test_answer_that_needs_tcp():
    """If it failed, domains with many mail hosts would be out of reach."""
    async with run_world() as (server, resolver, _router):
        server.mx("a.test", (10, "h.test"))
        server.broken["a.test. MX"] = "truncate"
        assert await resolver.mail_hosts("a.test") == [MailHost(10, "h.test")]
        assert server.by_tcp["a.test. MX"] == 1


@pytest.mark.parametrize(
    ("domain", "kind", "reply"),
    [
        ("none.test", PermanentFailure, "550 5.1.2 there is no domain none.test"),
        ("null.test", PermanentFailure, "556 5.1.10 null.test does not take mail (null MX)"),
        ("text.test", PermanentFailure, "550 5.4.4 no mail host of text.test has an address"),
        ("lost.test", PermanentFailure, "550 5.4.4 no mail host of lost.test has an address"),
        ("self.test", PermanentFailure, "554 5.4.6 mail for self.test loops back to this host"),
        ("own.test", PermanentFailure, "554 5.4.6 mail for own.test loops back to this host"),
        ("servfail.test", TransientFailure, "451 4.4.3 MX of servfail.test"),
        ("refused.test", TransientFailure, "451 4.4.3 MX of refused.test"),
        ("silent.test", TransientFailure, "451 4.4.3 no name server answered on MX of silent.test"),
        ("half.test", TransientFailure, "451 4.4.3 A of hidden.test"),
        ("x" * 64 + ".test", PermanentFailure, "550 5.1.2 there is no domain xxx"),
        ("a..test", PermanentFailure, "550 5.1.2 there is no domain a..test"),
        ("[192.0.2.999]", PermanentFailure, "550 5.1.2 "),
        ("[2001:db8::1]", PermanentFailure, "550 5.1.2 "),
        ("[IPv6:192.0.2.1]", PermanentFailure, "550 5.1.2 "),
        ("[192.0.2.1", PermanentFailure, "550 5.1.2 "),
    ],
)
@on_both_loops
async def test_domains_without_a_way(domain, kind, reply):
    """If it failed, mail would be tried for days for nothing, or bounced for a hiccup of a name server."""
    async with run_world() as (server, _resolver, router):
        server.records |= {"null.test. MX": ["0 ."], "text.test. TXT": ['"x"'], "own.test. A": ["192.0.2.1"]}
        server.mx("lost.test", (10, "gone.test"), (20, "text.test"))
        server.mx("self.test", (10, "own.test"), (10, "equal.test"), (20, "other.test"))
        server.mx("half.test", (10, "gone.test"), (20, "hidden.test"))
        server.host("other.test", "192.0.2.1")
        server.host("equal.test", "192.0.2.1")
        server.broken |= {
            "servfail.test. MX": dns.rcode.SERVFAIL,
            "refused.test. MX": dns.rcode.REFUSED,
            "silent.test. MX": "drop",
            "hidden.test. A": dns.rcode.SERVFAIL,
        }
        with pytest.raises(kind) as failure:
            await hosts_of(router, domain)
        assert str(failure.value.reply).startswith(reply)


@on_both_loops
async def test_a_null_mx_beside_others_is_passed_over():
    """If it failed, a domain with a stray null record would get no mail."""
    async with run_world() as (server, resolver, _router):
        server.records["a.test. MX"] = ["0 .", "10 h.test."]
        assert await resolver.mail_hosts("a.test") == [MailHost(10, "h.test")]


@on_both_loops
async def test_hosts_behind_ourselves_are_left_out():
    """If it failed, a back-up host would send mail round in circles (RFC 5321 §5.1)."""
    async with run_world() as (server, _resolver, router):
        server.mx("a.test", (10, "first.test"), (20, "OWN.test"), (20, "equal.test"), (30, "behind.test"))
        for name in ("first", "own", "equal", "behind"):
            server.host(f"{name}.test", "192.0.2.1")
        assert [host for host, _ in await hosts_of(router, "a.test")] == ["first.test"]


@on_both_loops
async def test_one_family_may_fail():
    """If it failed, a name server that is afraid of AAAA would stop a domain's mail."""
    async with run_world() as (server, _resolver, router):
        server.host("a.test", "192.0.2.1")
        server.broken["a.test. AAAA"] = dns.rcode.SERVFAIL
        assert await hosts_of(router, "a.test") == [("a.test", "192.0.2.1")]


@pytest.mark.parametrize(("domain", "address"), [("[192.0.2.1]", "192.0.2.1"), ("[IPv6:2001:DB8::1]", "2001:db8::1")])
@on_both_loops
async def test_address_literals(domain, address):
    """If it failed, mail to an address in brackets would be looked up by name, or bounced."""
    async with run_world() as (server, _resolver, router):
        assert [found for _, found in await hosts_of(router, domain)] == [address]
        assert not server.asked


@on_both_loops
async def test_answers_are_kept_and_asked_for_once():
    """If it failed, each connection would ask the name servers again, or twenty at once would ask twenty times."""
    async with run_world() as (server, resolver, _router):
        server.mx("a.test", (10, "h.test"))
        server.delay = 0.05
        for domain in ("a.test", "none.test"):
            answers = await asyncio.gather(*[resolver.mail_hosts(domain) for _ in range(20)], return_exceptions=True)
            assert len({str(answer) for answer in answers}) == 1
        with pytest.raises(PermanentFailure):
            await resolver.mail_hosts("NONE.test.")
        await resolver.mail_hosts("A.test")
        assert server.asked == {"a.test. MX": 1, "none.test. MX": 1}
        resolver.clear()
        await resolver.mail_hosts("a.test")
        assert server.asked["a.test. MX"] == 2


@on_both_loops
async def test_failures_are_not_kept():
    """If it failed, a name server's hiccup would outlast itself."""
    async with run_world() as (server, resolver, _router):
        server.mx("a.test", (10, "h.test"))
        server.broken["a.test. MX"] = dns.rcode.SERVFAIL
        with pytest.raises(TransientFailure):
            await resolver.mail_hosts("a.test")
        server.broken.clear()
        assert await resolver.mail_hosts("a.test") == [MailHost(10, "h.test")]


@on_both_loops
async def test_who_is_cancelled_takes_no_one_along():
    """If it failed, one lane's end would fail the look-ups that others share with it."""
    async with run_world() as (server, resolver, _router):
        server.mx("a.test", (10, "h.test"))
        server.delay = 0.1
        async with asyncio.TaskGroup() as group:
            first = group.create_task(resolver.mail_hosts("a.test"))
            others = [group.create_task(resolver.mail_hosts("a.test")) for _ in range(3)]
            await asyncio.sleep(0.02)
            first.cancel()
        assert [other.result() for other in others] == [[MailHost(10, "h.test")]] * 3


@on_both_loops
async def test_names_of_a_static_route():
    """If it failed, a smart host could be given by address only."""

    async def script(talk):
        await talk.open()
        await talk.hang()

    async with run_smtp_peer(script) as peer:
        settings = Settings(lane={"*": LaneSettings(route=(("localhost", peer.port),))})
        session = await SmtpRelay(lambda: settings).connect("x.test", "x.test")
        assert session.peer == f"localhost[127.0.0.1]:{peer.port}"
        session.abort()


@on_both_loops
async def test_static_route_by_our_name_servers():
    """If it failed, `dns.nameservers` would not be asked for smart hosts, or a missing one would bounce mail."""
    lanes = {"good": LaneSettings(route=(("smart.test", 26),)), "bad": LaneSettings(route=(("gone.test", 26),))}
    async with run_world(lane=lanes) as (server, _resolver, router):
        server.host("smart.test", "192.0.2.1")
        assert await hosts_of(router, "x.test", "good") == [("smart.test", "192.0.2.1")]
        with pytest.raises(TransientFailure) as failure:
            await hosts_of(router, "x.test", "bad")
        assert str(failure.value.reply) == "451 4.4.4 no host of the static route has an address: gone.test"


@on_both_loops
async def test_the_next_host_is_tried():
    """If it failed, one dead, refusing or hanging host would stop a domain's mail."""

    async def refuse(talk):
        talk.say(b"554 5.7.1 not here\r\n")

    async def accept(talk):
        await talk.open()
        await talk.hang()

    async with run_smtp_peer(refuse, refuse, accept) as peer, run_dns_server() as server:
        server.mx("a.test", (10, "gone.test"), (20, "one.test"), (30, "two.test"), (40, "three.test"))
        for name in ("one", "two", "three"):
            server.host(f"{name}.test", "127.0.0.1")
        settings = Settings(
            dns=DnsSettings(nameservers=(server.nameserver,)), delivery=DeliverySettings(port=peer.port)
        )
        session = await SmtpRelay(lambda: settings).connect("a.test", "a.test")
        assert session.peer == f"three.test[127.0.0.1]:{peer.port}"
        session.abort()


@on_both_loops
async def test_a_reload_is_followed():
    """If it failed, new name servers would be asked only after a restart."""
    async with run_dns_server() as old, run_dns_server() as new:
        old.mx("a.test", (10, "old.test"))
        new.mx("a.test", (10, "new.test"))
        current = DnsSettings(nameservers=(old.nameserver,))
        resolver = Resolver(lambda: current, rng=random.Random(7))
        assert await resolver.mail_hosts("a.test") == [MailHost(10, "old.test")]
        current = DnsSettings(nameservers=(new.nameserver,))
        assert await resolver.mail_hosts("a.test") == [MailHost(10, "new.test")]


@on_both_loops
async def test_answers_end_with_their_ttl(monkeypatch):
    """If it failed, a domain that moved would get its mail at the old place for ever."""
    monkeypatch.setattr("mtactl.relay.resolver.MIN_TTL", 0.05)
    async with run_world() as (server, resolver, _router):
        server.ttl = 0
        server.mx("a.test", (10, "old.test"))
        assert await resolver.mail_hosts("a.test") == [MailHost(10, "old.test")]
        server.mx("a.test", (10, "new.test"))
        assert await resolver.mail_hosts("a.test") == [MailHost(10, "old.test")]
        await asyncio.sleep(0.1)
        assert await resolver.mail_hosts("a.test") == [MailHost(10, "new.test")]


@on_both_loops
async def test_the_cache_is_bounded(monkeypatch):
    """If it failed, a list of a million domains would fill the memory."""
    monkeypatch.setattr("mtactl.relay.resolver.MAX_ENTRIES", 2)
    async with run_world() as (server, resolver, _router):
        for name in ("a", "b", "c"):
            server.mx(f"{name}.test", (10, "h.test"))
        for name in ("a", "b", "c", "c", "a"):
            await resolver.mail_hosts(f"{name}.test")
        assert server.asked == {"a.test. MX": 2, "b.test. MX": 1, "c.test. MX": 1}
        assert len(resolver._cache) == 2


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("192.0.2.1", "192.0.2.1", 53),
        ("192.0.2.1:5353", "192.0.2.1", 5353),
        ("2001:db8::1", "2001:db8::1", 53),
        ("[2001:db8::1]:5353", "2001:db8::1", 5353),
    ],
)
def test_forms_of_a_name_server(text, address, port):
    """If it failed, a name server that the settings accept would not be the one that is asked."""
    server = _nameserver(text)
    assert (server.address, server.port) == (address, port)
