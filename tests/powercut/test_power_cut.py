"""A store whose machine loses power: what the disk may hold then is built from a record of all that was written."""

import random
import shutil
from pathlib import Path

import pytest

from queue_store import attempts
from tests.powercut.cuts import Cutter, record_lives, room_in_memory
from tests.powercut.disk import Change, Disk, File, Folder
from tests.powercut.recording import compile_recorder, read_events

CUTS = 75  # four states each
LIED = 12


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = room_in_memory(tmp_path_factory.getbasetemp())
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def small_logs(monkeypatch):
    monkeypatch.setattr(attempts, "_FIRST_SLOTS", 4)  # 2 MiB in each state would cost more than all else


@pytest.fixture(scope="module")
def record(room):
    return record_lives(room / "disk", compile_recorder(room), 1, 40)


@pytest.mark.needs("gcc", "build-essential")
def test_the_record_is_true(record, room):
    """If a write were missing in it, the states that are tried would not be those that a cut leaves."""
    recorder, inode = record
    disk = Disk(recorder.folder, inode)
    kinds = set()
    for event in read_events(recorder.log):
        disk.take(event)
        kinds.add(event.kind)
    assert kinds >= set("CMUWTAPSswK"), kinds
    copy = room / "copy"
    copy.mkdir()
    disk.write_all(copy)
    assert _contents(copy) == _contents(recorder.folder)


@pytest.mark.needs("gcc", "build-essential")
@pytest.mark.timeout(400)
def test_what_was_promised_is_there_after_a_cut(record, room):
    """If it failed, a mail that was answered with 250, or a halt, would be gone with the power."""
    recorder, inode = record
    summary = Cutter(recorder, inode, 1, room=room).run(CUTS, deeper=CUTS // 2)
    print(summary)
    assert summary.failures == [], summary.failures[0]
    assert len(summary.distinct) > CUTS
    assert summary.facts["recipients answered 250, and there"] > 100 * CUTS


@pytest.mark.needs("gcc", "build-essential")
def test_a_disk_that_lies_is_found_out(record, room):
    """If nothing were amiss on a disk that ignores each sync, this test bench would see nothing at all."""
    recorder, inode = record
    summary = Cutter(recorder, inode, 2, room=room, honest=False).run(LIED, kills=False)
    assert len(summary.failures) > LIED, summary


def _contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def _outcomes(file: File) -> set[bytes]:
    return {file.after_cut(random.Random(seed), seed % 3 / 2) for seed in range(300)} | {file.after_cut(None, 0.0)}


def test_a_write_that_is_not_synced_may_be_lost_torn_or_a_hole():
    """If the model left one of these out, the store would not be tried with it."""
    file = File()
    file.change(Change(0, b"a" * 1024, 1))
    a, b, nothing = b"a" * 512, b"b" * 512, bytes(512)
    assert _outcomes(file) == {b"", a + a, nothing + nothing, a + nothing, nothing + a}
    file.syncs[7] = 2
    file.end_sync(7)
    file.change(Change(512, b"b" * 1024, 3))
    assert _outcomes(file) >= {a + a, a + b + b, a + a + b, a + b, a + b + nothing}
    assert all(content.startswith(a) for content in _outcomes(file)), "what was synced stays"


def test_a_write_that_is_durable_by_itself_stays():
    """If the model lost it, it would find faults that are none; if it kept others with it, miss some."""
    file = File()
    file.change(Change(4096, b"x" * 100, 1))
    file.change(Change(0, b"y" * 100, 2, sync=5))
    file.end_write(5)
    assert {content[:100] for content in _outcomes(file)} == {b"y" * 100}
    assert {len(content) for content in _outcomes(file)} == {100, 4196}


def test_a_cut_is_there_or_not_and_what_is_behind_it_only_with_it():
    """If the model mixed them, it would show old octets behind a new end, which no disk does."""
    file = File(certain=bytearray(b"o" * 1024), content=bytearray(b"o" * 1024))
    file.change(Change(512, None, 1))
    file.change(Change(512, b"n" * 512, 2))
    old, new, nothing = b"o" * 512, b"n" * 512, bytes(512)
    assert _outcomes(file) == {old + old, old, old + new, old + nothing}


def test_a_name_is_what_it_was_at_some_time():
    """If a file that was made or removed came and went otherwise, neither would be tried."""
    folder, first, second = Folder(), File(), File()
    folder.change(1, "a", first)
    folder.syncs[9] = 2
    folder.end_sync(9)
    folder.change(3, "a", None)
    folder.change(4, "a", second)
    left = [folder.after_cut(random.Random(seed), 0.3).get("a") for seed in range(100)]
    assert {id(each) for each in left} == {id(first), id(None), id(second)}
    assert folder.after_cut(None, 0.0) == {"a": first}
