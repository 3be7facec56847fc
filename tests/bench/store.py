"""What the queue store does in a second: `python -m tests.bench.store [--folder F] [--messages N] [--producers N]`.

Prints figures, asserts nothing. A producer appends a message, waits for it to be durable, and goes on; what is appended
is claimed and settled by as many consumers at the same time in the second part. `cpu` is of this process, all threads.
"""

import argparse
import asyncio
import importlib
import shutil
import tempfile
import time
from pathlib import Path

from queue_store.records import HaltRequest, NewMessage, NewRecipient, Outcome, Settlement
from queue_store.store import QueueStore

CAMPAIGNS = 40
LANES = 50


class Commits:
    """Counts the commits and the operations in them."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.operations = 0

    def note(self, seconds: float, operations: int) -> None:
        self.times.append(seconds)
        self.operations += operations

    def take(self) -> str:
        times = sorted(self.times)
        text = ""
        if times:
            median, late = times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3
            text = (
                f"{len(times)} commits of {self.operations / len(times):.0f}, median {median:.2f} ms,"
                f" 99th {late:.1f} ms, longest {times[-1] * 1e3:.0f} ms"
            )
        self.times.clear()
        self.operations = 0
        return text


class Watch:
    """Measures one part."""

    def __init__(self, what: str, commits: Commits) -> None:
        self.what = what
        self.commits = commits
        commits.take()
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def tell(self, number: int) -> None:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        per_second, per_cpu = number / wall, number / cpu
        print(
            f"{self.what:34} {per_second:9,.0f}/s  {per_cpu:9,.0f}/s of CPU ({cpu / number * 1e6:5.0f} µs each);"
            f" {self.commits.take()}",
            flush=True,
        )


def new_message(number: int, body: bytes, *, claimed: bool) -> NewMessage:
    lane = f"example{number % LANES}.com"
    recipient = NewRecipient(address=f"user{number}@{lane}", lane=lane, claimed=claimed)
    return NewMessage(
        campaign=f"campaign-{number % CAMPAIGNS}",
        reverse_path="bounces+1234@news.example.com",
        received_at=time.time_ns() // 1000,
        body=(b"Received: from somewhere\r\n", body),
        recipients=(recipient,),
    )


def delivered(claims) -> list[Settlement]:
    return [
        Settlement(
            recipient_id=recipient.id,
            message_id=claim.message.id,
            campaign=claim.message.campaign,
            outcome=Outcome.DELIVERED,
            at=time.time_ns() // 1000,
            code=250,
            reply="2.0.0 Ok: queued as 4WvXyZ1234",
            peer="mx1.example.com[192.0.2.1]:25",
        )
        for claim in claims
        for recipient in claim.recipients
    ]


async def append_all(store: QueueStore, body: bytes, number: int, producers: int, *, claimed: bool = False) -> None:
    numbers = iter(range(number))

    async def produce() -> None:
        for at in numbers:
            await store.append(new_message(at, body, claimed=claimed))

    async with asyncio.TaskGroup() as group:
        for _ in range(producers):
            group.create_task(produce())


async def claim_all(store: QueueStore, page: int) -> list:
    """Claim all lanes at the same time, page by page."""
    claims: list = []

    async def one(lane: str) -> None:
        cursor, more = 0, True
        while more:
            got = await store.claim(lane, limit=page, cursor=cursor)
            claims.extend(got.claims)
            cursor, more = got.cursor, got.more

    async with asyncio.TaskGroup() as group:
        for lane in range(LANES):
            group.create_task(one(f"example{lane}.com"))
    return claims


async def settle_all(store: QueueStore, claims: list, producers: int) -> None:
    """Settle one by one, as the replies of so many connections come in."""
    left = iter(delivered(claims))

    async def consume() -> None:
        for settlement in left:
            await store.settle([settlement])

    async with asyncio.TaskGroup() as group:
        for _ in range(producers):
            group.create_task(consume())


async def cycle_all(store: QueueStore, body: bytes, number: int, producers: int) -> None:
    """Append as claimed, read the body, settle: the way of a message through an idle lane."""
    numbers = iter(range(number))

    async def produce() -> None:
        for at in numbers:
            appended = await store.append(new_message(at, body, claimed=True))
            for claim in appended.claims:
                if store.read_body_nowait(claim.message) is None:
                    await store.load_body(claim.message)
            await store.settle(delivered(appended.claims))

    async with asyncio.TaskGroup() as group:
        for _ in range(producers):
            group.create_task(produce())


async def run(folder: Path, number: int, producers: int, drops: int) -> None:
    commits = Commits()
    for size in (1_000, 10_000):
        body = b"x" * (size - 5) + b"\r\n.\r\n"
        path = folder / f"store-{size}"
        store = await QueueStore.open(path, reserve=1 << 20, on_commit=commits.note)
        watch = Watch(f"append {size / 1000:.0f} kB", commits)
        await append_all(store, body, number, producers)
        watch.tell(number)
        watch = Watch("claim, pages of 100", commits)
        claims = await claim_all(store, 100)
        watch.tell(number)
        watch = Watch("settle", commits)
        await settle_all(store, claims, producers)
        watch.tell(number)
        watch = Watch("append as claimed, read, settle", commits)
        await cycle_all(store, body, number, producers)
        watch.tell(number)
        await store.close()
        shutil.rmtree(path)
    if drops:
        for rest in (0, 1, 3):
            await run_drop(folder / f"drop-{rest}", drops, producers, commits, rest)


async def run_drop(path: Path, number: int, producers: int, commits: Commits, rest: int) -> None:
    """Queue a campaign of two recipients a message, halt it and drop it, while other mail flows."""
    store = await QueueStore.open(path, reserve=1 << 20, on_commit=commits.note)
    pending = []
    for at in range(number // 100):
        recipients = tuple(
            NewRecipient(address=f"user{at}-{n}@example{n % LANES}.com", lane=f"example{n % LANES}.com")
            for n in range(100)
        )
        pending.append(
            store.append(
                NewMessage(
                    campaign="big",
                    reverse_path="a@example.com",
                    received_at=at,
                    body=(b"hello\r\n.\r\n",),
                    recipients=recipients,
                )
            )
        )
    await asyncio.gather(*pending)
    commits.take()
    stop = False
    flowed = 0

    async def flow() -> None:
        nonlocal flowed
        body = b"x" * 1000 + b"\r\n.\r\n"
        while not stop:
            appended = await store.append(new_message(flowed, body, claimed=True))
            await store.settle(delivered(appended.claims))
            flowed += 1

    async def drop() -> None:
        nonlocal stop, flowed
        await asyncio.sleep(2)
        before, flowed = flowed, 0
        began = time.perf_counter()
        await store.record_halt(HaltRequest(campaign="big", closed_at=0, in_flight=0))
        halted = time.perf_counter()
        more = True
        while more:
            chunk = time.perf_counter()
            more = (await store.drop_campaign("big", limit=1_000)).more
            await asyncio.sleep(rest * (time.perf_counter() - chunk))
        ended = time.perf_counter()
        stop = True
        print(
            f"halt of {number:,} recipients, resting {rest} times as long as it works:"
            f" answered in {(halted - began) * 1e3:.1f} ms, dropped in {ended - halted:.2f} s"
            f" ({number / (ended - halted):,.0f}/s); other mail {before / 2:,.0f}/s before,"
            f" {flowed / (ended - began):,.0f}/s meanwhile; {commits.take()}"
        )

    async with asyncio.TaskGroup() as group:
        for _ in range(producers):
            group.create_task(flow())
        group.create_task(drop())
    await store.close()
    began = time.perf_counter()
    store = await QueueStore.open(path)
    print(f"opened in {time.perf_counter() - began:.3f} s")
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--producers", type=int, default=100)
    parser.add_argument("--drops", type=int, default=200_000)
    options = parser.parse_args()
    try:
        runner = importlib.import_module("uvloop").run
    except ImportError:
        runner = asyncio.run
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        runner(run(Path(folder), options.messages, options.producers, options.drops))


if __name__ == "__main__":
    main()
