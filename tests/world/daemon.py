"""A real mtactld in a folder of its own, and the world that it sends to, each in its own process."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.world.record import Record


def free_port() -> int:
    """Give a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("mtactl", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Daemon:
    """One node. `extra` is TOML put behind the generated part; `lane` more keys of the `[lane."*"]` table, `listener`
    of the listener's. `open_files` is its limit on open files.
    """

    def __init__(
        self,
        folder: Path,
        *,
        route: int | None = None,
        lane: str = "",
        extra: str = "",
        listener: str = "",
        open_files: int | None = None,
    ) -> None:
        self.folder = folder
        self.open_files = open_files
        folder.mkdir(parents=True, exist_ok=True)
        self.smtp_port = free_port()
        self.metrics_port = free_port()
        self.socket = folder / "control.sock"
        self.config = folder / "mtactl.toml"
        self.log = folder / "log"
        routed = f'route = ["127.0.0.1:{route}"]\n' if route else ""
        self.config.write_text(
            f"""[node]
name = "mx1"
hostname = "mta.example.com"
[store]
path = "{folder}/store"
reserve = "1MiB"
[control]
socket = "{self.socket}"
[metrics]
listen = "127.0.0.1:{self.metrics_port}"
[[listener]]
listen = "127.0.0.1:{self.smtp_port}"
{listener}
[lane."*"]
{routed}{lane}
{extra}
"""
        )
        self.process: subprocess.Popen | None = None

    def start(self, *, ready: float = 30.0, env: dict[str, str] | None = None) -> None:
        """Start it and wait until it is ready."""
        self.launch(env=env)
        self.wait_ready(ready)

    def launch(self, *, env: dict[str, str] | None = None) -> None:
        """Start it."""
        limited = [] if self.open_files is None else ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(self.open_files)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*limited, sys.executable, "-m", "mtactl.app", "--config", str(self.config)],
                stderr=log,
                stdout=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                process_group=0,  # Ctrl-C at the terminal is for the one who ends it in order
            )

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until it is ready."""
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"mtactld did not start:\n{self.tail()}")
            time.sleep(0.02)

    def is_ready(self) -> bool:
        """Whether /readyz says so."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def tail(self, lines: int = 30) -> str:
        """Give the end of the log."""
        return "\n".join(self.log.read_text().splitlines()[-lines:])

    def kill9(self) -> None:
        """End it at once, wherever it is."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout: float = 60.0) -> int:
        """End it in order and give its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def end(self) -> None:
        """Make sure that it does not run."""
        if self.process is not None and self.process.poll() is None:
            self.kill9()

    def call(self, method: str, path: str, body: object = None, *, timeout: float = 30.0) -> tuple[int, object]:
        """Ask the control API; give status and document."""
        connection = _UnixConnection(str(self.socket), timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
            kind = answer.headers.get_content_type()
            if kind in ("application/json", "application/problem+json"):
                return answer.status, json.loads(text)
            return answer.status, text.decode()
        finally:
            connection.close()

    @contextmanager
    def connect(self) -> Iterator[Callable[..., tuple[int, dict]]]:
        """Give what asks the control API on one connection that stays open; it gives status and document."""
        connection = _UnixConnection(str(self.socket), 30.0)

        def ask(method: str, path: str, body: object = None) -> tuple[int, dict]:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

        try:
            yield ask
        finally:
            connection.close()

    def report(self, campaign: str) -> dict:
        """Give a campaign's report."""
        status, document = self.call("GET", f"/v1/campaigns/{urllib.parse.quote(campaign, safe='')}")
        assert status == 200, document
        return document

    def status(self) -> dict:
        """Give the node's status."""
        return self.call("GET", "/v1/status")[1]

    def halt(self, campaign: str) -> tuple[dict, int, int]:
        """Halt; give the answer and the stamps (ns of CLOCK_MONOTONIC) before the request and after the answer."""
        path = f"/v1/campaigns/{urllib.parse.quote(campaign, safe='')}/halt"
        before = time.monotonic_ns()
        status, document = self.call("POST", path, {"confirm": campaign})
        after = time.monotonic_ns()
        assert status == 200, document
        return document, before, after

    def wait_completed(self, campaign: str, timeout: float = 60.0) -> dict:
        """Wait for the halt to be completed; give the report."""
        deadline = time.monotonic() + timeout
        while True:
            report = self.report(campaign)
            check_law(report["counts"])
            if report["state"] == "halted":
                return report
            assert time.monotonic() < deadline, report
            time.sleep(0.02)

    def recipients(self, campaign: str) -> list[dict]:
        """Give the outcome of each recipient."""
        status, text = self.call("GET", f"/v1/campaigns/{urllib.parse.quote(campaign, safe='')}/recipients")
        assert status == 200, text
        return [json.loads(line) for line in text.splitlines()]

    def fsck(self) -> subprocess.CompletedProcess:
        """Check the store's files; the daemon must not run."""
        return subprocess.run(
            [sys.executable, "-m", "queue_store.fsck", str(self.folder / "store")], capture_output=True, text=True
        )


def check_law(counts: dict) -> None:
    """CONTRACT.md §1, for the counts of a report."""
    parts = ("queued", "in_flight", "delivered", "bounced", "expired", "dropped", "unknown")
    assert counts["accepted"] == sum(counts[part] for part in parts), counts
    assert all(value >= 0 for value in counts.values()), counts
    assert counts["delivered_after_stop"] <= counts["delivered"], counts


class PeerWorld:
    """The process of peer_world, and its record. Profiles and ports are behaviour's Domain and Port, by name.

    The ports, unless others are given: "pipelining" (`port`) and "plain" (`plain_port`).
    """

    def __init__(
        self,
        folder: Path,
        profiles: dict[str, dict] | None = None,
        *,
        ports: dict[str, dict] | None = None,
        seed: int = 1,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "world.ndjson"
        profile = folder / "world.json"
        profile.write_text(json.dumps({"domains": profiles or {}, "ports": ports or {}}))
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.world.peer_world"),
                *("--record", str(self.path), "--profile", str(profile), "--seed", str(seed)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        try:
            self.ports: dict[str, int] = self._answer()
        except BaseException:
            self.end()
            raise
        self.port = self.ports.get("pipelining", 0)
        self.plain_port = self.ports.get("plain", 0)
        self._record = Record(self.path)

    def record(self) -> Record:
        """Read what it has seen so far: all that it answered before this call is in there."""
        if self.process.poll() is None:
            self.tell("flush")
        self._record.refresh()
        return self._record

    def tell(self, command: str) -> int:
        """Give a command; give the stamp (ns of CLOCK_MONOTONIC) of when it was done. Raises AssertionError."""
        try:
            self.process.stdin.write(f"{command}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise AssertionError("the world has ended") from error
        return self._answer()["t"]

    def freeze(self) -> None:
        """Answer no end of data from now on."""
        self.tell("freeze")

    def thaw(self) -> None:
        """Answer again."""
        self.tell("thaw")

    def drop(self) -> None:
        """Abort all connections."""
        self.tell("drop")

    def down(self) -> None:
        """Listen no more; the connections that there are stay."""
        self.tell("down")

    def up(self) -> None:
        """Listen again, on the same ports."""
        self.tell("up")

    def change(self, profiles: dict[str, dict]) -> None:
        """Behave differently from now on."""
        self.tell(f"domains {json.dumps(profiles)}")

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError("the world has ended")
        return json.loads(line)

    def end(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def peer_world(folder: Path, domains: dict[str, dict] | None = None, **options) -> Iterator[PeerWorld]:
    """Run a world for a block."""
    world = PeerWorld(folder, domains, **options)
    try:
        yield world
    finally:
        world.end()


@contextmanager
def daemon(folder: Path, **options) -> Iterator[Daemon]:
    """Run a daemon for a block."""
    node = Daemon(folder, **options)
    try:
        node.start()
        yield node
    finally:
        node.end()
