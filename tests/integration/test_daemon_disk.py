"""A daemon on a disk that is full, fails, can't be written to, or was damaged: what it says, and what stays true."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.world.application import inject
from tests.world.control import until
from tests.world.daemon import Daemon, check_law, daemon
from tests.world.failing_disk import Calls, FailingDisk, Files
from tests.world.operator import eventually, log_lines, mtactl, mtactld
from tests.world.unruly import run_unruly_peer

ROOT = Path(__file__).parents[2]


def readiness(node: Daemon) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{node.metrics_port}/readyz", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def is_alive(node: Daemon) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{node.metrics_port}/healthz", timeout=10) as answer:
        return answer.status == 200


@contextmanager
def small_file_system(folder: Path, options: str = "size=24m"):
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path) -> None:
    """Take every free block, but for what is smaller than one."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 16, 4096):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass


@pytest.mark.needs("gcc", "gcc")
@pytest.mark.parametrize(("calls", "files"), [(Calls.SYNCS, Files.LOG), (Calls.WRITES, Files.SEGMENTS)])
async def test_failing_disk_stops_all_but_the_answers(tmp_path, calls, files):
    """If it failed, mail would be acknowledged that is nowhere, or the daemon would die and say nothing."""
    async with run_unruly_peer("", "") as peer:
        disk = FailingDisk(tmp_path / "store", tmp_path / "plan")
        node = Daemon(tmp_path, route=peer.port)
        try:
            node.start(env=dict(disk.environment))
            node.halt("stopped")
            assert node.call("POST", "/v1/campaigns/held/hold")[0] == 200
            for number in range(3):
                assert inject(node.smtp_port, f"r{number}@held.example", campaign="held")[0] == 250
            assert inject(node.smtp_port, "r@one.example", campaign="goes-on")[0] == 250
            await until(lambda: len(peer.delivered) == 1)
            assert readiness(node) == (200, "ready\n")

            disk.fail(calls, files=files)
            code, text = await asyncio.to_thread(inject, node.smtp_port, "r@two.example", campaign="goes-on")
            assert (code, text[:5]) == (451, "4.3.0")
            status, why = eventually(lambda: (found := readiness(node))[0] == 503 and found)
            assert status == 503
            assert "takes no more writes" in why
            assert is_alive(node)
            assert "I/O error" in why or "Input/output error" in why
            (line,) = [line for line in log_lines(node) if line["event"].startswith("the store failed")]
            assert line["level"] == "error"
            shown = await asyncio.to_thread(mtactl, node.socket, "status")
            assert shown.returncode == 0
            assert "takes no more writes" in shown.stdout
            assert node.report("held")["counts"]["queued"] == 3
            check_law(node.status()["totals"])

            halt = await asyncio.to_thread(mtactl, node.socket, "halt", "held", "--confirm", "held")
            assert halt.returncode == 1
            assert "could not be made durable" in halt.stderr
            assert "gate is closed" in halt.stderr
            assert node.report("held")["state"] == "halting"
            disk.mend()  # too late: what is on the disk is not known
            assert inject(node.smtp_port, "r@one.example", campaign="goes-on")[0] == 451
            assert node.call("POST", "/v1/campaigns/held/release")[0] == 409
            assert node.call("POST", "/v1/campaigns/goes-on/hold")[0] == 503
            assert await asyncio.to_thread(node.stop) == 0

            assert node.fsck().returncode == 0, node.fsck().stdout
            node.start()
            assert readiness(node)[0] == 200
            assert node.report("stopped")["state"] == "halted"
            assert node.report("held")["state"] in ("held", "halting", "halted"), "not durable, or so it was said"
            assert node.report("held")["counts"]["accepted"] == 3
            assert node.report("goes-on")["counts"]["delivered"] >= 1
            assert await asyncio.to_thread(node.stop) == 0
        finally:
            node.end()
        # What was answered 451 as the log could not be synced was written, and may have come through all the same.
        assert len(peer.delivered) in ((1, 2) if calls is Calls.SYNCS else (1,))


