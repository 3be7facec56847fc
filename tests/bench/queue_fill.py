"""Queues that are there from the start: a store folder with any number of recipients, filled through the store itself.

It is filled in a process of its own, so that the memory of neither the benchmark nor the daemon tells of it. Whoever
measures works on a copy (the files are appended to in place, so links would not do), and what was filled once is there
for the next case until the process ends. A larger queue is grown out of a smaller one: what the n-th recipient is
depends on n alone, so that each beginning of the queue has all campaigns and domains in their shares.

Each message has one recipient, as it is where a campaign's mail is made out to its readers. Half of all belong to the
campaign LARGE. The campaigns are mixed evenly: no segment of bodies belongs to one of them alone.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import gc
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from queue_store.records import Appended, NewMessage, NewRecipient
from queue_store.store import QueueStore
from tests.bench.figures import Tell

__all__ = ["LARGE", "Queue", "campaign_of", "copy_queue", "disk_usage", "domain_of"]

LARGE = "large"
SIZE = 2_048  # octets of a message
_IN_FLIGHT = 4  # batches that were submitted and are not durable yet
_BATCH = 500  # messages, as many as the store puts into one commit
_RATIO = 2_654_435_761  # 2**32 over the golden ratio: neighbours get domains that are far from each other
_SMALL_SHARE = 5  # one in so many of the other half belongs to a small campaign


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What is to be in a queue. With `large` half of it is that campaign; `campaigns` counts it as well.

    The other half belongs to the other campaigns, save for a fifth of it, which is shared by `small` ones.
    """

    recipients: int
    campaigns: int = 40
    domains: int = 500
    small: int = 0
    large: bool = True
    size: int = SIZE


def campaign_of(queue: Queue, number: int) -> str:
    """Give the campaign of the n-th recipient."""
    if not queue.large:
        return f"c{number % queue.campaigns}"
    if number % 2 == 0:
        return LARGE
    rest, at = divmod(number // 2, _SMALL_SHARE)
    if at == 0 and queue.small:
        return f"small-{rest % queue.small}"
    return f"c{number // 2 % max(1, queue.campaigns - 1)}"


def domain_of(queue: Queue, number: int) -> str:
    """Give the domain of the n-th recipient. The first ones, as many as there are domains, have one each."""
    if number < queue.domains:
        return f"d{number}.test"
    return f"d{(number * _RATIO & 0xFFFFFFFF) * queue.domains >> 32}.test"


# -- filling, in the process of its own --------------------------------------------------------------------------------


def message_maker(queue: Queue) -> Callable[[int], NewMessage]:
    """Give what makes the n-th message."""
    heads: dict[str, bytes] = {}
    line = b"x" * 76 + b"\r\n"
    filler = line * (queue.size // len(line)) + b".\r\n"

    def make(number: int) -> NewMessage:
        campaign, domain = campaign_of(queue, number), domain_of(queue, number)
        head = heads.get(campaign)
        if head is None:
            head = heads[campaign] = (
                f"X-Campaign-ID: {campaign}\r\nFrom: news@news.example\r\nSubject: {campaign}\r\n\r\n"
            ).encode()
        return NewMessage(
            campaign=campaign,
            reverse_path=f"bounce+{campaign}+{number}@news.example",  # as the peers' records are read
            received_at=time.time_ns() // 1000,
            body=(head, filler[len(head) :]),
            recipients=(NewRecipient(address=f"r{number}@{domain}", lane=domain),),
        )

    return make


async def fill(path: Path, queue: Queue, first: int) -> None:
    """Append the recipients from the `first` on."""
    make = message_maker(queue)
    store = await QueueStore.open(path, reserve=1 << 20)
    batches: deque[list[asyncio.Future[Appended]]] = deque()
    try:
        for begin in range(first, queue.recipients, _BATCH):
            end = min(begin + _BATCH, queue.recipients)
            batches.append([store.append(make(number)) for number in range(begin, end)])
            if len(batches) == _IN_FLIGHT:
                await asyncio.gather(*batches.popleft())
        for batch in batches:
            await asyncio.gather(*batch)
    finally:
        await store.close()


def main() -> None:
    """Fill a store as the command line says."""
    parser = argparse.ArgumentParser(description="fill a queue store")
    parser.add_argument("path", type=Path)
    parser.add_argument("--first", type=int, default=0)
    for name in ("recipients", "campaigns", "domains", "small", "large", "size"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = vars(parser.parse_args())
    path, first, large = given.pop("path"), given.pop("first"), bool(given.pop("large"))
    gc.disable()  # it makes no cycles, and lives for minutes only
    try:
        run = importlib.import_module("uvloop").run
    except ImportError:
        run = asyncio.run
    run(fill(path, Queue(large=large, **given), first))


# -- the folders that were filled --------------------------------------------------------------------------------------

_filled: dict[Queue, Path] = {}
_folder: Path | None = None


def copy_queue(queue: Queue, node: Path, tell: Tell) -> Path:
    """Put a filled store into a node's folder; give the store's path. Raises RuntimeError, OSError."""
    node.mkdir(parents=True, exist_ok=True)
    store = node / "store"
    _copy(_provide(queue, tell), store)
    return store


def _provide(queue: Queue, tell: Tell) -> Path:
    """Give the folder of such a queue, filled if it is not there yet."""
    global _folder  # noqa: PLW0603  one for the process, removed at its end
    if queue in _filled:
        return _filled[queue]
    if _folder is None:
        _folder = Path(tempfile.mkdtemp(prefix="mtactl-bench-queues-", dir="/var/tmp"))
        atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    path = _folder / str(len(_filled))
    smaller = [each for each in _filled if replace(each, recipients=queue.recipients) == queue]
    smaller = sorted((each for each in smaller if each.recipients < queue.recipients), key=lambda each: each.recipients)
    first = 0
    try:
        if smaller:
            first = smaller[-1].recipients
            _copy(_filled[smaller[-1]], path)
        tell(f"{queue.recipients - first:,} recipients are being queued")
        begun = time.monotonic()
        _fill_apart(path, queue, first)
        tell(f"that took {time.monotonic() - begun:.0f} s")
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    _filled[queue] = path
    return path


def _fill_apart(path: Path, queue: Queue, first: int) -> None:
    names = ("recipients", "campaigns", "domains", "small", "large", "size")
    values = [f"--{name}={int(getattr(queue, name))}" for name in names]
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.queue_fill", str(path), f"--first={first}", *values])
    try:
        if process.wait() != 0:
            raise RuntimeError(f"the queue could not be filled: exit status {process.returncode}")
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-r", "--reflink=auto", str(source), str(target)], check=True)
    os.sync()  # or the kernel would write the copy while somebody measures


def disk_usage(folder: Path) -> int:
    """Give the octets that the files of a folder take on the disk."""
    used = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                used += os.stat(os.path.join(path, name)).st_blocks * 512
            except FileNotFoundError:  # a segment that was just unlinked
                continue
    return used


if __name__ == "__main__":
    main()
