"""What the relay does in a second: `python -m tests.bench.relay [--messages N] [--size OCTETS]`.

Prints figures, asserts nothing. Each part sends the same message to Postfix's smtp-sink over the given number of
connections, one transaction after the other on each; the peers, in the same minute on the same machine, are stock
aiosmtplib and Postfix's smtp-source. `cpu` is of this process alone. Without `-d`, smtp-source opens a connection for
each message.
"""

import argparse
import asyncio
import os
import socket
import time

import aiosmtplib
import uvloop

from mtactl.relay.relay import SmtpRelay
from mtactl.schedule.ports import Delivery, Ending, Rcpt
from mtactl.settings import LaneSettings, Settings
from tests.world.sink import run_sink


def make_body(size: int) -> bytes:
    line = b"x" * 76 + b"\r\n"
    return b"Subject: bench\r\n\r\n" + line * (size // len(line)) + b".\r\n"


async def run_relay(port: int, connections: int, messages: int, size: int, *, pipelining: bool) -> float:
    settings = Settings(lane={"*": LaneSettings(route=(("127.0.0.1", port),), pipelining=pipelining)})
    relay = SmtpRelay(lambda: settings)
    delivery = Delivery(
        reverse_path="a@example.com",
        recipients=(Rcpt(address="b@example.net"),),
        body=make_body(size),
        eight_bit=False,
        smtputf8=False,
        ret=None,
        envid=None,
        on_ending=lambda: None,
    )
    left = iter(range(messages))

    async def send() -> None:
        session = await relay.connect("x.example", "x.example")
        for _ in left:
            assert session.refusal(delivery) is None
            session.begin(delivery)
            (result,) = await session.finish()
            assert result.ending is Ending.DELIVERED, result
        await session.quit()

    return await run_all(send, connections)


async def run_aiosmtplib(port: int, connections: int, messages: int, size: int) -> float:
    body = make_body(size)[:-3]
    left = iter(range(messages))

    async def send() -> None:
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, local_hostname="bench.test") as client:
            for _ in left:
                await client.sendmail("a@example.com", ["b@example.net"], body)

    return await run_all(send, connections)


async def run_all(send, connections: int) -> float:
    cpu = time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(send())
    return time.process_time() - cpu


async def run_smtp_source(port: int, connections: int, messages: int, size: int) -> float:
    arguments = ["-d", "-s", str(connections), "-m", str(messages), "-l", str(size), "-f", "a@example.com"]
    source = await asyncio.create_subprocess_exec("smtp-source", *arguments, "-t", "b@example.net", f"127.0.0.1:{port}")
    assert await source.wait() == 0
    return 0.0


def take_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def bench(messages: int, size: int) -> None:
    parts = [
        ("relay", lambda *args: run_relay(*args, pipelining=True)),
        ("relay, pipelining off", lambda *args: run_relay(*args, pipelining=False)),
        ("aiosmtplib", run_aiosmtplib),
        ("smtp-source", run_smtp_source),
    ]
    for connections in (1, 20):
        number = messages // 3 if connections == 1 else messages
        for name, part in parts:
            port = take_port()
            async with run_sink(port):
                start = time.perf_counter()
                cpu = await part(port, connections, number, size)
                wall = time.perf_counter() - start
            note = f"{cpu / number * 1e6:5.0f} µs of CPU each" if cpu else ""
            print(f"{connections:3} connections  {name:22} {number / wall:8,.0f}/s  {note}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=10_000)
    arguments = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    uvloop.run(bench(arguments.messages, arguments.size))


if __name__ == "__main__":
    main()
