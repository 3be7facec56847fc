"""The attempt log: what a killed process knew about its transactions is known to the next one."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from queue_store import attempts as module
from queue_store.attempts import PEER_LIMIT, REPLY_LIMIT, AttemptLog, OpenAttempt
from queue_store.errors import StoreError, StoreFull
from queue_store.records import Outcome, Settlement


def open_log(path: Path) -> AttemptLog:
    log = AttemptLog(path)
    log.clear()
    return log


def settle(recipient_id: int, **facts) -> Settlement:
    facts = {"message_id": 1, "campaign": "c1", "outcome": Outcome.DELIVERED, "at": 10**15} | facts
    return Settlement(recipient_id=recipient_id, **facts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "attempts"


ids = st.integers(1, (1 << 63) - 1)
settlements = st.builds(
    Settlement,
    recipient_id=ids,
    message_id=ids,
    campaign=st.text(max_size=10),
    outcome=st.none() | st.sampled_from(Outcome),
    at=st.integers(0, 1 << 62),
    due=st.integers(0, 1 << 62),
    after_stop=st.booleans(),
    began=st.booleans(),
    uncertain=st.booleans(),
    code=st.none() | st.integers(200, 599),
    reply=st.text(max_size=500),
    peer=st.text(max_size=100),
)


def as_stored(settlement: Settlement, slot: int) -> Settlement:
    def cut(text: str, limit: int) -> str:
        return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")

    return replace(
        settlement,
        campaign="",
        slot=slot,
        reply=cut(settlement.reply, REPLY_LIMIT),
        peer=cut(settlement.peer, PEER_LIMIT),
    )


@given(given_settlements=st.lists(settlements, max_size=20), attempt=st.integers(0, (1 << 32) - 1), data=st.data())
def test_round_trip(tmp_path_factory, given_settlements, attempt, data):
    """If a fact were lost or changed on the way, recovery would settle a recipient as what it was not."""
    path = tmp_path_factory.mktemp("attempts") / "log"
    log = open_log(path)
    expected = {}
    for settlement in given_settlements:
        slot = log.begin(settlement.recipient_id, attempt)
        how = data.draw(st.sampled_from(["open", "ending", "outcome", "ending and outcome", "free"]))
        if "ending" in how:
            log.ending(slot)
        if "outcome" in how:
            log.outcome(slot, settlement)
        if how == "free":
            log.outcome(slot, settlement)
            log.free(slot)
            continue
        expected[slot] = OpenAttempt(
            slot=slot,
            recipient_id=settlement.recipient_id,
            attempt=attempt,
            ending=how != "open",
            settlement=as_stored(settlement, slot) if "outcome" in how else None,
        )
    log.close()
    again = AttemptLog(path)
    assert again.trusted
    assert again.recover() == sorted(expected.values(), key=lambda found: found.slot)
    again.clear()
    assert again.recover() == []
    again.close()


def test_a_reused_slot_forgets_its_past(path: Path):
    """If the last tenant's outcome showed through, a transaction that is open would be taken for delivered."""
    log = open_log(path)
    slot = log.begin(1, 3)
    log.ending(slot)
    log.outcome(slot, settle(1, reply="x" * 400, peer="y" * 100, code=250))
    log.free(slot)
    assert log.begin(2, 0) == slot, "slots that are in memory are used again first"
    assert log.recover() == [OpenAttempt(slot=slot, recipient_id=2, attempt=0, ending=False, settlement=None)]
    log.outcome(slot, settle(2, reply="", peer="", code=None))
    assert log.recover()[0].settlement == settle(2, campaign="", slot=slot)
    log.close()


def test_slots_are_not_given_twice(path: Path):
    """If a slot had two tenants, one of their outcomes would be lost by a kill."""
    log = open_log(path)
    slots = [log.begin(number, 0) for number in range(1, 101)]
    assert len(set(slots)) == 100
    log.free(slots[5])
    log.free(slots[5])
    assert log.begin(200, 0) == slots[5]
    assert log.begin(201, 0) not in slots
    with pytest.raises(ValueError):
        log.outcome(slots[7], settle(9))
    log.close()


def test_a_free_from_another_thread(path: Path):
    """If the committer's free raced with the loop's begin, slots would be lost or given twice."""
    log = open_log(path)
    handed: list[int] = []
    freed = 0
    done = threading.Event()

    def free_all():
        nonlocal freed
        while not (done.is_set() and not handed):
            if handed:
                log.free(handed.pop())
                freed += 1

    thread = threading.Thread(target=free_all)
    thread.start()
    for number in range(30_000):
        handed.append(log.begin(number, 0))
    done.set()
    thread.join()
    assert freed == 30_000
    assert log.recover() == []
    assert sorted(log._free) == list(range(log._slots))
    log.close()


def test_it_grows(path: Path, monkeypatch: pytest.MonkeyPatch):
    """If growing moved or lost what was written, a large node would forget its open transactions."""
    monkeypatch.setattr(module, "_FIRST_SLOTS", 4)
    log = open_log(path)
    slots = [log.begin(number, number) for number in range(1, 40)]
    assert len(set(slots)) == 39
    log.close()
    monkeypatch.undo()
    again = AttemptLog(path)
    assert [(found.slot, found.recipient_id, found.attempt) for found in again.recover()] == [
        (slot, number, number) for slot, number in zip(slots, range(1, 40), strict=True)
    ]
    again.close()


