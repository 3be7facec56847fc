"""Cuts the power, or kills the process, at many points of a record, and opens what is left with the store."""

from __future__ import annotations

import copy
import hashlib
import os
import random
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from queue_store import attempts
from tests.crash.ledger import Ledger
from tests.crash.reopening import examine
from tests.powercut.disk import Disk
from tests.powercut.recording import Recorder, read_events

BOOTS = [f"{number:08d}-0000-4000-8000-000000000000" for number in range(3)]
# What tells one state from another: not the lock, and nothing that is not believed after a cut.
TELLING = ("queue.db", "queue.db-wal", "queue.db-journal")
USES = 8  # one in so many states is put to use; the others are opened
KEEP = (0.0, 0.5, 0.9)  # odds that all changes to a page, a size or a name are on the disk
KILLS = 5  # at one in so many points the process is killed too
DEEPER = 12  # messages of a life that follows a cut
DEEPER_CUTS = 25  # of that life
AFTER = "CMUWTAsw"  # kinds of events after which it is cut: those that change what may be there, or must be


@dataclass
class Summary:
    """What was tried. `failures` are told by what was wrong."""

    cuts: int = 0
    states: int = 0
    kills: int = 0
    distinct: set[bytes] = field(default_factory=set)
    facts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Summary) -> None:
        """Take another one in."""
        self.cuts += other.cuts
        self.states += other.states
        self.kills += other.kills
        self.distinct |= other.distinct
        self.facts += other.facts
        self.failures += other.failures

    def __str__(self) -> str:
        facts = ", ".join(f"{name} {number}" for name, number in sorted(self.facts.items()))
        return (
            f"{self.states} states after {self.cuts} cuts, {len(self.distinct)} of them distinct; {self.kills} kills;"
            f" {len(self.failures)} failures; {facts}"
        )


class Cutter:
    """Tries points of one record."""

    def __init__(self, recorder: Recorder, inode: int, seed: int, *, room: Path, honest: bool = True) -> None:
        self.recorder = recorder
        self.inode = inode
        self.seed = seed
        self.room = room  # a folder for the states, best in memory
        self.honest = honest
        self.summary = Summary()
        self.ledger = Ledger()
        self._tried: set[tuple[bytes, int]] = set()  # states, each with how much had been told
        self.base: Path | None = None  # what was in the folder when the record began
        self.inodes: dict[Path, int] = {}

    def run(self, cuts: int, *, kills: bool = True, deeper: int = 0, share: tuple[int, int] = (0, 1)) -> Summary:
        """Cut at so many points; at some of them, kill too; and let the store live on after every `deeper`th cut, and
        cut that life again. `share`, as (number, of): a part of the points, where several processes share the work.
        """
        recorder = self.recorder
        number = sum(event.kind in AFTER for event in read_events(recorder.log))
        points = set(random.Random(self.seed).sample(range(number), min(cuts, number)))
        disk = Disk(recorder.folder, self.inode, honest=self.honest)
        if self.base is not None:
            disk.load(self.base, self.inodes)
        at = turn = 0
        for event in read_events(recorder.log):
            disk.take(event)
            if event.kind == "K":
                self.ledger.take(event.data.decode().splitlines())
            if event.kind not in AFTER:
                continue
            if at in points:
                turn += 1
                if turn % share[1] == share[0]:
                    self._cut(disk, at, kill=kills and turn % KILLS == 0, deeper=deeper > 0 and turn % deeper == 0)
            at += 1
        return self.summary

    def _cut(self, disk: Disk, at: int, *, kill: bool, deeper: bool) -> None:
        chance = random.Random(f"{self.seed} {at}")
        self.summary.cuts += 1
        with self._state(disk, None, 0.0) as folder:
            self._examine(folder, f"cut at {at}, nothing kept")
        for keep in KEEP:
            with self._state(disk, chance, keep) as folder:
                if deeper and keep == KEEP[1]:
                    self._live_on(folder, at)
                self._examine(folder, f"cut at {at}, {keep} kept")
        if kill:
            with self._folder() as folder:
                disk.write_all(folder)
                self.summary.kills += 1
                self._try(folder / "store", f"killed at {at}", same_boot=True)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(dir=self.room))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    @contextmanager
    def _state(self, disk: Disk, chance: random.Random | None, keep: float) -> Iterator[Path]:
        with self._folder() as folder:
            disk.write(folder, chance, keep)
            yield folder

    def _examine(self, folder: Path, where: str) -> None:
        digest = _digest(folder / "store")
        if (digest, self.ledger.told.total()) in self._tried:
            return
        self._tried.add((digest, self.ledger.told.total()))
        self.summary.states += 1
        self.summary.distinct.add(digest)
        with boot(2, self.room):
            self._try(folder / "store", where, same_boot=False)

    def _try(self, store: Path, where: str, *, same_boot: bool) -> None:
        try:
            if not store.exists():
                assert 250 not in self.ledger.answers.values(), "the folder is gone"
                assert not self.ledger.halted, "the folder is gone"
                self.summary.facts["without a folder"] += 1
                return
            after = examine(store, self.ledger, same_boot=same_boot, use=self.summary.states % USES == 0)
        except Exception:
            self.summary.failures.append(f"{where}: {traceback.format_exc()}")
            return
        if after is None:
            self.summary.facts["without an index"] += 1
            return
        facts = self.summary.facts
        facts["recipients answered 250, and there"] += sum(code == 250 for code in self.ledger.answers.values())
        facts["halts answered, and there"] += len(self.ledger.halted)
        facts["settled, and there"] += len(self.ledger.final)
        facts["bodies read"] += sum(1 for _ in after.bodies())

    def _live_on(self, folder: Path, at: int) -> None:
        """Let the store live again on what the cut has left, and cut that too, its recovery first of all."""
        with self._folder() as place:
            disk, base = place / "disk", place / "base"
            shutil.copytree(folder, disk)
            shutil.copytree(folder, base)
            recorder = Recorder(disk, self.recorder.library)
            inodes = {each.relative_to(disk): each.stat().st_ino for each in disk.rglob("*")}
            inode = disk.stat().st_ino
            with boot(1, self.room) as path:
                recorder.live(1_000 + at, DEEPER, boot=path)
            deeper = Cutter(recorder, inode, self.seed + at, room=self.room, honest=self.honest)
            deeper.base, deeper.inodes = base, inodes
            deeper.ledger = copy.deepcopy(self.ledger)
            summary = deeper.run(DEEPER_CUTS, kills=False)
            self.summary.facts["states of a life after a cut"] += summary.states
            self.summary.add(summary)


