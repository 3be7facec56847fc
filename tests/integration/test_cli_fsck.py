"""mtactl fsck: what an administrator reads when the files are damaged, and what a script gets."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.corruption.stores import Truth, make_stores
from tests.world.daemon import Daemon
from tests.world.operator import mtactl


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, tuple[Path, Truth]]:
    """Stores to copy."""
    return make_stores(tmp_path_factory.mktemp("stores"), sizes={"small": 30})


@pytest.fixture
def store(stores, tmp_path) -> Path:
    """A copy of one that was closed in order, to be damaged."""
    return Path(shutil.copytree(stores["small-closed"][0], tmp_path / "store"))


def fsck(*arguments: object) -> subprocess.CompletedProcess[str]:
    return mtactl(Path("/nonexistent/socket"), "fsck", *map(str, arguments))


def flip(path: Path, at: int) -> None:
    octets = bytearray(path.read_bytes())
    octets[at] ^= 1
    path.write_bytes(octets)


def test_sound_store_is_called_sound(stores):
    """If it failed, nobody would heed it."""
    for name in ("small-closed", "small-killed"):
        run = fsck(stores[name][0])
        assert (run.returncode, run.stderr) == (0, ""), run.stdout
        assert "nothing is wrong" in run.stdout


def test_damaged_body_is_explained_with_whose_it_is(store):
    """If it failed, an administrator would know of a bad octet, and not whose mail it is or what comes of it."""
    segment = min((store / "segments").iterdir())
    flip(segment, segment.read_bytes().rindex(b"line of text"))
    run = fsck(store)
    assert run.returncode == 1
    assert segment.name in run.stdout
    assert "to user" in run.stdout
    assert "campaign " in run.stdout
    assert "the daemon: " in run.stdout
    assert "you: " in run.stdout
    asked = fsck("--json", store)
    assert asked.returncode == 1
    document = json.loads(asked.stdout)
    assert (document["sound"], document["errors"]) == (False, 1)
    (finding,) = document["findings"]
    assert set(finding) == {"severity", "kind", "where", "what", "affects", "daemon", "person"}
    assert (finding["severity"], finding["kind"]) == ("error", "body")
    assert finding["affects"]


def test_damaged_index_is_explained_with_what_is_lost(store):
    """If it failed, nobody could choose between a start that loses this and a backup that loses that."""
    index = store / "queue.db"
    before = index.read_bytes()
    flip(index, before.index(b"user1."))
    damaged = index.read_bytes()
    run = fsck(store)
    assert run.returncode == 1
    assert "rows of recipients" in run.stdout
    assert "counted as unknown" in run.stdout
    assert index.read_bytes() == damaged, "nothing is written"
    assert not (store / "quarantine").exists()


def test_store_in_use_is_not_checked(tmp_path):
    """If it failed, mail that comes in meanwhile would look like damage, or a deleted lock file would let two in."""
    node = Daemon(tmp_path)
    try:
        node.start()
        (tmp_path / "store" / "lock").read_text()
        for arguments in ((tmp_path / "store",), ("--config", node.config)):
            run = fsck(*arguments)
            assert run.returncode == 2
            assert f"process {node.process.pid}" in run.stderr
            assert run.stdout == ""
        (tmp_path / "store" / "lock").unlink()  # the folder itself is locked as well
        assert fsck(tmp_path / "store").returncode == 2
        other = Daemon(tmp_path / "other")
        other.config.write_text(other.config.read_text().replace(f"{tmp_path}/other/store", f"{tmp_path}/store"))
        other.launch()
        assert other.process.wait(60) == 1
        assert "is in use by" in other.tail()
        assert node.stop() == 0
    finally:
        node.end()


@pytest.mark.parametrize("arguments", [("/nonexistent/store",), ("--config", "/nonexistent/file")])
def test_nothing_to_check_is_said(arguments):
    """If it failed, a path with a typing error in it would pass for a store in order."""
    run = fsck(*arguments)
    assert run.returncode == 2
    assert "/nonexistent" in run.stderr
    assert "Traceback" not in run.stderr
    asked = fsck("--json", *arguments)
    assert json.loads(asked.stdout)["type"] == "urn:mtactl:problem:not-checked"