@pytest.mark.root_only
async def test_full_disk_answers_452_and_mends_itself(tmp_path):
    """If it failed, a full disk would lose mail, keep a campaign from being stopped, or wait for a restart."""
    async with run_unruly_peer("dot", "silent") as peer:
        with small_file_system(tmp_path / "disk") as disk:
            node = Daemon(tmp_path, route=peer.port, extra='[delivery]\nretry = ["0.2s"]')
            node.config.write_text(node.config.read_text().replace(f"{tmp_path}/store", f"{disk}/store"))
            try:
                node.start()
                reserve = disk / "store" / "reserve"
                assert reserve.stat().st_size == 1 << 20
                assert node.call("POST", "/v1/campaigns/held/hold")[0] == 200
                for number in range(20):
                    assert inject(node.smtp_port, f"r{number}@held.example", campaign="held")[0] == 250
                assert inject(node.smtp_port, "r@one.example", campaign="flying")[0] == 250
                await until(lambda: peer.there == 1)
                fill(disk / "filler")
                code, text = inject(node.smtp_port, "r@two.example", campaign="flying")
                assert (code, text[:5]) == (452, "4.3.1")
                status, why = readiness(node)
                assert (status, "full" in why) == (503, True), why
                assert node.status()["health"] == "degraded"
                peer.behave()
                peer.answer(b"250 2.0.0 taken\r\n")  # its outcome needs room as well
                await until(lambda: node.report("flying")["counts"]["delivered"] == 1)
                report, _, _ = await asyncio.to_thread(node.halt, "held")
                assert report["stop"]["queued_at_stop"] == 20
                report = await asyncio.to_thread(node.wait_completed, "held")
                assert report["counts"]["dropped"] == 20
                assert inject(node.smtp_port, "r@two.example", campaign="flying")[0] == 452

                (disk / "filler").unlink()
                eventually(lambda: readiness(node)[0] == 200)
                eventually(lambda: reserve.exists() and reserve.stat().st_size == 1 << 20)
                assert inject(node.smtp_port, "r@two.example", campaign="held")[0] == 550
                assert inject(node.smtp_port, "r@two.example", campaign="flying")[0] == 250
                await until(lambda: node.report("flying")["counts"]["delivered"] == 2)
                assert await asyncio.to_thread(node.stop) == 0
                checked = subprocess.run(
                    [sys.executable, "-m", "queue_store.fsck", disk / "store"], capture_output=True, text=True
                )
                assert checked.returncode == 0, checked.stdout
            finally:
                node.end()


