"""What the same stop costs on Postfix: find a campaign's mail in the queue, and delete it message by message.

Half of the queue is the campaign, known by its sender. While Postfix delivers all of it, an administrator's
`postqueue -j | jq -r 'select(.sender=="…") | .queue_id' | postsuper -d -` is run. What went out meanwhile is counted at
the peer.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from tests.bench.figures import Figure, Tell
from tests.bench.load import end, missing_programs, source
from tests.bench.postfix import NoPostfix, Postfix
from tests.world.daemon import PeerWorld, free_port, peer_world

CASE = "postfix_halt"
QUEUED = (1_000, 10_000, 100_000)
_SIZE = 2_048  # octets of a message
CAMPAIGN, OTHERS = "campaign", "others"
_SETTLING = 2.0  # seconds after the command, for what is on its way

# What jq does, for machines without it.
_SELECT = """\
import json, sys
for line in sys.stdin:
    entry = json.loads(line)
    if entry["sender"] == sys.argv[1]:
        print(entry["queue_id"])
"""


def sender_of(campaign: str) -> str:
    """Give the reverse-path by which Postfix's administrator and the peer tell the campaign."""
    return f"bounce+{campaign}+0@news.example"


def selector(sender: str) -> tuple[list[str], str]:
    """Give the command that picks queue ids by sender, and what to tell of it."""
    if shutil.which("jq") is not None:
        return ["jq", "-r", f"select(.sender=={json.dumps(sender)}) | .queue_id"], "postqueue -j | jq | postsuper -d -"
    return [sys.executable, "-c", _SELECT, sender], "postqueue -j | Python (jq is not installed) | postsuper -d -"


def delete(postfix: Postfix, sender: str) -> float:
    """Run the three commands; give the seconds until the last has ended. Raises RuntimeError."""
    select, told = selector(sender)
    began = time.monotonic()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        given: int | IO[bytes] | None = subprocess.DEVNULL
        for command in (
            ["postqueue", "-c", str(postfix.config), "-j"],
            select,
            ["postsuper", "-c", str(postfix.config), "-d", "-"],
        ):
            last = command[0] == "postsuper"
            process = subprocess.Popen(
                command,
                stdin=given,
                stdout=subprocess.DEVNULL if last else subprocess.PIPE,
                stderr=subprocess.DEVNULL if last else None,  # it names what is gone already
            )
            if processes and processes[-1].stdout is not None:
                processes[-1].stdout.close()
            processes.append(process)
            given = process.stdout
        for process in reversed(processes):
            process.wait()
    finally:
        for process in processes:
            end(process)
    seconds = time.monotonic() - began
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{told} ended with {[process.returncode for process in processes]}")
    return seconds


def fill(postfix: Postfix, queued: int) -> None:
    """Queue both halves at the same time, so that they lie mixed. Raises RuntimeError."""
    halves = [
        source(postfix.port, count, size=_SIZE, sender=sender_of(name), sessions=10)
        for name, count in ((CAMPAIGN, queued // 2), (OTHERS, queued - queued // 2))
    ]
    try:
        for process in halves:
            if process.wait() != 0:
                raise RuntimeError(f"smtp-source ended with {process.returncode}")
    finally:
        for process in halves:
            end(process)


def wait_for_delivery(world: PeerWorld, count: int, patience: float = 120.0) -> None:
    """Wait until the peer has got so many messages. Raises TimeoutError."""
    deadline = time.monotonic() + patience
    while sum(each.code == 250 for each in world.record().transactions) < count:
        if time.monotonic() > deadline:
            raise TimeoutError("Postfix delivers nothing")
        time.sleep(0.02)


def measure_stop(queued: int, tell: Tell) -> Iterator[Figure]:
    """Stop a campaign of half of the queue."""
    folder = Path(tempfile.mkdtemp(prefix="mtactl-bench-", dir="/var/tmp"))
    postfix = None
    try:
        with peer_world(folder / "world") as world:
            postfix = Postfix(port=free_port(), relay=world.port)
            tell(f"Postfix: {queued:,} messages are being queued")
            postfix.start(deliver=False)
            fill(postfix, queued)
            postfix.stop()
            postfix.start()
            wait_for_delivery(world, min(200, queued // 20))
            tell("Postfix: half of them are being deleted while it delivers")
            asked = time.monotonic_ns()
            seconds = delete(postfix, sender_of(CAMPAIGN))
            time.sleep(_SETTLING)
            postfix.stop()
            mine = [each for each in world.record().of(CAMPAIGN) if each.code == 250]
            late = sum((each.ended or 0) > asked for each in mine)
        figure = partial(Figure, case=CASE, more=False, at=float(queued))
        yield figure(
            what=f"Postfix, {queued:,} queued: a campaign deleted",
            unit="s",
            value=seconds,
            note=f"{selector('')[1]}, {len(mine) - late:,} of its {queued // 2:,} had gone out before",
        )
        yield figure(what=f"Postfix, {queued:,} queued: sent after the stop", unit="mails", value=float(late))
    finally:
        if postfix is not None:
            postfix.remove()
        shutil.rmtree(folder, ignore_errors=True)


def measure(scale: float, tell: Tell) -> Iterator[Figure]:
    """Measure at three sizes. Where Postfix can't be run it says so, and gives nothing."""
    try:
        Postfix.look_for()
    except NoPostfix as error:
        tell(f"nothing to compare with: {error}")
        return
    if missing := missing_programs():
        raise RuntimeError(f"{' and '.join(missing)} not found: apt-get install postfix")
    for queued in sorted({max(100, int(queued * scale)) for queued in QUEUED}):
        yield from measure_stop(queued, tell)
