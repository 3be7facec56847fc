"""The control API of a real daemon, called by schemathesis in all the ways that its OpenAPI document allows, and in
ways that it does not, over the Unix socket. Each answer must be one that the document has.
"""

from __future__ import annotations

import json
import random
import socket
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from requests.adapters import HTTPAdapter
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from tests.world.application import inject
from tests.world.daemon import Daemon, check_law, daemon

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    positive_data_acceptance,
]
CAMPAIGNS = ("spring-1", "2026/autumn", "a:b+c=d@e", "halted", "held")
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
BATCH = 25  # examples between two looks at the clock
SECONDS = 60.0  # for an answer: the machine may be busy


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("mtactl", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)


class _UnixPool(HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("mtactl", timeout=SECONDS)
        self._path = path

    def _new_conn(self) -> _UnixConnection:
        return _UnixConnection(self._path)


class _UnixAdapter(HTTPAdapter):
    """Sends what requests would send by TCP to a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._unix_pool = _UnixPool(str(path))

    def get_connection_with_tls_context(self, request, verify, proxies=None, cert=None):
        return self._unix_pool

    def close(self) -> None:
        super().close()
        self._unix_pool.close()


@dataclass(slots=True)
class Summary:
    """What was called, and how it was answered."""

    calls: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)

    def __str__(self) -> str:
        answered = ", ".join(f"{count:,} x {status}" for status, count in sorted(self.statuses.items()))
        return f"{self.calls.total():,} calls of {len(self.calls)} operations, answered {answered}"


class Fuzzer:
    """Calls a daemon's control API."""

    def __init__(self, node: Daemon, number: int) -> None:
        self.node = node
        self.dice = random.Random(number)
        self.summary = Summary()
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.mount("http://", _UnixAdapter(node.socket))
        status, document = node.call("GET", "/v1/openapi.json")
        assert status == 200
        self.document: dict[str, Any] = document
        self.known = {"campaign": list(CAMPAIGNS), "message": self.fill()}
        self.schema = schemathesis.openapi.from_dict(json.loads(json.dumps(document)))
        self.operations = [result.ok() for result in self.schema.get_all_operations()]

    def fill(self) -> list[str]:
        """Put mail into the queue, which nobody takes; give the queue ids."""
        identities = []
        for number, campaign in enumerate((*CAMPAIGNS, None) * 2):
            code, text = inject(self.node.smtp_port, f"r{number}@d{number % 3}.example", campaign=campaign)
            assert code == 250, text
            identities.append(text.rpartition(" ")[2])
        self.node.halt("halted")
        assert self.node.call("POST", "/v1/campaigns/held/hold")[0] == 200
        return identities

    def run(self, seconds: float) -> None:
        """Call all operations in turn. Raises an ExceptionGroup of schemathesis where an answer is not as described."""
        deadline = time.monotonic() + seconds
        turn = 0
        while turn == 0 or time.monotonic() < deadline:
            for mode in MODES:
                for operation in self.operations:
                    self.call(operation, mode, examples=BATCH if seconds else 3)
            self.look()
            turn += 1

    def call(self, operation: Any, mode: Any, *, examples: int) -> None:
        """Make some calls of an operation, well-formed ones or not."""
        try:
            cases = operation.as_strategy(generation_mode=mode)
        except schemathesis.errors.InvalidSchema:  # nothing about it could be wrong
            return

        @seed(self.dice.getrandbits(32))
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases, known=st.booleans(), which=st.integers(0, 99))
        def call(case: Any, known: bool, which: int) -> None:
            for variable in case.path_parameters or {}:
                if known and mode is MODES[0]:  # what is made up is hardly ever there
                    values = self.known[variable]
                    case.path_parameters[variable] = quote(values[which % len(values)], safe="")
            if operation.path.endswith("/halt") and mode is MODES[0]:  # no schema can say that the two are the same
                case.body["confirm"] = unquote(case.path_parameters["campaign"])
            if operation.path == "/v1/events":  # a stream that goes on is read by other tests
                case.query = {**(case.query or {}), "follow": "false"}
            response = case.call(base_url="http://mtactl", session=self.session, timeout=SECONDS, allow_redirects=False)
            self.summary.calls[f"{operation.method.upper()} {operation.path}"] += 1
            self.summary.statuses[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        try:
            call()
        except Unsatisfiable:
            if mode is MODES[0]:
                raise

    def look(self) -> None:
        """See whether the daemon is as it should be."""
        assert self.node.process.poll() is None, self.node.tail()
        status = self.node.status()
        assert status["health"] == "ok", status
        check_law(status["totals"])
        log = self.node.log.read_text()
        for event in ("control_request_failed", "control_stream_broken", "control_connection_failed", "Traceback"):
            assert event not in log, self.node.tail()


def fuzz_control(seconds: float, number: int) -> bool:
    """Call the API of a new daemon for some seconds and print what came of it."""
    with (
        tempfile.TemporaryDirectory(prefix="mtactl-fuzz-") as folder,
        socket.socket() as taken,
    ):
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        with daemon(Path(folder), route=taken.getsockname()[1], extra='[log]\nlevel = "warning"') as node:
            fuzzer = Fuzzer(node, number)
            fuzzer.run(seconds)
            fuzzer.session.close()
            node.stop()
            checked = node.fsck()
            assert checked.returncode == 0, checked.stdout
    print(f"control: clean; {fuzzer.summary}", flush=True)
    return True