def why_not(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 1, run
    assert "Traceback" not in run.stderr
    (line,) = [json.loads(line) for line in run.stderr.splitlines() if "can't start" in line]
    return line["why"]


def start_as_nobody(config: Path) -> subprocess.CompletedProcess[str]:
    """Start the daemon as another user, all that it imports having been read before."""
    code = (
        "import os, sys, uvloop, mtactl.app as app\n"
        "os.setgroups([]), os.setresgid(65534, 65534, 65534), os.setresuid(65534, 65534, 65534)\n"
        "app.main(sys.argv[1:])\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "--config", str(config)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )


@pytest.mark.root_only
@pytest.mark.parametrize("case", ["foreign folder", "foreign file", "no way in", "can't be made", "read-only files"])
def test_folder_that_may_not_be_used_is_explained(case):
    """If it failed, an administrator would read a number of an error, and guess which folder and which user."""
    with tempfile.TemporaryDirectory(prefix="mtactl-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        node = Daemon(folder)
        store = folder / "store"
        store.mkdir()
        (folder / "log").touch()
        named = store
        if case == "foreign folder":
            store.chmod(0o755)
        elif case == "foreign file":
            os.chown(store, 65534, 65534)
            named = store / "queue.db"
            named.touch(0o600)
        elif case == "no way in":
            store.chmod(0o700)
        elif case == "can't be made":
            store.rmdir()
        else:
            os.chown(store, 65534, 65534)
            (store / "lock").touch()
            named = store / "lock"
            named.chmod(0o444)
        why = why_not(start_as_nobody(node.config))
        assert str(named) in why, why
        assert "nobody" in why, why
        assert "root" in why, why


@pytest.mark.root_only
def test_read_only_file_system_is_explained(tmp_path):
    """If it failed, a disk that the kernel has made read-only after an error would look like a defect of the daemon."""
    with small_file_system(tmp_path / "disk") as disk:
        node = Daemon(tmp_path)
        node.config.write_text(node.config.read_text().replace(f"{tmp_path}/store", f"{disk}/store"))
        for _ in range(2):
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            why = why_not(mtactld(node.config))
            assert "read-only" in why, why
            assert str(disk) in why, why
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            node.start()
            assert node.stop() == 0


def test_store_that_is_no_folder_is_explained(tmp_path):
    """If it failed, a path with a typing error in it would end in a traceback."""
    node = Daemon(tmp_path)
    (tmp_path / "store").write_text("not a folder")
    why = why_not(mtactld(node.config))
    assert f"{tmp_path}/store" in why, why
    assert "not a folder" in why, why


async def test_damaged_store_is_mended_named_and_set_aside(tmp_path):
    """If it failed, one bad block would cost all mail, or a halt, or go by unseen."""
    async with run_unruly_peer("", "") as peer:
        with daemon(tmp_path, route=peer.port) as node:
            assert node.call("POST", "/v1/campaigns/held/hold")[0] == 200
            node.halt("stopped")
            for number in range(30):
                assert inject(node.smtp_port, f"r{number}@held.example", campaign="held")[0] == 250
            assert await asyncio.to_thread(node.stop) == 0
            index = tmp_path / "store" / "queue.db"
            octets = bytearray(index.read_bytes())
            at = octets.index(b"stopped")
            octets[at] ^= 1
            index.write_bytes(octets)
            checked = mtactl(node.socket, "fsck", str(tmp_path / "store"))
            assert checked.returncode == 1, checked.stdout
            assert "checksum" in checked.stdout

            node.start()
            repaired = [line["what"] for line in log_lines(node, "store repaired")]
            assert any("made anew" in what for what in repaired), repaired
            assert node.report("stopped")["state"] == "halted"
            assert inject(node.smtp_port, "r@one.example", campaign="stopped")[0] == 550
            problems = node.status()["problems"]
            assert any("quarantine" in problem for problem in problems), problems
            assert readiness(node) == (200, "ready\n"), "of interest to a person, and mail is taken all the same"
            assert node.report("held")["counts"]["queued"] == 30
            assert node.call("POST", "/v1/campaigns/held/release")[0] == 200
            await until(lambda: node.report("held")["counts"]["delivered"] == 30)
            assert await asyncio.to_thread(node.stop) == 0
            assert node.fsck().returncode == 0, node.fsck().stdout


async def test_halts_that_can_not_be_read_stop_the_start(tmp_path):
    """If it failed, a campaign that was stopped could go out after the disk broke."""
    async with run_unruly_peer("", "") as peer:
        with daemon(tmp_path, route=peer.port) as node:
            node.halt("stopped")
            assert await asyncio.to_thread(node.stop) == 0
            index, copy = tmp_path / "store" / "queue.db", tmp_path / "store" / "halts"
            octets = bytearray(index.read_bytes())
            octets[octets.index(b"stopped")] ^= 1
            index.write_bytes(octets)
            copy.unlink()
            why = why_not(await asyncio.to_thread(mtactld, node.config))
            assert "accept-lost-halts" in why, why
            checked = mtactl(node.socket, "fsck", "--config", str(node.config))
            assert checked.returncode == 1
            assert "accept-lost-halts" in checked.stdout
            (tmp_path / "store" / "accept-lost-halts").touch()
            node.start()
            assert node.call("GET", "/v1/campaigns/stopped")[0] in (200, 404)
            assert not (tmp_path / "store" / "accept-lost-halts").exists()
            assert await asyncio.to_thread(node.stop) == 0
