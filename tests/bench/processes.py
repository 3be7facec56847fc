"""What a process has cost so far, as proc(5) tells it."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["TICK", "cpu_fields", "cpu_of", "memory_of"]

TICK = os.sysconf("SC_CLK_TCK")
_MEMORY = re.compile(r"^(VmRSS|VmHWM):\s+(\d+) kB$", re.MULTILINE)


def cpu_fields(stat: Path) -> tuple[str, list[int]]:
    """Give the parent and utime, stime, cutime and cstime, in ticks, of a `stat` file. Raises OSError when it ended."""
    fields = stat.read_text().rpartition(")")[2].split()
    return fields[1], [int(field) for field in fields[11:15]]


def cpu_of(pid: int) -> float:
    """Give the seconds of CPU of all threads of a process."""
    _, (user, system, *_) = cpu_fields(Path(f"/proc/{pid}/stat"))
    return (user + system) / TICK


def memory_of(pid: int) -> dict[str, float]:
    """Give VmRSS and VmHWM (what it was at most) of a process, in MiB."""
    found = _MEMORY.findall(Path(f"/proc/{pid}/status").read_text())
    return {name: int(value) / 1024 for name, value in found}
