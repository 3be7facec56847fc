"""Messages a second into the edge, against stock aiosmtpd and smtp-sink in the same minute on the same machine.

Run with `python -m tests.bench.edge [MESSAGES]`. Each server is a process of its own, takes messages of 10 kB from
`smtp-source -s 20` and throws them away, so only the protocol is measured. Figures, no verdict.
"""

import asyncio
import subprocess
import sys
import time

import uvloop
from aiosmtpd.smtp import SMTP

from mtactl.edge.listener import Listeners
from mtactl.message.reply import Reply
from tests.conftest import add_to_path
from tests.world.edge import make_policy

ROUNDS = 3
SENDERS = ("/usr/sbin", "/sbin")
KEEP = ("-d",)  # smtp-source: one connection for many messages


class NullIntake:
    """Takes everything and keeps nothing."""

    reply = Reply(250, "2.0.0", "Ok: queued as nothing")

    def ready(self):
        return None

    async def accept(self, message):
        return self.reply


class NullHandler:
    """The same for stock aiosmtpd."""

    async def handle_DATA(self, server, session, envelope):
        return "250 Ok"


async def serve_edge():
    listeners = Listeners([make_policy(NullIntake())])
    await listeners.start()
    print(listeners.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def serve_stock():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(NullHandler(), loop=loop, hostname="mx.test"), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


def measure(port, messages, options):
    began = time.perf_counter()
    load = ("-s", "20", "-l", "10240", "-m", str(messages), "-f", "a@example.com", "-t", "b@example.org")
    subprocess.run(["smtp-source", *load, *options, f"127.0.0.1:{port}"], check=True)
    return messages / (time.perf_counter() - began)


def start(what):
    """Start a server of this file; give its process and its port."""
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.edge", "serve", *what], stdout=subprocess.PIPE)
    for line in process.stdout:
        if line.strip().isdigit():
            return process, int(line)
    raise RuntimeError(f"{what} did not start")


def compare(messages):
    add_to_path(SENDERS)
    servers = {
        "edge, uvloop": start(["edge", "uvloop"]),
        "edge, asyncio": start(["edge", "asyncio"]),
        "stock aiosmtpd, uvloop": start(["stock", "uvloop"]),
    }
    sink = subprocess.Popen(["smtp-sink", "-u", "nobody", "127.0.0.1:25999", "100"])
    servers["smtp-sink"] = (sink, 25999)
    try:
        time.sleep(0.5)
        best = dict.fromkeys(servers, 0.0)
        for _ in range(ROUNDS):
            for name, (_, port) in servers.items():
                count = messages // 4 if "stock" in name else messages
                best[name] = max(best[name], measure(port, count, KEEP))
        short = measure(servers["edge, uvloop"][1], messages // 4, ())
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.wait()
    stock = best["stock aiosmtpd, uvloop"]
    for name, rate in best.items():
        print(f"{name:24} {rate:8.0f}/s  {rate / stock:5.2f} x stock aiosmtpd")
    print(f"{'edge, a connection each':24} {short:8.0f}/s")


def main(arguments):
    if arguments[:1] == ["serve"]:
        serve = {"edge": serve_edge, "stock": serve_stock}[arguments[1]]
        run = {"uvloop": uvloop.run, "asyncio": asyncio.run}[arguments[2]]
        run(serve())
    else:
        compare(int(arguments[0]) if arguments else 10_000)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
