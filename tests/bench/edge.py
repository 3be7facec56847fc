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
from tests.bench.processes import cpu_of
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


def measure(server, messages, options):
    """Give messages a second, and the server's CPU for a message in seconds."""
    process, port = server
    began, used = time.perf_counter(), cpu_of(process.pid)
    load = ("-s", "20", "-l", "10240", "-m", str(messages), "-f", "a@example.com", "-t", "b@example.org")
    subprocess.run(["smtp-source", *load, *options, f"127.0.0.1:{port}"], check=True)
    return messages / (time.perf_counter() - began), (cpu_of(process.pid) - used) / messages


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
        results = {name: [] for name in servers}
        for _ in range(ROUNDS):
            for name, server in servers.items():
                results[name].append(measure(server, messages // 4 if "stock" in name else messages, KEEP))
        for name in ("edge, uvloop", "stock aiosmtpd, uvloop"):
            results[f"{name}, a connection each"] = [measure(servers[name], messages // 4, ())]
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.wait()
    for name, figures in results.items():
        rate = max(rate for rate, _ in figures)
        cpu = min(cpu for _, cpu in figures)
        print(f"{name:44} {rate:7.0f}/s   {cpu * 1e6:6.0f} µs of CPU a message")
    (edge, edge_cpu), (stock, stock_cpu) = (
        (max(rate for rate, _ in figures), min(cpu for _, cpu in figures))
        for figures in (results["edge, uvloop"], results["stock aiosmtpd, uvloop"])
    )
    print(f"the edge to stock aiosmtpd: {edge / stock:.1f} times the messages, 1/{stock_cpu / edge_cpu:.1f} of the CPU")


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
