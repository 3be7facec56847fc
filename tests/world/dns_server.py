"""A DNS server for tests, on loopback by UDP and TCP, that answers from a table and can misbehave by name."""

import asyncio
import struct
from collections import Counter
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

SOA = "ns.test. hostmaster.test. 1 3600 600 86400 {ttl}"


class DnsServer:
    """Records are {"name. TYPE": [texts]}; a name without any is NXDOMAIN, with others only NODATA.

    `broken` maps "name. TYPE" to a response code, "drop" (no answer), "truncate" (by UDP), or "bare" (an alias is
    answered without what it stands for).
    """

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        self.broken: dict[str, object] = {}
        self.ttl = 60
        self.delay = 0.0
        self.asked: Counter[str] = Counter()
        self.by_tcp: Counter[str] = Counter()
        self.port = 0

    @property
    def nameserver(self) -> str:
        return f"127.0.0.1:{self.port}"

    def host(self, name: str, *addresses: str) -> None:
        for address in addresses:
            kind = "AAAA" if ":" in address else "A"
            self.records.setdefault(f"{name}. {kind}", []).append(address)

    def mx(self, domain: str, *hosts: tuple[int, str]) -> None:
        self.records[f"{domain}. MX"] = [f"{preference} {host}." for preference, host in hosts]

    def answer(self, wire: bytes, *, tcp: bool) -> bytes | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        key = f"{name} {kind}"
        self.asked[key] += 1
        if tcp:
            self.by_tcp[key] += 1
        response = dns.message.make_response(query, recursion_available=True)
        fault = self.broken.get(key)
        if fault == "drop":
            return None
        if isinstance(fault, dns.rcode.Rcode):
            response.set_rcode(fault)
            return response.to_wire()
        if fault == "truncate" and not tcp:
            response.flags |= dns.flags.TC
            return response.to_wire()
        for _ in range(20):
            texts = self.records.get(f"{name} {kind}")
            if texts:
                self._add(response.answer, name, kind, texts)
                break
            alias = self.records.get(f"{name} CNAME")
            if not alias:
                known = any(each.startswith(f"{name} ") for each in self.records)
                response.set_rcode(dns.rcode.NOERROR if known else dns.rcode.NXDOMAIN)
                self._add(response.authority, "test.", "SOA", [SOA.format(ttl=self.ttl)])
                break
            self._add(response.answer, name, "CNAME", alias)
            if fault == "bare":
                break
            name = alias[0]
        return response.to_wire()

    def _add(self, section: list, name: str, kind: str, texts: list[str]) -> None:
        section.append(dns.rrset.from_text_list(name, self.ttl, "IN", kind, texts))


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self.server = server

    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address) -> None:
        answer = self.server.answer(data, tcp=False)
        if answer is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(self.server.delay, self.transport.sendto, answer, address)


async def _serve_tcp(server: DnsServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = server.answer(await reader.readexactly(length), tcp=True)
        if answer is not None:
            writer.write(struct.pack("!H", len(answer)) + answer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@asynccontextmanager
async def run_dns_server():
    """Run a server on a free port until the block ends."""
    server = DnsServer()
    tcp = await asyncio.start_server(lambda reader, writer: _serve_tcp(server, reader, writer), "127.0.0.1", 0)
    server.port = tcp.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(server), local_addr=("127.0.0.1", server.port))
    try:
        yield server
    finally:
        udp.close()
        tcp.close()
        await tcp.wait_closed()
