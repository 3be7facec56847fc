"""A process that works with a queue store as a daemon would, as fast as it can, until it is killed or has done enough.

Run as `python store_child.py FOLDER SEED [MESSAGES]`: without a number it goes on until it is killed; after so many
messages it closes the store and ends. As `python store_child.py serve` it reads such lines from stdin, each behind the
name of a failpoint (or -) and the file for what is told, forks for each, and prints how the fork ended.

It tells what it knows, a line each, in one write, as soon as it knows it. ledger.py says what the lines are.
"""

import asyncio
import contextlib
import os
import random
import sys
import time
import zlib
from pathlib import Path

import apsw  # noqa: F401 - once, before the forks; the store itself is read behind them, with their failpoint
import msgspec  # noqa: F401

LANES = ["one.example", "two.example"]
CAMPAIGNS = 12
SEGMENT_SIZE = 30_000
RESERVE = 4096
PIECES = 1_200  # of a body that one call can't write
POISON = "\udc80"  # no Unicode text: the index can't take it, and the batch is rolled back


def tell(*what: object) -> None:
    os.write(1, (" ".join(map(str, what)) + "\n").encode())


def now() -> int:
    return time.time_ns() // 1000


def make_body(filler: bytes, pieces: int) -> list[bytes]:
    """Make a body that says the sum of what follows its first line."""
    rest = [b"\r\n"] + [filler] * pieces + [b"\r\n.\r\n"]
    return [b"X-Sum: %08x\r\n" % zlib.crc32(b"".join(rest)), *rest]


def tune() -> None:
    """Have everything that a store does now and then happen all the time."""
    from queue_store import attempts, committer, upkeep  # noqa: PLC0415

    attempts._BOOT_ID = Path(os.environ.get("MTACTL_TEST_BOOT", attempts._BOOT_ID))
    attempts._FIRST_SLOTS = 4
    committer._IDLE = 0.001
    upkeep._COPY_LEAST = 10_000
    upkeep._COPY_LIVING = 2
    upkeep._FREE_PAGES = 1
    upkeep._FREE_SHARE = 1_000
    upkeep._INTERVAL = 0.02
    upkeep._LOG_BUSY = 40
    upkeep._LOOK = 0.02


async def run(path: Path, seed: int, messages: int | None) -> None:
    from queue_store.store import QueueStore  # noqa: PLC0415
    from tests.crash.store_worker import Worker  # noqa: PLC0415

    tell("opening")
    tune()
    store = await QueueStore.open(path, reserve=RESERVE, segment_size=SEGMENT_SIZE)
    tell("ready")
    worker = Worker(store, random.Random(seed), seed)
    await worker.work(messages)
    await store.close()
    tell("closed")


def serve() -> None:
    for line in sys.stdin:
        point, told, folder, seed, messages = line.split()
        child = os.fork()
        if child == 0:
            if point != "-":
                os.environ["MTACTL_FAILPOINT"] = point
            os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 1)
            status = 1
            with contextlib.suppress(BaseException):
                try:
                    asyncio.run(run(Path(folder), int(seed), int(messages)))
                    status = 0
                except BaseException:
                    sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        folder, seed, *rest = sys.argv[1:]
        asyncio.run(run(Path(folder), int(seed), int(rest[0]) if rest else None))
