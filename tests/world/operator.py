"""The administrator's end: the client `mtactl` as a process of its own, the log, the metrics, and the patience."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from prometheus_client.parser import text_string_to_metric_families

from tests.world.daemon import Daemon

T = TypeVar("T")


def mtactl(socket: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the client without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "mtactl.cli.main", "--socket", str(socket), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def mtactld(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a daemon that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "mtactl.app", "--config", str(config), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def eventually(look: Callable[[], T], *, seconds: float = 20.0, told: Callable[[], object] = lambda: "") -> T:
    """Look until there is something to see; give it. Fails with what `told` says."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, told() or "it never came"
        time.sleep(0.02)


def log_lines(node: Daemon, event: str | None = None) -> list[dict]:
    """Give the log's records, all or those of one event. Fails on a line that is not one JSON object."""
    whole = node.log.read_text().rpartition("\n")[0]
    records = [json.loads(line) for line in whole.splitlines()]
    return [record for record in records if event in (None, record["event"])]


def outcomes(node: Daemon, campaign: str | None = None) -> list[dict]:
    """Give the log's outcome lines, of all campaigns or of one."""
    time.sleep(0.1)  # the books move at the reply, the log after the commit, and it gathers lines for a moment
    return [line for line in log_lines(node, "outcome") if campaign in (None, line["campaign"])]


def waiting(node: Daemon, **query: str) -> list[dict]:
    """List the queue."""
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    status, document = node.call("GET", f"/v1/queue?{asked}")
    assert status == 200, document
    return document["recipients"]


def metrics(node: Daemon) -> dict[tuple[str, ...], float]:
    """Scrape the metrics: (name, label values …) to value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{node.metrics_port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}
