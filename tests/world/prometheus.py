"""A real Prometheus server that scrapes a daemon with the configuration and the rules that we ship, on a free port."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.world.daemon import free_port

CONFIG = Path(__file__).parents[2] / "config" / "prometheus"


class Prometheus:
    """One server. `changes` are (file, old, new): what is put otherwise in a shipped file, so that a test can wait."""

    def __init__(self, folder: Path, target: int, changes: tuple[tuple[str, str, str], ...] = ()) -> None:
        folder.mkdir(parents=True)
        for path in CONFIG.glob("*.yml"):
            text = path.read_text()
            for _, old, new in (change for change in changes if change[0] == path.name):
                assert old in text, (path, old)
                text = text.replace(old, new)
            if path.name == "prometheus.yml":
                assert "127.0.0.1:9464" in text
                text = text.replace("127.0.0.1:9464", f"127.0.0.1:{target}")
                text = re.sub(r"(scrape|evaluation)_interval: 15s", r"\1_interval: 1s", text)
            (folder / path.name).write_text(text)
        self.log = folder / "log"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    shutil.which("prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Wait until it answers questions."""
        deadline = time.monotonic() + seconds
        while True:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()[-3000:]
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                    return
            except OSError:
                time.sleep(0.05)

    def ask(self, path: str, **query: str) -> object:
        """Ask the HTTP API; give what it answers. Fails with what it says of a bad question."""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=30) as got:
                answer = json.load(got)
        except urllib.error.HTTPError as error:
            answer = json.load(error)
        assert answer["status"] == "success", (query, answer)
        return answer["data"]

    def query(self, expression: str) -> list[dict]:
        """Evaluate an expression now; give the samples."""
        return self.ask("query", query=expression)["result"]

    def rules(self) -> dict[str, dict]:
        """Give the state of each rule, by name."""
        return {rule["name"]: rule for group in self.ask("rules")["groups"] for rule in group["rules"]}

    def firing(self) -> set[str]:
        """Give the names of the alerts that fire now."""
        return {name for name, rule in self.rules().items() if rule.get("state") == "firing"}

    def targets(self) -> dict[str, str]:
        """Give the health of each target, by job."""
        return {target["labels"]["job"]: target["health"] for target in self.ask("targets")["activeTargets"]}

    def end(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(30)


@contextmanager
def prometheus(folder: Path, target: int, *changes: tuple[str, str, str]) -> Iterator[Prometheus]:
    """Run a server for a block, that scrapes 127.0.0.1:`target` each second."""
    server = Prometheus(folder, target, changes)
    try:
        server.wait_ready()
        yield server
    finally:
        server.end()
