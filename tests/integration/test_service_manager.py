"""The daemon under a service manager: what it tells, when it is called dead, and whose sockets it listens on."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter

import pytest

from tests.world.application import inject, message
from tests.world.daemon import Daemon, daemon, free_port
from tests.world.operator import eventually, log_lines
from tests.world.service_manager import launch_with, notify_socket
from tests.world.unruly import run_unruly_peer

pytestmark = pytest.mark.timeout(300)


def fed(message: dict[str, str]) -> bool:
    return message.get("WATCHDOG") == "1"


def status_with(*parts: str):
    return lambda message: all(part in message.get("STATUS", "") for part in parts)


async def test_what_it_tells_from_start_to_end(tmp_path):
    """If it failed, systemd would wait for a start that is done, and `systemctl status` would say nothing."""
    async with run_unruly_peer("", "") as peer:
        with notify_socket(tmp_path / "notify") as manager, daemon(tmp_path, route=peer.port) as node:
            assert await asyncio.to_thread(node.stop) == 0
            await asyncio.to_thread(node.start, env={"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "2000000"})
            ready = await asyncio.to_thread(manager.expect, lambda told: told.get("READY") == "1")
            assert ready["STATUS"] == "0 queued, 0 in flight, 0 delivered"
            first = next(told for _, told in manager.messages)
            assert first == {"STATUS": "opening the store"}

            await asyncio.to_thread(manager.expect, fed)
            assert inject(node.smtp_port, "r@one.example", campaign="c")[0] == 250
            await asyncio.to_thread(manager.expect, status_with("0 queued, 0 in flight, 1 delivered"))
            assert node.call("POST", "/v1/campaigns/waits/hold")[0] == 200
            assert inject(node.smtp_port, "r@one.example", campaign="waits")[0] == 250
            await asyncio.to_thread(manager.expect, status_with("1 queued", "1 campaign held"))

            for change in ('\n[lane."two.example"]\nrate = "5/s"\n', "\ncolour = true\n"):  # one good, one bad
                node.config.write_text(node.config.read_text() + change)
                before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                node.process.send_signal(signal.SIGHUP)
                told = await asyncio.to_thread(manager.expect, lambda told: told.get("RELOADING") == "1")
                assert before <= int(told["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                await asyncio.to_thread(manager.expect, lambda told: told.get("READY") == "1")

            node.process.send_signal(signal.SIGTERM)
            last = await asyncio.to_thread(manager.expect, lambda told: told.get("STOPPING") == "1")
            assert last["STATUS"].startswith("stopping: 1 queued")
            assert await asyncio.to_thread(node.process.wait, 60) == 0


def test_a_stopped_loop_starves_the_watchdog(tmp_path):
    """If it failed, a daemon that hangs would never be replaced."""
    with notify_socket(tmp_path / "notify") as manager, daemon(tmp_path) as node:
        assert node.stop() == 0
        node.start(env={"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "1000000"})
        for _ in range(3):
            manager.expect(fed)
        node.process.send_signal(signal.SIGSTOP)
        manager.drain()
        assert manager.receive(3.0) is None
        node.process.send_signal(signal.SIGCONT)
        manager.expect(fed)
        assert node.stop() == 0


@pytest.fixture
def disk(tmp_path):
    """Give the folder of a file system of its own, which can be frozen: then every write to it hangs."""
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(96 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    yield folder
    subprocess.run(["fsfreeze", "--unfreeze", folder], capture_output=True)
    eventually(lambda: subprocess.run(["umount", folder], capture_output=True).returncode == 0)


@pytest.mark.root_only
@pytest.mark.needs("fsfreeze", "util-linux")
@pytest.mark.needs("mkfs.ext4", "e2fsprogs")
def test_a_hanging_disk_starves_the_watchdog(tmp_path, disk):
    """If it failed, a daemon that answers /healthz and can't commit anything would be called alive for ever."""
    with notify_socket(tmp_path / "notify") as manager, daemon(tmp_path) as node:
        assert node.stop() == 0
        text = node.config.read_text()
        node.config.write_text(text.replace(f'path = "{tmp_path}/store"', f'path = "{disk}/store"'))
        node.start(env={"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "4000000"})
        assert node.call("POST", "/v1/campaigns/held/hold")[0] == 200
        manager.expect(fed)
        subprocess.run(["fsfreeze", "--freeze", disk], check=True)
        answers = []
        client = threading.Thread(
            target=lambda: answers.append(inject(node.smtp_port, "r@one.example", campaign="held"))
        )
        try:
            client.start()
            hung = manager.expect(status_with("the store has not answered for", "0 queued"))
            assert "WATCHDOG" not in hung
            seen = len(manager.messages)
            # The loop turns on: it answers, and tells how it is, but gives no sign of life.
            for _ in range(2):
                manager.expect(status_with("the store has not answered for"))
            assert not any(fed(message) for _, message in manager.messages[seen:])
            with urllib.request.urlopen(f"http://127.0.0.1:{node.metrics_port}/healthz", timeout=30) as answer:
                assert answer.status == 200
            assert not answers
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", disk], check=True)
            client.join()
        assert answers[0][0] == 250
        manager.expect(fed)
        manager.expect(status_with("1 queued"))
        assert node.stop() == 0


@pytest.mark.needs("systemd-socket-activate", "systemd")
def test_started_by_a_client(tmp_path):
    """If it failed, mtactld.socket would hold clients for a daemon that listens elsewhere."""
    node = Daemon(tmp_path)
    with node.log.open("ab") as log:
        node.process = subprocess.Popen(
            [
                *("systemd-socket-activate", "--listen", f"127.0.0.1:{node.smtp_port}", "--listen", str(node.socket)),
                *("--fdname=smtp:control", sys.executable, "-m", "mtactl.app", "--config", str(node.config)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )
    try:
        eventually(node.socket.exists)
        assert not node.is_ready()
        assert inject(node.smtp_port, "r@one.example", campaign="c")[0] == 250
        assert node.report("c")["counts"]["accepted"] == 1
        inode = node.socket.stat().st_ino
        assert node.stop() == 0
        assert node.socket.stat().st_ino == inode, "it is the service manager's to remove"
    finally:
        node.end()


def test_a_socket_that_nobody_takes_is_an_error(tmp_path):
    """If it failed, clients of an address that was changed in one place only would hang in it."""
    node = Daemon(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        launch_with(node, [("smtp", other)])
        try:
            assert node.process.wait(60) == 78
        finally:
            node.end()
        (line,) = log_lines(node, "can't start")
        assert f"no [[listener]] listens on 127.0.0.1:{other.getsockname()[1]}" in line["why"]
        assert not (tmp_path / "store").exists()


class Clients:
    """Applications that inject one mail after another, and count what became of each try."""

    def __init__(self, port: int, number: int) -> None:
        self.tries: Counter[str] = Counter()
        self._port = port
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._enough.is_set():
            self.tries[self._try()] += 1

    def _try(self) -> str:
        ended = False
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=60) as connection:
                file = connection.makefile("rwb")

                def ask(octets: bytes, wanted: bytes) -> bool:
                    file.write(octets)
                    file.flush()
                    return file.readline().startswith(wanted)

                steps = ((b"", b"220"), (b"HELO x\r\n", b"250"), (b"MAIL FROM:<a@news.example>\r\n", b"250"))
                steps += ((b"RCPT TO:<r@one.example>\r\n", b"250"), (b"DATA\r\n", b"354"))
                for step in steps:
                    if not ask(*step):
                        return "asked again"  # 421: going down
                ended = True
                return "taken" if ask(message("steady") + b".\r\n", b"250 ") else "lost"
        except ConnectionRefusedError:
            return "refused"
        except OSError:
            return "lost" if ended else "asked again"


def test_a_restart_refuses_nobody(tmp_path):
    """If it failed, an upgrade in the middle of the day would turn applications away, or lose what they sent."""
    node = Daemon(tmp_path, route=free_port(), extra='[delivery]\nretry = ["1h"]')
    with (
        socket.create_server(("127.0.0.1", node.smtp_port), backlog=1024) as smtp,
        socket.socket(socket.AF_UNIX) as control,
    ):
        control.bind(str(node.socket))
        control.listen(128)
        sockets = [("smtp", smtp), ("control", control)]
        launch_with(node, sockets)
        clients = None
        try:
            node.wait_ready()
            clients = Clients(node.smtp_port, 4)
            for _ in range(3):
                before = clients.tries["taken"]
                eventually(lambda before=before: clients.tries["taken"] >= before + 20, seconds=60)
                assert node.stop() == 0
                launch_with(node, sockets)
                # Asked while nobody is there to answer: the next daemon does.
                assert node.call("GET", "/v1/status", timeout=60)[0] == 200
            clients.end()
            assert clients.tries["refused"] == clients.tries["lost"] == 0, clients.tries
            counts = node.report("steady")["counts"]
            assert counts["accepted"] == counts["queued"] + counts["in_flight"] == clients.tries["taken"]
            assert node.stop() == 0
            assert node.fsck().returncode == 0, node.fsck().stdout
        finally:
            if clients is not None:
                clients.end()
            node.end()