@contextmanager
def boot(number: int, room: Path) -> Iterator[Path]:
    """Have the store believe that the machine was started anew."""
    path = room / f"boot-{number}"
    path.write_text(BOOTS[number])
    kept = attempts._BOOT_ID
    attempts._BOOT_ID = path
    try:
        yield path
    finally:
        attempts._BOOT_ID = kept


def take_share(
    recorder: Recorder, inode: int, seed: int, *, room: Path, cuts: int, deeper: int, share: tuple[int, int]
) -> Summary:
    """Take a share of the points of a record, in a process of its own."""
    attempts._FIRST_SLOTS = 4  # a log of 2 MiB in each state would cost more than all else
    place = Path(tempfile.mkdtemp(dir=room))
    return Cutter(recorder, inode, seed, room=place).run(cuts, deeper=deeper, share=share)


def record_lives(folder: Path, library: Path, seed: int, messages: int) -> tuple[Recorder, int]:
    """Record a store from its very beginning, with two deaths while it is made and one in the midst of work; give the
    record, and the inode of the folder that it is in.
    """
    recorder = Recorder(folder, library)
    recorder.live(seed, 1, failpoint="folder-made")
    recorder.live(seed + 1, 1, failpoint="segments-folder-made")
    recorder.live(seed + 2, messages)
    recorder.live(seed + 3, messages, failpoint=f"slot-done:{messages}")
    recorder.live(seed + 4, messages)
    return recorder, folder.stat().st_ino


def _digest(store: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(store.rglob("*")):
        if path.name in TELLING or path.suffix == ".seg" or path.is_dir():
            content = b"" if path.is_dir() else path.read_bytes()
            digest.update(f"{path.relative_to(store)} {len(content)}\n".encode() + content)
    return digest.digest()


def room_in_memory(fallback: Path) -> Path:
    """Give a folder in memory, where there is one: a state is opened once, and is of no use then."""
    memory = Path("/dev/shm")
    parent = memory if memory.is_dir() and os.access(memory, os.W_OK) else fallback
    return Path(tempfile.mkdtemp(prefix="mtactl-powercut-", dir=parent))
