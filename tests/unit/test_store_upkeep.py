"""Disk space comes back: dead segments, mostly dead ones, the index file, the log."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from queue_store import upkeep
from queue_store.checkpointer import Checkpointer
from queue_store.errors import StoreCorrupt
from queue_store.records import Claim, HaltRequest, Message, Outcome, QueueFilter, Recipient
from queue_store.store import QueueStore
from tests.unit.store_books import check_books, new_message, rows, settled

SEGMENT = 1 << 16


def segment_bytes(folder: Path) -> int:
    sizes = []
    for path in (folder / "segments").iterdir():
        with contextlib.suppress(FileNotFoundError):  # unlinked since it was listed
            sizes.append(path.stat().st_size)
    return sum(sizes)


async def reach(condition: Callable[[], bool]) -> None:
    """Wait for what upkeep does when the store is idle."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.05)


def numbered_body(number: int) -> bytes:
    return b"%08d " % number + b"x" * 1000 + b"\r\n.\r\n"


async def append_many(store: QueueStore, campaign: str, number: int, first: int = 0) -> list[Message]:
    """Append messages with a body each that tells its number."""
    appended = await asyncio.gather(
        *(
            store.append(new_message(campaign, body=numbered_body(at), claimed=True, at=at))
            for at in range(first, first + number)
        )
    )
    return [one.claims[0].message for one in appended]


async def settle_all(store: QueueStore, messages: list[Message]) -> None:
    """Deliver messages with one recipient each."""
    await store.settle([one for message in messages for one in settled(claim_of(message), Outcome.DELIVERED)])


def claim_of(message: Message) -> Claim:
    recipient = Recipient(id=message.id + 1, address="user0@example.com", attempts=0, notify=None, orcpt=None)
    return Claim(lane="example.com", message=message, recipients=(recipient,))


async def test_segments_without_living_messages_are_unlinked(tmp_path: Path) -> None:
    """The disk space of a halted campaign's mail would never come back."""
    store = await QueueStore.open(tmp_path, reserve=0, segment_size=SEGMENT)
    await asyncio.gather(*(store.append(new_message("big", body=numbered_body(n))) for n in range(1000)))
    kept = (await append_many(store, "other", 1))[0]
    assert segment_bytes(tmp_path) > 1_000_000
    await store.record_halt(HaltRequest(campaign="big", closed_at=1, in_flight=0))
    while (await store.drop_campaign("big")).more:
        pass
    await reach(lambda: segment_bytes(tmp_path) < 3 * SEGMENT)
    assert await store.load_body(kept) == numbered_body(0)
    check_books(tmp_path)
    await store.close()


async def test_a_drop_of_what_lay_between_other_mail_gives_its_space_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A halted campaign that came in together with others would keep its space until the last of those is delivered."""
    monkeypatch.setattr(upkeep, "_COPY_LEAST", 1)
    store = await QueueStore.open(tmp_path, reserve=0, segment_size=SEGMENT)
    kept: list[Message] = []
    for at in range(0, 800, 4):
        await append_many(store, "big", 2, at)
        kept += await append_many(store, "other", 2, at + 2)
    before = segment_bytes(tmp_path)
    await store.record_halt(HaltRequest(campaign="big", closed_at=1, in_flight=0))
    queued = await store.queue(QueueFilter(campaign="big"), limit=1000)
    await store.unclaim([("big", row.recipient.id) for row in queued])
    while (await store.drop_campaign("big")).more:
        pass
    await reach(lambda: segment_bytes(tmp_path) < before * 0.65)
    check_books(tmp_path)
    for number, message in enumerate(kept):
        assert await store.load_body(message) == numbered_body(number // 2 * 4 + number % 2 + 2)
    await store.close()


async def test_a_mostly_dead_segment_is_copied_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One deferred message would keep 64 MiB of dead ones on the disk for days; or a window's claim would not find its
    body any more once it was copied.
    """
    monkeypatch.setattr(upkeep, "_COPY_LEAST", 1)
    monkeypatch.setattr(upkeep, "_COPY_MESSAGES", 3)
    monkeypatch.setattr(upkeep, "_COPY_LOOK", 20)
    store = await QueueStore.open(tmp_path, reserve=0, segment_size=SEGMENT)
    messages = await append_many(store, "a", 600)
    kept = messages[::20]
    await settle_all(store, [message for number, message in enumerate(messages) if number % 20])
    await reach(lambda: segment_bytes(tmp_path) < 4 * SEGMENT)
    check_books(tmp_path)
    moved = {row.message.id: row.message for row in await store.queue(QueueFilter(), limit=1000)}
    assert len(moved) == len(kept)
    assert sum(moved[message.id].segment != message.segment for message in kept) > len(kept) // 2
    for number, message in enumerate(kept):
        body = numbered_body(20 * number)
        for place in (message, moved[message.id]):  # as claimed before the copy, and after it
            assert store.read_body_nowait(place) in (None, body)
            assert await store.load_body(place) == body
    await store.close()
    store = await QueueStore.open(tmp_path, reserve=0, segment_size=SEGMENT)
    page = await store.claim("example.com", limit=100)
    bodies = {await store.load_body(claim.message) for claim in page.claims}
    assert bodies == {numbered_body(20 * number) for number in range(30)}
    await store.close()
    check_books(tmp_path)


