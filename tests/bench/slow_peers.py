"""Thousands of connections to peers that take their time: does the daemon keep all of them busy, and itself responsive?

A transaction has four replies (MAIL, RCPT, DATA and the end of the message), and the peer takes its time for each of
them, whether they were asked for together or not: with PIPELINING too, a connection can't do more than one message in
four delays. That is the arithmetic limit. Below it lies what the protocol asks for besides: the greeting, EHLO and QUIT
of each connection, once for the few messages that a domain has. Each lane is allowed one connection, or a domain's
messages would each have one of their own, and more time would go into opening them.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.bench.figures import Figure, Goal, Tell
from tests.bench.histogram import fetch_histogram
from tests.bench.queue_fill import Queue, copy_queue
from tests.bench.recording_peer import Peer
from tests.world.daemon import Daemon, daemon

CASE = "slow peers"
CONNECTIONS = 3_000
DOMAINS = 50_000
PER_DOMAIN = 4  # messages, on average
DELAY = 5.0  # seconds for each reply
REPLIES = 4  # of a transaction
REPLIES_BESIDE = 3  # greeting, EHLO, QUIT
WINDOW = 24  # delays for which it is measured: somewhat longer than a connection lives
PATIENCE = 120.0
_LAG = "mtactl_event_loop_lag_seconds"
_LAG_GOAL: Goal = {"must": 25.0, "aim": 5.0}  # ms


def measure(scale: float, tell: Tell) -> Iterator[Figure]:
    """Measure once; with less scale there are fewer peers, and they are faster."""
    connections = max(10, int(CONNECTIONS * scale))
    domains = max(100, int(DOMAINS * scale))
    delay = min(DELAY, max(0.1, DELAY * scale))
    folder = Path(tempfile.mkdtemp(prefix="mtactl-bench-", dir="/var/tmp"))
    peer = None
    try:
        queue = Queue(recipients=domains * PER_DOMAIN, campaigns=40, domains=domains, large=False)
        copy_queue(queue, folder, tell)
        peer = Peer("tests.bench.slow_peer", f"--delay={delay}")
        options = {
            "route": peer.port,
            "lane": "max_connections = 1",
            "extra": f'[delivery]\nmax_connections = {connections}\nidle_connection = "0s"\n',
        }
        tell(f"{connections:,} connections are being opened to {domains:,} domains that take {delay:g} s for a reply")
        with daemon(folder, **options) as node:
            opened_in = wait_until_open(peer, connections)
            time.sleep(3 * delay)  # greetings and EHLO
            yield from measure_window(node, peer, connections, delay, opened_in, tell)
            node.kill9()  # in order it would wait for what is in flight
    finally:
        if peer is not None:
            peer.end()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_open(peer: Peer, connections: int) -> float:
    """Wait until nearly all connections are open; give the seconds that it took, at most PATIENCE."""
    begun = time.monotonic()
    while peer.count().open < 0.95 * connections and time.monotonic() - begun < PATIENCE:
        time.sleep(0.05)
    return time.monotonic() - begun


def measure_window(
    node: Daemon, peer: Peer, connections: int, delay: float, opened_in: float, tell: Tell
) -> Iterator[Figure]:
    """Measure for a while with all connections open."""
    tell(f"it is measured for {WINDOW * delay:.0f} s")
    lag = fetch_histogram(node.metrics_port, _LAG)
    began = peer.count()
    open_then = []
    deadline = time.monotonic() + WINDOW * delay
    while time.monotonic() < deadline:
        time.sleep(max(0.1, delay / 10))
        open_then.append(peer.count().open)
    ended = peer.count()
    lag = fetch_histogram(node.metrics_port, _LAG) - lag
    rate = (ended.taken - began.taken) / ((ended.at - began.at) / 1e9)
    limit = connections / (REPLIES * delay)
    with_opening = connections * PER_DOMAIN / ((REPLIES * PER_DOMAIN + REPLIES_BESIDE) * delay)
    figure = partial(Figure, case=CASE)
    yield figure(
        what=f"{connections:,} connections to slow peers: throughput",
        unit="/s",
        value=rate,
        note=f"at most {limit:,.1f} by the replies of transactions, {with_opening:,.1f} with those beside them",
    )
    yield figure(what="share of the arithmetic limit", unit="%", value=rate / limit * 100)
    yield figure(what="share of the limit, opening and closing counted", unit="%", value=rate / with_opening * 100)
    yield figure(
        what="connections open, mean",
        unit="",
        value=sum(open_then) / len(open_then),
        note=f"of {connections:,}, from {min(open_then):,} to {max(open_then):,}; opened in {opened_in:.1f} s",
    )
    yield figure(
        what="event-loop lag with slow peers, p99",
        unit="ms",
        more=False,
        value=lag.quantile(0.99) * 1e3,
        note=f"of {lag.count:,.0f} samples; median {lag.quantile(0.5) * 1e3:.1f}",
        **_LAG_GOAL,
    )
