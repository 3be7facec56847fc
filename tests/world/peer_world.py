"""The rest of the world, as one SMTP server: it behaves by recipient domain, and keeps a record from outside.

It shares no code with the daemon. It runs in its own process, `python -m tests.world.peer_world --record FILE`, prints
one JSON line with its ports by their names, and ends at SIGTERM or when its standard input ends, so it never outlives
the test that started it. Each line of standard input is a command, answered by a line of JSON when it is done: `flush`
(the record has all that was answered before), `freeze` (messages are read, but their ends are not answered), `thaw`,
`drop` (all connections), `down` and `up` (the ports), `domains JSON` (other profiles from now on).

Each event is stamped with CLOCK_MONOTONIC, in ns, which all processes of a machine share. One line of JSON an event,
in the file at the end of the loop's tick:

    {"t": ns, "k": KIND, "c": connection, "n": transaction, …}

    open, close   a connection: `port`
    mail          when the octets of MAIL FROM were read: `code`, and from the sender, `bounce+CAMPAIGN+KEY@…`,
                  `campaign` and `key`
    rcpt          `to`, `code`
    data          354 was said
    dot           when the end of the message was read: `size`, `crc` (CRC-32 of the body in wire form, behind the
                  header), and `campaign`, `key` as the message's own header says, where it does
    end           when the last reply was handed to the kernel, to the message or to DATA: `code`; 0: hung up instead
    rset          the transaction ended without a message
    lost          the connection ended within the transaction
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path

from tests.world.behaviour import Behaviour, Domain, Port

try:
    import uvloop
except ImportError:
    uvloop = None

_SENDER = re.compile(rb"FROM:\s*<[^+>]*\+(.+)\+(\d+)@", re.IGNORECASE)
_PATH = re.compile(rb"<([^>]*)>")
_CAMPAIGN = re.compile(rb"^X-Campaign-ID:[ \t]*(.*?)[ \t]*\r$", re.IGNORECASE | re.MULTILINE)
_KEY = re.compile(rb"^X-Test-Key:[ \t]*(\d+)[ \t]*\r$", re.IGNORECASE | re.MULTILINE)
_ESCAPED = re.compile(rb"=([0-9A-F]{2})")
_LIMIT = 1 << 16  # octets of a command line


class World:
    """What all connections share: the behaviour, the record, and whether it is frozen."""

    def __init__(self, behaviour: Behaviour, record: int) -> None:
        self.behaviour = behaviour
        self.record = record
        self.lines: list[str] = []
        self.frozen = False
        self.sessions: dict[Session, None] = {}
        self.open: dict[str, int] = dict.fromkeys(behaviour.ports, 0)
        self.connections = 0
        self.transactions = 0

    def note(self, kind: str, connection: int, transaction: int, more: str = "") -> None:
        """Record an event, now."""
        if not self.lines:
            asyncio.get_running_loop().call_soon(self.flush)
        self.lines.append(f'{{"t":{time.monotonic_ns()},"k":"{kind}","c":{connection},"n":{transaction}{more}}}\n')

    def flush(self) -> None:
        """Put all events into the file."""
        lines, self.lines = self.lines, []
        octets = "".join(lines).encode()
        while octets:
            octets = octets[os.write(self.record, octets) :]

    def freeze(self, frozen: bool) -> None:
        """Hold back, or let go, the replies to ends of messages."""
        self.frozen = frozen
        if not frozen:
            for session in tuple(self.sessions):
                session.go_on()

    def drop(self) -> None:
        """Abort all connections."""
        for session in tuple(self.sessions):
            session.transport.abort()


class Transaction:
    """One mail transaction, from MAIL FROM on."""

    __slots__ = ("address", "attempt", "number", "recipients", "where")

    def __init__(self, number: int, where: Domain) -> None:
        self.number = number
        self.where = where  # of the last recipient
        self.address = ""
        self.attempt = 1
        self.recipients = 0


class Reply:
    """A reply that waits for its turn: the wait begins when the one before it is out."""

    __slots__ = ("after", "at_end", "octets", "then")

    def __init__(self, octets: bytes, after: float, at_end: bool, then: Callable[[], None] | None) -> None:
        self.octets = octets
        self.after = after
        self.at_end = at_end
        self.then = then


class Session(asyncio.Protocol):
    """One connection. What comes in is read and stamped at once; replies go out in order, each when it is due."""

    def __init__(self, world: World, name: str, port: Port) -> None:
        self.world = world
        self.name = name
        self.port = port
        self.buffer = bytearray()
        self.searched = 0
        self.replies: deque[Reply] = deque()
        self.timer: asyncio.TimerHandle | None = None
        self.transaction: Transaction | None = None
        self.unanswered: dict[Transaction, None] = {}  # no more comes in of them, but the last reply is not out
        self.messages = 0
        self.in_data = False
        self.chunk = -1  # octets of a BDAT chunk still to come
        self.last_chunk = False
        self.chunks = bytearray()
        world.connections += 1
        self.number = world.connections

    # -- the connection ---------------------------------------------------------------------------------------------

    def connection_made(self, transport) -> None:
        self.transport = transport
        world, port = self.world, self.port
        world.sessions[self] = None
        world.open[self.name] += 1
        world.note("open", self.number, 0, f',"port":"{self.name}"')
        if port.max_connections and world.open[self.name] > port.max_connections:
            self.say(b"421 4.3.2 Too many connections", then=self.close)
        elif port.refuse and world.behaviour.dice.roll("refuse", str(self.number), 1) < port.refuse:
            self.say(b"554 5.3.2 Not today", then=self.close)
        else:
            self.say(b"220 world.example ESMTP", port.greeting_latency)

    def connection_lost(self, exc) -> None:
        world = self.world
        del world.sessions[self]
        world.open[self.name] -= 1
        if self.timer is not None:
            self.timer.cancel()
        for transaction in tuple(self.unanswered):
            self.end(transaction, "lost")
        self.end(self.transaction, "lost")
        world.note("close", self.number, 0, f',"port":"{self.name}"')

    def close(self) -> None:
        self.transport.close()

    def hang_up(self) -> None:
        """Close the connection in the face of the client."""
        self.transport.abort()

    # -- out --------------------------------------------------------------------------------------------------------

    def say(
        self, text: bytes, after: float = 0.0, *, at_end: bool = False, then: Callable[[], None] | None = None
    ) -> None:
        """Queue a reply; `then` is called when it was handed to the kernel."""
        self.replies.append(Reply(text and text + b"\r\n", after, at_end, then))
        if len(self.replies) == 1:
            self.go_on()

    def go_on(self) -> None:
        """Write what is due. A reply whose wait is over has no wait any more."""
        if self.timer is not None:
            return
        while self.replies and not self.transport.is_closing():
            reply = self.replies[0]
            if reply.at_end and self.world.frozen:
                return
            if reply.after > 0:
                self.timer = asyncio.get_running_loop().call_later(reply.after, self.waited)
                return
            self.replies.popleft()
            if reply.octets:
                self.transport.write(reply.octets)
            if reply.then is not None:
                reply.then()

    def waited(self) -> None:
        self.timer = None
        self.replies[0].after = 0.0
        self.go_on()

    def wait(self, transaction: Transaction, stage: str) -> float:
        return self.world.behaviour.wait(transaction.where, stage, transaction.address, transaction.attempt)

    def rolled(self, transaction: Transaction, stage: str, *odds: float) -> int | None:
        """Give which of several things that exclude each other happens at a stage, if one does."""
        if not any(odds):
            return None
        roll = self.world.behaviour.dice.roll(stage, transaction.address, transaction.attempt)
        for number, each in enumerate(odds):
            if roll < each:
                return number
            roll -= each
        return None

    # -- in ---------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer
        buffer += data
        while buffer and not self.transport.is_closing():
            if self.in_data:
                if not self.read_message():
                    return
            elif self.chunk >= 0:
                if not self.read_chunk():
                    return
            else:
                end = buffer.find(b"\r\n")
                if end < 0:
                    if len(buffer) > _LIMIT:
                        self.hang_up()
                    return
                line = bytes(buffer[:end])
                del buffer[: end + 2]
                self.command(line)

    def read_message(self) -> bool:
        """Take the message off the buffer, if all of it is there."""
        buffer, transaction = self.buffer, self.transaction
        if self.rolled(transaction, "middle", transaction.where.hang_up_data) is not None:
            self.hang_up()
            return False
        if buffer.startswith(b".\r\n"):
            size, cut = 0, 3
        else:
            found = buffer.find(b"\r\n.\r\n", self.searched)
            if found < 0:
                self.searched = max(0, len(buffer) - 4)
                return False
            size, cut = found + 2, found + 5
        message = buffer[:size]
        del buffer[:cut]
        self.searched = 0
        self.in_data = False
        self.end_of_message(message)
        return True

    def read_chunk(self) -> bool:
        """Take a BDAT chunk off the buffer, as far as it is there."""
        taken = self.buffer[: self.chunk]
        del self.buffer[: len(taken)]
        self.chunks += taken
        self.chunk -= len(taken)
        if self.chunk:
            return False
        self.chunk = -1
        if not self.last_chunk:
            self.say(b"250 2.0.0 Ok")
            return True
        message, self.chunks = self.chunks, bytearray()
        self.end_of_message(message.replace(b"\r\n.", b"\r\n.."))
        return True

    def command(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb == b"MAIL":
            self.mail(line)
        elif verb == b"RCPT":
            self.rcpt(line)
        elif verb == b"DATA":
            self.data()
        elif verb == b"BDAT":
            self.bdat(line)
        elif verb == b"EHLO":
            lines = [b"world.example", *(feature.encode() for feature in self.port.features)]
            self.say(b"\r\n".join(b"250%c%s" % (b"- "[each is lines[-1]], each) for each in lines))
        elif verb in (b"HELO", b"NOOP"):
            self.say(b"250 2.0.0 Ok")
        elif verb == b"RSET":
            self.end(self.transaction, "rset")
            self.transaction = None
            self.say(b"250 2.0.0 Ok")
        elif verb == b"QUIT":
            self.end(self.transaction, "rset")
            self.transaction = None
            self.say(b"221 2.0.0 Bye", then=self.close)
        else:
            self.say(b"500 5.5.2 Unknown command")

    def mail(self, line: bytes) -> None:
        world, port = self.world, self.port
        found = _SENDER.search(line)
        campaign = (
            _ESCAPED.sub(lambda one: bytes([int(one[1], 16)]), found[1]).decode("utf-8", "replace") if found else ""
        )
        key = found[2].decode() if found else "-1"
        self.end(self.transaction, "rset")
        world.transactions += 1
        transaction = self.transaction = Transaction(world.transactions, world.behaviour.of(""))
        transaction.address = f"{campaign}+{key}"
        fate = self.rolled(transaction, "mail", port.reject_mail, port.defer_mail, port.hang_up_mail)
        closing = port.max_messages and self.messages >= port.max_messages
        code = 421 if closing else (250, 550, 451, 0)[0 if fate is None else fate + 1]
        world.note("mail", self.number, transaction.number, f',"campaign":{quoted(campaign)},"key":{key},"code":{code}')
        if code == 250:
            self.say(b"250 2.1.0 Ok")
            return
        self.end(transaction, "lost" if code == 0 else "rset")
        self.transaction = None
        if code == 0:
            self.hang_up()
        elif code == 421:
            self.say(b"421 4.7.0 Enough for one connection", then=self.close)
        else:
            self.say(b"550 5.7.1 Not from you" if code == 550 else b"451 4.3.0 Not now")

    def rcpt(self, line: bytes) -> None:
        transaction = self.transaction
        if transaction is None:
            self.say(b"503 5.5.1 MAIL first")
            return
        world = self.world
        found = _PATH.search(line)
        address = transaction.address = found[1].decode("utf-8", "replace") if found else ""
        where = transaction.where = world.behaviour.of(address)
        attempt = transaction.attempt = world.behaviour.dice.attempt(address)
        fate = self.rolled(transaction, "rcpt", where.reject, where.defer, where.hang_up_rcpt)
        if fate == 2:
            world.note("rcpt", self.number, transaction.number, f',"to":{quoted(address)},"code":0')
            self.hang_up()
            return
        if where.greylist and attempt == 1:
            reply = b"450 4.7.1 Greylisted, try again"
        elif fate is None:
            reply = b"250 2.1.5 Ok"
            transaction.recipients += 1
        else:
            reply = b"550 5.1.1 No such user" if fate == 0 else b"451 4.3.2 Try again later"
        world.note("rcpt", self.number, transaction.number, f',"to":{quoted(address)},"code":{reply[:3].decode()}')
        self.say(reply, self.wait(transaction, "rcpt"))

    def refusal_of_data(self) -> bytes:
        """Say why no message can come now, if so."""
        transaction = self.transaction
        if transaction is None:
            return b"503 5.5.1 MAIL first"
        if not transaction.recipients:
            return b"554 5.5.1 No valid recipients"
        where = transaction.where
        fate = self.rolled(transaction, "data", where.reject_data, where.defer_data)
        return b"" if fate is None else (b"554 5.7.1 Not like this", b"451 4.3.0 Not now")[fate]

    def data(self) -> None:
        refusal = self.refusal_of_data()
        transaction = self.transaction
        if transaction is None:
            self.say(refusal)
            return
        if refusal:
            self.transaction = None
            self.unanswered[transaction] = None
            code = int(refusal[:3])
            self.say(refusal, self.wait(transaction, "data"), then=lambda: self.end(transaction, "end", code))
            return
        self.in_data = True
        self.world.note("data", self.number, transaction.number)
        self.say(b"354 End data with <CR><LF>.<CR><LF>", self.wait(transaction, "data"))

    def bdat(self, line: bytes) -> None:
        words = line.split()
        if not self.port.chunking or len(words) < 2 or not words[1].isdigit():
            self.say(b"500 5.5.2 Unknown command")
            return
        refusal = b"" if self.chunks else self.refusal_of_data()
        if refusal:
            # The octets come all the same; this peer is one of those that say so by closing.
            self.say(refusal, then=self.close)
            return
        self.chunk = int(words[1])
        self.last_chunk = words[-1].upper() == b"LAST"
        if self.chunk == 0:
            self.read_chunk()

    def end_of_message(self, message: bytearray) -> None:
        transaction, self.transaction = self.transaction, None
        self.messages += 1
        self.unanswered[transaction] = None
        where = transaction.where
        head, _, body = message.partition(b"\r\n\r\n")
        head += b"\r\n"
        campaign, key = _CAMPAIGN.search(head), _KEY.search(head)
        more = f',"size":{len(message)},"crc":{zlib.crc32(body)}'
        if campaign is not None:
            more += f',"campaign":{quoted(campaign[1].decode("utf-8", "replace"))}'
        if key is not None:
            more += f',"key":{int(key[1])}'
        self.world.note("dot", self.number, transaction.number, more)
        fate = self.rolled(transaction, "end", where.reject_end, where.defer_end, where.hang_up)
        after = self.wait(transaction, "end")
        if fate == 2:
            self.say(b"", after, at_end=True, then=lambda: self.hang_up_at_end(transaction))
            return
        reply = b"250 2.0.0 Ok: taken" if fate is None else (b"554 5.7.1 Not this", b"451 4.3.0 Not now")[fate]
        self.say(reply, after, at_end=True, then=lambda: self.end(transaction, "end", int(reply[:3])))

    def hang_up_at_end(self, transaction: Transaction) -> None:
        self.end(transaction, "end", 0)
        self.hang_up()

    def end(self, transaction: Transaction | None, kind: str, code: int | None = None) -> None:
        """Record that a transaction is over."""
        if transaction is None:
            return
        self.unanswered.pop(transaction, None)
        self.world.note(kind, self.number, transaction.number, "" if code is None else f',"code":{code}')


class Commander(asyncio.Protocol):
    """Standard input: its lines, and None at its end."""

    def __init__(self, lines: asyncio.Queue[str | None]) -> None:
        self.lines = lines
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            self.lines.put_nowait(line.decode())

    def connection_lost(self, exc) -> None:
        self.lines.put_nowait(None)


class Ports:
    """The listening sockets, which can be closed and opened again at the same numbers."""

    def __init__(self, world: World, host: str) -> None:
        self.world = world
        self.host = host
        self.numbers: dict[str, int] = dict.fromkeys(world.behaviour.ports, 0)
        self.servers: list[asyncio.Server] = []

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        for name, port in self.world.behaviour.ports.items():
            server = await loop.create_server(
                lambda name=name, port=port: Session(self.world, name, port),
                self.host,
                self.numbers[name],
                backlog=4096,
                reuse_address=True,
            )
            self.numbers[name] = server.sockets[0].getsockname()[1]
            self.servers.append(server)

    def close(self) -> None:
        servers, self.servers = self.servers, []
        for server in servers:
            server.close()


async def obey(line: str, world: World, ports: Ports) -> None:
    """Do what one line of standard input says, and say when it is done."""
    verb, _, rest = line.partition(" ")
    match verb:
        case "flush":
            world.flush()
        case "freeze":
            world.freeze(True)
        case "thaw":
            world.freeze(False)
        case "drop":
            world.drop()
        case "down":
            ports.close()
        case "up":
            await ports.open()
        case "domains":
            world.behaviour.change(json.loads(rest))
        case _:
            raise ValueError(f"{verb} is no command")
    print(json.dumps({"done": verb, "t": time.monotonic_ns()}), flush=True)


async def serve(world: World, host: str) -> None:
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lines.put_nowait, None)
    ports = Ports(world, host)
    await ports.open()
    commands, _ = await loop.connect_read_pipe(lambda: Commander(lines), sys.stdin.buffer)
    print(json.dumps(ports.numbers), flush=True)
    while (line := await lines.get()) is not None:
        await obey(line, world, ports)
    ports.close()
    commands.close()
    world.drop()
    await asyncio.sleep(0)  # connections are told that they are lost
    world.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="peer_world", description="an SMTP server that behaves like the world")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--record", type=Path, required=True, help="the file that the events are appended to")
    parser.add_argument("--profile", type=Path, help='JSON: {"domains": {NAME or *: …}, "ports": {NAME: …}}')
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    profile = json.loads(arguments.profile.read_text()) if arguments.profile else {}
    ports = profile.get("ports") or {"pipelining": {}, "plain": {"pipelining": False}}
    behaviour = Behaviour(profile.get("domains", {}), ports, arguments.seed)
    record = os.open(arguments.record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        with asyncio.Runner(loop_factory=None if uvloop is None else uvloop.new_event_loop) as runner:
            runner.run(serve(World(behaviour, record), arguments.host))
    finally:
        os.close(record)


if __name__ == "__main__":
    main()
