"""The rest of the world, as one SMTP server: it behaves by recipient domain, and keeps a record from outside.

It shares no code with the daemon. It runs in its own process (`python -m tests.world.peer_world --record FILE`), prints
one JSON line with its ports (`with` and without PIPELINING), and stamps each event with CLOCK_MONOTONIC, which all
processes of a machine share. One line of JSON an event:

    {"t": ns, "k": "mail"|"rcpt"|"data"|"end"|"lost", "c": connection, "n": transaction, …}

`mail` is stamped when the bytes of MAIL FROM were read; the campaign is told from the sender, `bounce+CAMPAIGN+N@…`.
SIGUSR1 freezes: the end of a message is read, but not answered until SIGUSR2 thaws.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import time
from pathlib import Path

try:
    import uvloop
except ImportError:
    uvloop = None

DEFAULT = {"latency": 0.0, "reject": 0.0, "defer": 0.0, "defer_end": 0.0, "hang_up": 0.0, "greylist": False}
_SENDER = re.compile(r"FROM:<[^+>]*\+(.+)\+\d+@", re.IGNORECASE)
_PATH = re.compile(r"<([^>]*)>")


class World:
    """Profiles by domain, the seed, the record, and whether it is frozen."""

    def __init__(self, profiles: dict[str, dict], seed: int, record) -> None:
        self.profiles = profiles
        self.random = random.Random(seed)
        self.record = record
        self.lines: list[str] = []
        self.frozen = False
        self.waiting: list[asyncio.TimerHandle | None] = []
        self.thaw: list = []
        self.seen: set[str] = set()
        self.connections = 0
        self.transactions = 0

    def profile(self, domain: str) -> dict:
        return {**DEFAULT, **self.profiles.get("*", {}), **self.profiles.get(domain, {})}

    def note(self, kind: str, session: Session, **data) -> None:
        if not self.lines:
            asyncio.get_running_loop().call_soon(self.flush)
        self.lines.append(
            json.dumps({"t": time.monotonic_ns(), "k": kind, "c": session.number, "n": session.transaction, **data})
        )

    def flush(self) -> None:
        lines, self.lines = self.lines, []
        self.record.write("".join(f"{line}\n" for line in lines))
        self.record.flush()

    def set_frozen(self, frozen: bool) -> None:
        self.frozen = frozen
        if not frozen:
            thaw, self.thaw = self.thaw, []
            for answer in thaw:
                answer()


class Session(asyncio.Protocol):
    """One connection. Replies go out in order, each after its domain's latency."""

    def __init__(self, world: World, pipelining: bool) -> None:
        self.world = world
        self.pipelining = pipelining
        self.buffer = bytearray()
        self.in_data = False
        self.transaction = 0
        self.reset()
        world.connections += 1
        self.number = world.connections

    def reset(self) -> None:
        self.sender = ""
        self.accepted: list[str] = []
        self.open = False
        self.where = dict(DEFAULT)
        self.due = 0.0

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.due = 0.0
        self.say("220 world.example ESMTP")

    def connection_lost(self, exc) -> None:
        if self.open:
            self.world.note("lost", self)
            self.open = False

    def say(self, text: str, after: float = 0.0) -> None:
        """Write a reply, after a while, but never before the one that went before."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.due = max(self.due, now + after)
        data = f"{text}\r\n".encode()
        if self.due <= now:
            self.transport.write(data)
        else:
            loop.call_at(self.due, self._write, data)

    def _write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            if self.in_data:
                end = self.buffer.find(b"\r\n.\r\n")
                if self.buffer.startswith(b".\r\n"):
                    size, cut = 0, 3
                elif end < 0:
                    return
                else:
                    size, cut = end + 2, end + 5
                del self.buffer[:cut]
                self.in_data = False
                self.end_of_data(size)
                continue
            end = self.buffer.find(b"\r\n")
            if end < 0:
                return
            line = self.buffer[:end].decode("utf-8", "replace")
            del self.buffer[: end + 2]
            self.command(line)
            if self.transport.is_closing():
                return

    def command(self, line: str) -> None:
        verb = line[:4].upper()
        if verb == "EHLO":
            features = ["world.example", "8BITMIME", "SMTPUTF8", "SIZE 104857600", "DSN", "ENHANCEDSTATUSCODES"]
            if self.pipelining:
                features.append("PIPELINING")
            self.say("\r\n".join(f"250{'-' if f is not features[-1] else ' '}{f}" for f in features))
        elif verb == "HELO":
            self.say("250 world.example")
        elif verb == "MAIL":
            self.world.transactions += 1
            self.transaction = self.world.transactions
            self.reset_transaction(line)
            self.say("250 2.1.0 Ok")
        elif verb == "RCPT":
            self.rcpt(line)
        elif verb == "DATA":
            if not self.accepted:
                self.say("554 5.5.1 No valid recipients", self.where["latency"] / 4)
                return
            self.in_data = True
            self.world.note("data", self)
            self.say("354 End data with <CR><LF>.<CR><LF>", self.where["latency"] / 4)
        elif verb == "RSET":
            self.open = False
            self.say("250 2.0.0 Ok")
        elif verb == "NOOP":
            self.say("250 2.0.0 Ok")
        elif verb == "QUIT":
            self.say("221 2.0.0 Bye")
            asyncio.get_running_loop().call_at(self.due, self.transport.close)
        else:
            self.say("500 5.5.2 Unknown")

    def reset_transaction(self, line: str) -> None:
        found = _SENDER.search(line)
        self.sender = found[1] if found else ""
        self.accepted = []
        self.open = True
        self.world.note("mail", self, campaign=self.sender)

    def rcpt(self, line: str) -> None:
        found = _PATH.search(line)
        address = found[1] if found else ""
        where = self.where = self.world.profile(address.rpartition("@")[2])
        dice = self.world.random.random()
        if where["greylist"] and address not in self.world.seen:
            self.world.seen.add(address)
            reply = "450 4.7.1 Greylisted, try again"
        elif dice < where["reject"]:
            reply = "550 5.1.1 No such user"
        elif dice < where["reject"] + where["defer"]:
            reply = "451 4.3.2 Try again later"
        else:
            reply = "250 2.1.5 Ok"
            self.accepted.append(address)
        self.world.note("rcpt", self, to=address, code=int(reply[:3]))
        self.say(reply, where["latency"] / 4)

    def end_of_data(self, size: int) -> None:
        where = self.where
        dice = self.world.random.random()
        if dice < where["hang_up"]:
            self.world.note("end", self, size=size, code=0, to=self.accepted)
            self.open = False
            self.transport.abort()
            return
        code = 451 if dice < where["hang_up"] + where["defer_end"] else 250
        accepted, number = self.accepted, self.transaction
        self.accepted = []

        def answer() -> None:
            if self.transport.is_closing():
                return
            self.transaction = number
            self.world.note("end", self, size=size, code=code, to=accepted)
            self.open = False
            self.say("250 2.0.0 Ok: taken" if code == 250 else "451 4.3.0 Not now")

        def settle() -> None:
            if self.world.frozen:
                self.world.thaw.append(answer)
            else:
                answer()

        latency = where["latency"]
        if latency:
            asyncio.get_running_loop().call_later(latency, settle)
        else:
            settle()


async def serve(world: World, host: str) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, world.set_frozen, True)
    loop.add_signal_handler(signal.SIGUSR2, world.set_frozen, False)
    servers = [await loop.create_server(lambda p=p: Session(world, p), host, 0, backlog=4096) for p in (True, False)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    print(json.dumps({"pipelining": ports[0], "plain": ports[1]}), flush=True)
    await stop.wait()
    for server in servers:
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--profile", type=Path, help="JSON: by domain (or *), what differs from DEFAULT")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    profiles = json.loads(arguments.profile.read_text()) if arguments.profile else {}
    with arguments.record.open("a", buffering=1 << 16) as record:
        world = World(profiles, arguments.seed, record)
        with asyncio.Runner(loop_factory=None if uvloop is None else uvloop.new_event_loop) as runner:
            runner.run(serve(world, "127.0.0.1"))


if __name__ == "__main__":
    main()
