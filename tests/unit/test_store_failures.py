"""Full disks and failing ones: what is refused, what waits, what the reserve is for."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from queue_store import upkeep
from queue_store.errors import StoreClosed, StoreFailed, StoreFull
from queue_store.records import HaltRequest, Outcome, QueueFilter
from queue_store.room import Room
from queue_store.segments import Segments
from queue_store.store import QueueStore
from tests.unit.store_books import check_books, new_message, rows, settled

RESERVE = 4 << 20


@pytest.fixture
def small_disk(tmp_path: Path):
    """Give a folder on a file system of 48 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill_up(folder: Path) -> Path:
    """Take every free block."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * (1 << 16))
        except OSError:
            pass
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    return path


def halt(campaign: str) -> HaltRequest:
    return HaltRequest(campaign=campaign, closed_at=1, in_flight=0)


@pytest.mark.root_only
async def test_a_store_on_a_full_disk_closes_in_order(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is stopped while the disk is full would end with an error, and look as if it had been killed."""
    folder = small_disk / "store"
    store = await QueueStore.open(folder, reserve=RESERVE)
    await asyncio.gather(*(store.append(new_message("c1", recipients=10)) for _ in range(300)))
    async with asyncio.timeout(30):
        while (folder / "queue.db").stat().st_size < 100_000:  # until the log was copied, and is begun anew
            await asyncio.sleep(0.05)
    monkeypatch.setattr(upkeep, "_LOG_IDLE", 1 << 30)
    await asyncio.gather(*(store.append(new_message("c1", recipients=10)) for _ in range(200)))
    filler = fill_up(small_disk)
    await store.close()  # the log has room for what this writes, the file has none for the log
    filler.unlink()
    check_books(folder)
    store = await QueueStore.open(folder, reserve=RESERVE)
    assert store.recovery.clean
    accepted = {campaign.name: campaign.tally.accepted for campaign in store.recovery.campaigns}
    assert accepted["c1"] == 5000
    await store.close()


@pytest.mark.root_only
async def test_a_halt_works_on_a_full_disk(small_disk: Path) -> None:
    """The disk is full because of a campaign that must be stopped, and it could not be stopped."""
    folder = small_disk / "store"
    store = await QueueStore.open(folder, reserve=RESERVE)
    assert (folder / "reserve").stat().st_size == RESERVE
    appended = await asyncio.gather(*(store.append(new_message("big", recipients=10)) for _ in range(300)))
    claimed = (await store.append(new_message("other", claimed=True))).claims
    filler = fill_up(small_disk)
    with pytest.raises(StoreFull):
        await store.append(new_message("big"))
    assert store.free_bytes() == 0
    settling = store.settle(settled(claimed[0], Outcome.DELIVERED))  # done now, or when there is room
    record = await asyncio.wait_for(store.record_halt(halt("big")), 20)
    assert record.queued_at_stop == 10 * len(appended)
    dropped = 0
    more = True
    while more:
        page = await asyncio.wait_for(store.drop_campaign("big"), 20)
        dropped += page.by_campaign["big"].total
        more = page.more
    assert dropped == 10 * len(appended)
    assert await asyncio.wait_for(settling, 20) == [Outcome.DELIVERED]
    await store.close()
    filler.unlink()
    check_books(folder)
    store = await QueueStore.open(folder, reserve=RESERVE)
    assert (folder / "reserve").stat().st_size == RESERVE
    assert not (await store.queue(QueueFilter(), limit=1))
    await store.append(new_message("next"))
    await store.close()


@pytest.mark.root_only
async def test_a_restart_and_a_halt_work_on_a_full_disk(small_disk: Path) -> None:
    """After a crash on a full disk the daemon would not start, and nothing could be halted or sent."""
    folder = small_disk / "store"
    store = await QueueStore.open(folder, reserve=RESERVE)
    await asyncio.gather(*(store.append(new_message("big", recipients=10)) for _ in range(100)))
    await store.close()
    filler = fill_up(small_disk)
    for campaign in ("big", "next"):
        store = await QueueStore.open(folder, reserve=RESERVE)
        assert (await store.record_halt(halt(campaign))).queued_at_stop == (1000 if campaign == "big" else 0)
        with pytest.raises(StoreFull):
            await store.append(new_message("other"))
        await store.close()
    filler.unlink()
    store = await QueueStore.open(folder, reserve=RESERVE)
    assert (folder / "reserve").stat().st_size == RESERVE
    await store.append(new_message("other"))
    await store.close()
    check_books(folder)


class FullIndex:
    """Lets the index grow no more, or again, as if its disk were full; from the committer's own thread."""

    def __init__(self, store: QueueStore) -> None:
        self._db = store._opened.index.db
        self._begin = store._opened.index.begin
        store._opened.index.begin = self.begin
        self.full = True

    def begin(self, **options: bool) -> None:
        pages = self._db.pragma("page_count") if self.full else 1 << 30
        self._db.execute(f"PRAGMA max_page_count = {pages}")
        self._begin(**options)


