"""The second copy of the halts: what it says is whole is whole, whatever a crash or a disk did to it."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_store import halt_journal as module
from queue_store.halt_journal import HaltJournal, Promises, read_promises
from queue_store.records import HaltRecord, HaltRequest
from queue_store.store import QueueStore
from tests.unit.store_books import new_message


def halt(campaign: str, **facts) -> HaltRecord:
    return HaltRecord(
        campaign=campaign,
        kind="stop",
        requested_uid=0,
        requested_user="root",
        requested_at=1,
        recorded_at=2,
        queued_at_stop=3,
        in_flight_at_stop=4,
        **{"reason": "wrong prices", **facts},
    )


def filled(path: Path) -> HaltJournal:
    journal = HaltJournal(path)
    journal.begin([])
    journal.note_campaign(1, "c1")
    journal.note_hold(2, "c2", held=True)
    journal.note_hold(3, "c3", held=True)
    journal.note_hold(3, "c3", held=False)
    journal.note_halt(4, halt("c4"))
    journal.note_halt(4, halt("c4", completed_at=9))
    journal.sync()
    return journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    filled(tmp_path / "halts").close()
    return tmp_path / "halts"


def test_what_was_noted_is_read(path: Path):
    """If it were not, the halts of a damaged index would be gone for good."""
    found = read_promises(path)
    assert found.whole
    assert found.halts == {"c4": halt("c4", completed_at=9)}
    assert found.held == {"c2"}
    assert found.names == {1: "c1", 2: "c2", 3: "c3", 4: "c4"}
    assert path.stat().st_mode & 0o777 == 0o600, "reasons and names are for no one else"


@pytest.mark.parametrize("cut", [0, 1, 24, 25, 100, -1, -4096])
def test_a_cut_journal_is_not_whole(path: Path, cut: int):
    """If a cut were taken for the end, the daemon would start without the halts that were cut off."""
    size = path.stat().st_size
    os.truncate(path, cut if cut >= 0 else size + cut)
    assert not read_promises(path).whole


@given(octet=st.integers(0, 1200), bit=st.integers(0, 7))
def test_a_flipped_bit_is_seen(tmp_path_factory, octet: int, bit: int):
    """If it were not, another campaign would be the halted one."""
    path = tmp_path_factory.mktemp("journal") / "halts"
    filled(path).close()
    sound = read_promises(path)
    octets = bytearray(path.read_bytes())
    octets[octet] ^= 1 << bit
    path.write_bytes(octets)
    found = read_promises(path)
    assert not found.whole
    assert found.halts.keys() <= sound.halts.keys()


def test_a_journal_that_is_missing_or_of_another_version_is_not_whole(path: Path):
    """If it were, a file that was deleted would count as one that knows of no halts."""
    path.unlink()
    assert not read_promises(path).whole
    path.write_bytes(b"")
    assert not read_promises(path).whole
    path.write_bytes(bytes(65536))
    assert not read_promises(path).whole


def test_it_goes_on_where_it_is_right_and_is_written_anew_where_not(path: Path):
    """If it grew at each start, or kept what the index has not, it would be of no use when it is needed."""
    before = path.read_bytes()
    same = [
        ["campaign", 1, "c1"],
        ["hold", 2, "c2", True],
        ["campaign", 3, "c3"],
        ["halt", 4, module.msgspec.to_builtins(halt("c4", completed_at=9))],
    ]
    journal = HaltJournal(path)
    journal.begin(same)
    journal.close()
    assert path.read_bytes() == before
    journal = HaltJournal(path)
    journal.begin(same[:2])
    journal.note_halt(9, halt("c9"))
    journal.sync()
    journal.close()
    found = read_promises(path)
    assert found.whole
    assert (set(found.halts), found.held) == ({"c9"}, {"c2"})


def test_without_room_it_waits(path: Path, monkeypatch: pytest.MonkeyPatch):
    """If it raised, a halt on a full disk would fail though it is durable; if it forgot, the copy would lack it."""
    journal = HaltJournal(path)
    journal.begin([])

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "posix_fallocate", refuse)
        names = [f"c{number}" + "x" * 200 for number in range(400)]
        for number, name in enumerate(names):
            journal.note_halt(number, halt(name))
            journal.sync()
        assert journal.unsynced
    journal.sync()
    assert not journal.unsynced
    journal.close()
    assert set(read_promises(path).halts) == set(names)


async def test_a_halt_outlives_its_index(tmp_path: Path):
    """If it did not, someone who puts an older index in the place of a damaged one would let the campaign go on."""
    store = await QueueStore.open(tmp_path, reserve=0)
    await store.append(new_message("c1", recipients=3))
    await store.close()
    older = (tmp_path / "queue.db").read_bytes()
    store = await QueueStore.open(tmp_path, reserve=0)
    await store.record_halt(HaltRequest(campaign="c1", closed_at=1, in_flight=0, reason="wrong prices"))
    await store.drop_campaign("c1")
    await store.close()
    (tmp_path / "queue.db").write_bytes(older)
    store = await QueueStore.open(tmp_path, reserve=0)
    assert any("put back from its copy" in repair for repair in store.recovery.repairs)
    (record,) = [record for record in store.recovery.campaigns if record.name == "c1"]
    assert record.halt is not None
    assert record.halt.reason == "wrong prices"
    assert (await store.drop_campaign("c1")).by_campaign["c1"].total == 3
    await store.close()


def test_a_record_that_is_none_is_refused():
    """If it were passed over, a newer version's halts could be."""
    for record in (["halt"], ["halt", 1, {}], ["other", 1, "c"], ["mtactl halts", 2], [], "halt"):
        with pytest.raises((ValueError, module.msgspec.ValidationError)):
            Promises().take(record)


async def test_halts_are_copied_behind_their_answer(tmp_path: Path):
    """If they were not, the copy would be complete only after an orderly end."""
    store = await QueueStore.open(tmp_path, reserve=0)
    for number in range(5):
        await store.record_halt(HaltRequest(campaign=f"c{number}", closed_at=1, in_flight=0))
    async with asyncio.timeout(10):
        while len(read_promises(tmp_path / "halts").halts) < 5:
            await asyncio.sleep(0.01)
    await store.close()