async def test_a_damaged_message_does_not_stop_the_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bad sector would stop all reclaiming, or end the store."""
    monkeypatch.setattr(upkeep, "_COPY_LEAST", 1)
    store = await QueueStore.open(tmp_path, reserve=0, segment_size=SEGMENT)
    messages = await append_many(store, "a", 130)
    others = await append_many(store, "a", 130)  # whose segment is behind those
    first, second = messages[3], messages[10]
    assert first.segment == second.segment < others[-1].segment
    path = min((tmp_path / "segments").iterdir())
    with path.open("r+b") as file:
        file.seek(first.offset + 100)
        file.write(b"damage")
    await settle_all(store, [message for message in messages if message not in (first, second)])
    await settle_all(store, others)
    await reach(lambda: rows(tmp_path, "SELECT segment FROM messages WHERE id = ?", second.id) != [(second.segment,)])
    assert await store.load_body(second) == numbered_body(10)
    with pytest.raises(StoreCorrupt):
        await store.load_body(first)
    await store.append(new_message())
    await store.close()
    check_books(tmp_path)


async def test_a_drop_of_many_gives_the_space_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A halt of a large campaign would take minutes, hold up other mail, or leave the index file as large as it was."""
    monkeypatch.setattr(upkeep, "_FREE_PAGES", 16)
    store = await QueueStore.open(tmp_path, reserve=0)
    names = [f"c{number}" for number in range(1, 3)]
    for _ in range(10):
        await asyncio.gather(
            *(
                store.append(new_message(name, lanes=[f"d{lane}.org" for lane in range(50)], recipients=10))
                for name in names
                for _ in range(10)
            )
        )
    await store.record_halt(HaltRequest(campaign="c1", closed_at=1, in_flight=0))
    dropped, more = 0, True
    while more:
        flowing = store.append(new_message("", claimed=True))
        page = await store.drop_campaign("c1")
        dropped += page.by_campaign["c1"].total
        more = page.more
        appended = await flowing
        await store.settle(settled(appended.claims[0], Outcome.DELIVERED))
    assert dropped == 50_000
    check_books(tmp_path)
    while await store.prune(10**17):
        pass
    size = (tmp_path / "queue.db").stat().st_size
    await reach(
        lambda: (
            rows(tmp_path, "SELECT freelist_count * 8 < page_count FROM pragma_freelist_count, pragma_page_count")
            == [(1,)]
        )
    )
    await store.close()
    assert (tmp_path / "queue.db").stat().st_size < size
    assert not (tmp_path / "queue.db-wal").exists() or (tmp_path / "queue.db-wal").stat().st_size == 0
    check_books(tmp_path)


async def test_the_log_is_checkpointed_while_idle(tmp_path: Path) -> None:
    """The write-ahead log would grow with all that ever happened, and opening would read it all."""
    store = await QueueStore.open(tmp_path, reserve=0)
    await asyncio.gather(*(store.append(new_message(f"c{n}", recipients=20)) for n in range(500)))
    before = (tmp_path / "queue.db").stat().st_size
    await reach(lambda: (tmp_path / "queue.db").stat().st_size > before)
    await store.close()


async def test_the_log_of_a_store_that_is_never_idle_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load the write-ahead log would grow until the disk is full, or a halt would wait for its checkpoint."""
    monkeypatch.setattr(upkeep, "_LOG_BUSY", 100)
    begun: list[Checkpointer] = []
    begin = Checkpointer.begin

    def note(of: Checkpointer) -> None:
        begun.append(of)
        begin(of)

    monkeypatch.setattr(Checkpointer, "begin", note)
    store = await QueueStore.open(tmp_path, reserve=0)
    log = tmp_path / "queue.db-wal"
    longest = written = 0
    appending = {store.append(new_message("c1", recipients=20)) for _ in range(50)}
    async with asyncio.timeout(60):
        while len(begun) < 20:
            done, appending = await asyncio.wait(appending, return_when=asyncio.FIRST_COMPLETED)
            written += len(done)
            appending |= {store.append(new_message("c1", recipients=20)) for _ in done}
            longest = max(longest, log.stat().st_size)
    written += len(await asyncio.gather(*appending))
    await store.close()
    assert longest < 20 * 100 * 4096
    check_books(tmp_path)
    store = await QueueStore.open(tmp_path, reserve=0)
    accepted = {campaign.name: campaign.tally.accepted for campaign in store.recovery.campaigns}
    assert accepted["c1"] == 20 * written
    await store.close()
