"""A disk that fails on demand under one process: failing_disk.c, built with gcc, preloaded, and told what to fail."""

from __future__ import annotations

import enum
import errno
import os
import struct
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

_SOURCE = Path(__file__).with_suffix(".c")
_PLAN = struct.Struct("=10i")


class Calls(enum.IntFlag):
    """The calls that fail. A write that is to be durable as it returns is both, a write and a sync."""

    WRITES = 1
    SYNCS = 2
    SIZES = 4
    FOLDERS = 8


class Files(enum.IntFlag):
    """The files on which they do."""

    INDEX = 1
    LOG = 2
    SEGMENTS = 4
    REST = 8
    ALL = 15


@cache
def _library() -> Path:
    built = Path(mkdtemp(prefix="mtactl-failing-disk-")) / "failing_disk.so"
    command = ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", built, _SOURCE, "-ldl"]
    subprocess.run(command, check=True)
    return built


class FailingDisk:
    """The disk under `folder`, for processes that are started with `environment`. It works until `fail`.

    A full one (ENOSPC) has room again, but for mail, when the file `reserve` is removed.
    """

    def __init__(self, folder: Path, plan: Path) -> None:
        self._folder = folder
        self._plan = plan
        if not plan.exists():
            plan.write_bytes(_PLAN.pack(*[0] * 10))

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs in its environment."""
        named = {"FAILING_DISK_FOLDER": str(self._folder), "FAILING_DISK_PLAN": str(self._plan)}
        return {"LD_PRELOAD": str(_library()), **named}

    def fail(
        self,
        calls: Calls,
        *,
        files: Files = Files.ALL,
        after: int = 0,
        times: int = -1,
        number: int = errno.EIO,
    ) -> None:
        """Let so many of these calls pass, then let so many fail (-1: all from there on)."""
        full = number == errno.ENOSPC
        self._write(_PLAN.pack(calls, after, times, number, files, full, 0, 0, 0, 0))

    def mend(self) -> None:
        """Let everything pass. The counts stay."""
        self._write(struct.pack("=6i", *[0] * 6))

    @property
    def meant(self) -> int:
        """How many of the calls there were since `fail`."""
        return self._read()[6]

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return self._read()[7]

    @property
    def after(self) -> int:
        """How many came when no more were to fail."""
        return self._read()[8]

    def _read(self) -> tuple[int, ...]:
        return _PLAN.unpack(self._plan.read_bytes())

    def _write(self, octets: bytes) -> None:
        fd = os.open(self._plan, os.O_WRONLY)
        try:
            os.pwrite(fd, octets, 0)
        finally:
            os.close(fd)