async def test_on_a_full_disk_settlements_wait_and_appends_fail(tmp_path: Path) -> None:
    """An outcome would be lost because the disk was full for a while, or injectors would wait for hours."""
    store = await QueueStore.open(tmp_path, reserve=1 << 20)
    appended = await store.append(new_message(recipients=1000, claimed=True))
    settlements = [one for claim in appended.claims for one in settled(claim, Outcome.DELIVERED, reply="x" * 500)]
    disk = FullIndex(store)
    settling = store.settle(settlements)
    refused = await asyncio.gather(
        *(store.append(new_message(recipients=500)) for _ in range(3)), return_exceptions=True
    )
    assert [type(error) for error in refused] == [StoreFull] * 3
    assert not settling.done()
    assert (tmp_path / "reserve").exists()
    # The essential spends the reserve. Where even that makes no room it must say so, and not wait.
    halts = [store.record_halt(halt(f"{n} " + "x" * 4000)) for n in range(20)]
    told = await asyncio.gather(*halts, return_exceptions=True)
    assert StoreFull in {type(error) for error in told}
    assert not (tmp_path / "reserve").exists()
    assert not settling.done()
    check_books(tmp_path)
    disk.full = False
    assert await asyncio.wait_for(settling, 20) == [Outcome.DELIVERED] * 1000
    check_books(tmp_path)
    await store.close()


async def test_closing_on_a_full_disk_tells_who_waited(tmp_path: Path) -> None:
    """A stop of the daemon would hang on a full disk, or the next start would think that it was in order."""
    store = await QueueStore.open(tmp_path, reserve=0)
    appended = await store.append(new_message(recipients=1000, claimed=True))
    settlements = [one for claim in appended.claims for one in settled(claim, Outcome.DELIVERED, reply="x" * 500)]
    FullIndex(store)
    settling = store.settle(settlements)
    closing = asyncio.gather(store.close(), settling, return_exceptions=True)
    assert [type(error) for error in await asyncio.wait_for(closing, 20)] == [StoreFull, StoreClosed]
    store = await QueueStore.open(tmp_path, reserve=0)
    assert (store.recovery.clean, store.recovery.returned) == (False, 1000)
    await store.close()
    check_books(tmp_path)


async def test_free_bytes_leave_the_reserve_alone(tmp_path: Path) -> None:
    """Mail would be taken into the room that a halt needs."""
    room = Room(tmp_path, 8 << 20)
    assert room.spent
    before = room.free()
    assert room.restore()
    assert not room.spent
    assert abs(room.free() - before) < 64 << 20  # others write to this disk too
    assert room.spend()
    assert not room.spend()
    assert not room.restore(beside=1 << 62)
    assert Room(tmp_path, 1 << 62).free() == 0


async def test_after_a_failed_sync_nothing_more_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed fsync the next one may succeed without the data: mail would be acknowledged that is not there."""
    failures: list[BaseException] = []
    store = await QueueStore.open(tmp_path, reserve=0, on_failed=failures.append)
    kept = await store.append(new_message(claimed=True))

    def fail(_: Segments) -> None:
        raise StoreFailed("fdatasync: EIO")

    with monkeypatch.context() as patch:
        patch.setattr(Segments, "sync", fail)
        with pytest.raises(StoreFailed):
            await store.append(new_message())
    for attempt in (
        store.append(new_message()),
        store.settle(settled(kept.claims[0], Outcome.DELIVERED)),
        store.record_halt(halt("c1")),
    ):
        with pytest.raises(StoreFailed):
            await attempt
    assert len(failures) == 1
    assert isinstance(failures[0], StoreFailed)
    await store.close()
    store = await QueueStore.open(tmp_path, reserve=0)
    assert not store.recovery.clean
    assert [row.message.id for row in await store.queue(QueueFilter(), limit=9)] == [kept.message_id]
    await store.close()
    check_books(tmp_path)


async def test_a_failure_within_a_failure_answers_everyone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The committer's thread would die, and whoever waits for it would wait for ever."""
    failures: list[BaseException] = []
    store = await QueueStore.open(tmp_path, reserve=0, on_failed=failures.append)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    FullIndex(store)
    monkeypatch.setattr(Room, "spend", fail)
    appended = [store.append(new_message(recipients=3000)) for _ in range(2)]
    halts = [store.record_halt(halt(f"{n} " + "x" * 4000)) for n in range(20)]
    results = await asyncio.wait_for(asyncio.gather(*appended, *halts, return_exceptions=True), 20)
    assert {type(result) for result in results[:2]} <= {StoreFull, StoreFailed}
    assert isinstance(results[-1], StoreFailed)
    assert len(failures) == 1
    await store.close()
    check_books(tmp_path)


async def test_commits_are_told(tmp_path: Path) -> None:
    """The metrics of commits would stay at zero."""
    commits: list[tuple[float, int]] = []
    store = await QueueStore.open(tmp_path, reserve=0, on_commit=lambda *told: commits.append(told))
    await asyncio.gather(*(store.append(new_message()) for _ in range(100)))
    await store.close()
    assert sum(operations for _, operations in commits) == 100
    assert all(seconds > 0 for seconds, _ in commits)
    assert rows(tmp_path, "SELECT accepted FROM campaigns WHERE name = 'c1'") == [(100,)]