def test_a_full_disk_is_told_and_not_a_signal(path: Path, monkeypatch: pytest.MonkeyPatch):
    """If the blocks were not there before the memory is written, a full disk would kill the daemon (SIGBUS)."""
    monkeypatch.setattr(module, "_FIRST_SLOTS", 4)
    log = open_log(path)
    slots = [log.begin(number, 0) for number in range(1, 5)]
    assert os.stat(path).st_blocks * 512 >= os.stat(path).st_size

    def refuse(fd, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "posix_fallocate", refuse)
        with pytest.raises(StoreFull) as caught:
            log.begin(5, 0)
        assert caught.value.path == str(path)
        log.free(slots[0])
        assert log.begin(5, 0) == slots[0]
        with pytest.raises(StoreFull):
            AttemptLog(path.with_name("other"))
    assert log.begin(6, 0) == 4
    assert [found.recipient_id for found in log.recover()] == [5, 2, 3, 4, 6]
    log.close()


def test_it_is_believed_under_its_own_boot_alone(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """If it were believed after a power cut, transactions that the disk does not know of would count as not begun."""
    fresh = AttemptLog(path)
    assert not fresh.trusted, "a file that was not there says nothing about what was"
    fresh.clear()
    assert fresh.trusted
    fresh.begin(1, 0)
    fresh.close()
    other = tmp_path / "boot_id"
    other.write_text("00000000-1111-2222-3333-444444444444\n")
    monkeypatch.setattr(module, "_BOOT_ID", other)
    after = AttemptLog(path)
    assert not after.trusted
    assert after.recover() == []
    after.clear()
    after.begin(2, 0)
    after.close()
    again = AttemptLog(path)
    assert [found.recipient_id for found in again.recover()] == [2]
    again.close()


@pytest.mark.parametrize("content", [None, "short", ""])
def test_no_boot_id_no_belief(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None):
    """If two boots without an id were taken for one, a power cut would go unnoticed in such a container."""
    boot_id = tmp_path / "boot_id"
    if content is not None:
        boot_id.write_text(content)
    monkeypatch.setattr(module, "_BOOT_ID", boot_id)
    log = open_log(path)
    assert not log.trusted
    log.begin(1, 0)
    log.close()
    again = AttemptLog(path)
    assert not again.trusted
    assert again.recover() == []
    again.close()


@pytest.mark.parametrize("octet", range(52))
def test_a_damaged_header_is_not_believed(path: Path, octet: int):
    """If a header of another format passed, the slots would be read as what they are not."""
    log = open_log(path)
    log.begin(1, 0)
    log.close()
    content = bytearray(path.read_bytes())
    content[octet] ^= 1
    path.write_bytes(content)
    again = AttemptLog(path)
    assert not again.trusted
    again.close()


@pytest.mark.parametrize("length", [0, 1, 60, 4095, 4096, 4097, 4096 + 256 * 3 + 100])
def test_a_file_cut_anywhere_opens(path: Path, length: int):
    """If a file that a crash left half made could not be opened, the daemon would not start."""
    log = open_log(path)
    slots = [log.begin(number, 0) for number in range(1, 6)]
    log.close()
    os.truncate(path, length)
    again = AttemptLog(path)
    assert again.trusted == (length >= 52)
    assert len(again.recover()) <= len(slots)
    again.clear()
    assert again.recover() == []
    again.begin(1, 0)
    again.close()


def test_begin_before_clear_is_refused(path: Path):
    """If slots could be taken before recovery is done, the last run's would be overwritten."""
    log = open_log(path)
    log.begin(1, 0)
    log.close()
    again = AttemptLog(path)
    with pytest.raises(StoreError):
        again.begin(2, 0)
    assert len(again.recover()) == 1
    again.close()


CHILD = """
import sys
from pathlib import Path
from queue_store.attempts import AttemptLog
from queue_store.records import Outcome, Settlement
log = AttemptLog(Path(sys.argv[1]))
log.clear()
print("ready", flush=True)
number = 0
window = []
while True:
    number += 1
    slot = log.begin(number, number % 7)
    window.append((number, slot))
    if number % 3:
        log.ending(slot)
    if number % 3 == 2:
        log.outcome(slot, Settlement(recipient_id=number, message_id=number + 5, campaign="c", outcome=Outcome.BOUNCED,
            at=number * 11, due=number * 13, code=550, reply=str(number) * 9, peer=str(number) * 3))
    if len(window) > 50:
        log.free(window.pop(0)[1])
"""


@pytest.mark.parametrize("after", [0.0, 0.003, 0.01, 0.02, 0.05])
def test_a_killed_process_leaves_whole_facts(path: Path, after: float):
    """If a kill between two instructions could leave half a fact that is believed, the books would be wrong."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    threading.Event().wait(after)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    log = AttemptLog(path)
    assert log.trusted
    found = sorted(log.recover(), key=lambda entry: entry.recipient_id)
    assert len(found) <= 51
    for entry in found:
        number = entry.recipient_id
        assert entry.attempt == number % 7
        if entry is not found[-1]:  # the last one may have been killed in the middle of its life
            assert entry.ending == (number % 3 != 0)
            assert (entry.settlement is not None) == (number % 3 == 2)
        if entry.settlement is not None:
            assert entry.settlement == Settlement(
                recipient_id=number,
                message_id=number + 5,
                campaign="",
                outcome=Outcome.BOUNCED,
                at=number * 11,
                due=number * 13,
                code=550,
                reply=str(number) * 9,
                peer=str(number) * 3,
                slot=entry.slot,
            )
    numbers = [entry.recipient_id for entry in found]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
    log.close()
