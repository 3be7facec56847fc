"""Records what the process of a store does to its files, and reads the record (recorder.c makes it).

A record is 33 octets, little endian, a path and data:
    1  kind: C a file is made, M a folder is made, U a name is removed, R one takes the place of another, W written,
             T cut or grown, A allocated, P a page of a shared mapping has changed, S a sync begins, s a sync has ended,
             w a write that was to be durable at once is, K something was told
    8  inode    8  offset, size or number of the sync    8  length, or the sync of a write (0: none)
    4  octets of the path    4  octets of the data
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("recorder.c")
CHILD = SOURCE.parents[1] / "crash" / "store_child.py"
ROOT = SOURCE.parents[2]
KILLED = -9

_HEAD = struct.Struct("<cQqqII")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that was done."""

    kind: str
    file: int
    first: int
    second: int
    path: str
    data: bytes


def compile_recorder(folder: Path) -> Path:
    """Make the library of recorder.c."""
    library = folder / "recorder.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl", "-lpthread"], check=True)
    return library


class Recorder:
    """Lives of a store in `folder`/store, all in one record."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder = folder
        self.library = library
        self.log = folder.with_name(f"{folder.name}.log")
        folder.mkdir(exist_ok=True)

    def live(self, seed: int, messages: int, *, failpoint: str | None = None, boot: Path | None = None) -> None:
        """Let a child open the store, work and close it, or die at the failpoint. `boot`: has the boot id for it."""
        environment = {
            "PYTHONPATH": str(ROOT),
            "LD_PRELOAD": str(self.library),
            "POWERCUT_FOLDER": str(self.folder),
            "POWERCUT_LOG": str(self.log),
        }
        if boot is not None:
            environment["MTACTL_TEST_BOOT"] = str(boot)
        if failpoint is not None:
            environment["MTACTL_FAILPOINT"] = failpoint
        child = subprocess.run(
            [sys.executable, str(CHILD), str(self.folder / "store"), str(seed), str(messages)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        wanted = 0 if failpoint is None else KILLED
        assert child.returncode == wanted, f"{child.returncode}: {child.stderr.decode()}"


def read_events(log: Path) -> Iterator[Event]:
    """Read a record; its last event may be cut off where the process was killed."""
    with log.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            kind, number, first, second, path_size, data_size = _HEAD.unpack(head)
            path = os.fsdecode(file.read(path_size))
            data = file.read(data_size)
            assert len(data) == data_size
            yield Event(kind.decode(), number, first, second, path, data)
