"""Runs of disk_child.py on a disk that fails at one call, and what must be true of each."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from queue_store.records import QueueFilter
from queue_store.store import QueueStore
from tests.unit.store_books import check_books, rows
from tests.world.failing_disk import Calls, FailingDisk, Files

ROOT = Path(__file__).parents[2]
STORE_FILES = Files.INDEX | Files.LOG | Files.SEGMENTS


def run_child(folder: Path, disk: FailingDisk) -> dict[str, list[list]]:
    """Run the work on the disk to its end; give what was told, by event."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.world.disk_child", str(folder), str(folder.parent / "plan")],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **disk.environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    told: dict[str, list[list]] = defaultdict(list)
    for line in done.stdout.splitlines():
        event, *facts = json.loads(line)
        told[event].append(facts)
    return told


def judge(folder: Path, told: dict[str, list[list]]) -> None:
    """Open the store on a sound disk: what was acknowledged is there, and the books fit."""

    async def look() -> tuple[set[int], set[str]]:
        store = await QueueStore.open(folder, reserve=0)
        halted = {record.name for record in store.recovery.campaigns if record.halt is not None}
        queued = await store.queue(QueueFilter(), limit=100_000)
        for row in queued:
            if row.message.campaign not in halted:
                await store.load_body(row.message)
        await store.close()
        return {row.recipient.id for row in queued}, halted

    waiting, halted = asyncio.run(look())
    check_books(folder)
    ended = {number for (number,) in rows(folder, "SELECT id FROM outcomes")}
    appended = {number for facts in told["appended"] for number in facts[1:]}
    settled = {number for facts in told["settled"] for number in facts}
    assert appended <= waiting | ended, "acknowledged, and gone"
    assert settled <= ended - waiting, "an outcome that was told is gone"
    assert {name for (name,) in told["halted"]} <= halted, "a halt is forgotten"


def count_calls(tmp_path: Path, calls: Calls, files: Files) -> int:
    """Give how many such calls the whole work makes."""
    (tmp_path / "sound").mkdir(parents=True)
    folder = tmp_path / "sound" / "store"
    disk = FailingDisk(folder, tmp_path / "sound" / "plan")
    disk.fail(calls, files=files, after=1 << 30)
    told = run_child(folder, disk)
    assert told["closed"]
    judge(folder, told)
    return disk.meant


def spread(total: int, number: int) -> list[int]:
    """Give so many points of a run, the first ones closer together: opening is there."""
    early = list(range(0, min(total, 30), 3))
    return sorted({*early[: number // 3], *(total * at // number for at in range(number))})


def full_at(tmp_path: Path, point: int) -> None:
    """Have the disk full from a call on, until room is waited for or the work is done."""
    folder = tmp_path / f"full-{point}"
    folder.mkdir()
    disk = FailingDisk(folder / "store", folder / "plan")
    disk.fail(Calls.WRITES | Calls.SIZES, after=point, number=errno.ENOSPC)
    told = run_child(folder / "store", disk)
    if told["refused"]:  # a new store, and no room for it
        assert "no room" in str(told["refused"]) or "full" in str(told["refused"]), told["refused"]
        return
    assert not told["store failed"], told
    assert not told["failed"] + told["failed late"], told
    assert not told["no reserve"], "the reserve is not put back"
    if told["opened"] == [[True]]:  # there was room for the reserve
        assert {name for (name,) in told["halted"]} == {"gone", "never-seen"}, told["full"]
        assert {what for (what,) in told["full"]} <= {"append"}, told["full"]
    assert [facts[0] for facts in told["appended"]][-2:] == ["after"] * 2
    assert told["closed"], told
    judge(folder / "store", told)


def fails_at(tmp_path: Path, calls: Calls, files: Files, point: int, *, times: int) -> bool:
    """Have a call fail, once or from there on; give whether it came to that in an open store."""
    folder = tmp_path / f"fails-{calls.value}-{files.value}-{point}-{times}"
    folder.mkdir()
    disk = FailingDisk(folder / "store", folder / "plan")
    disk.fail(calls, files=files, after=point, times=times)
    told = run_child(folder / "store", disk)
    if disk.failed and told["store failed"]:
        assert "Input/output error" in told["store failed"][0][0] or "disk I/O error" in told["store failed"][0][0]
        assert not told["waits"]
        assert not disk.after, "the disk was written to after it had failed"
    elif disk.failed:
        assert told["refused"] or told["closed"] or told["not closed in order"], told
    if (folder / "store" / "queue.db").exists():
        judge(folder / "store", told)
    return bool(told["store failed"])
