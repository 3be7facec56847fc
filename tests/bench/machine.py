"""What the figures were measured on, and how busy that was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

__all__ = ["describe_machine", "name_machine", "probe_fsync"]

_SYNCS = 100
_OCTETS = b"x" * 4_096


def describe_machine(folder: str = "/var/tmp") -> dict[str, object]:
    """Give CPU, memory, kernel, Python and how it was built, the disk below `folder`, and the load now."""
    median, late = probe_fsync(folder)
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "python_build": _python_build(),
        "uvloop": _version("uvloop"),
        "disk": _file_system(folder),
        "fsync_ms": {"median": round(median, 3), "p99": round(late, 3)},
        "load": round(os.getloadavg()[0], 2),
    }


def name_machine(machine: dict[str, object]) -> str:
    """Say in one line which machine it was."""
    fsync = machine.get("fsync_ms")
    disk = f", fsync {fsync['median']:.1f} ms" if isinstance(fsync, dict) else ""
    return (
        f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('memory_gib')} GiB"
        f"{disk}, Linux {machine.get('kernel')}, Python {machine.get('python')}"
    )


def probe_fsync(folder: str) -> tuple[float, float]:
    """Give median and 99th percentile, in ms, of making 4 kB at the end of a file durable."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_SYNCS):
            began = time.perf_counter()
            os.write(file.fileno(), _OCTETS)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times), sorted(times)[_SYNCS * 99 // 100]


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def _python_build() -> str:
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    parts = ["PGO" if "--enable-optimizations" in arguments else "no PGO"]
    if sys.base_prefix == "/usr":
        parts = ["the distribution's"]  # whose builds are optimised without saying so there
    if "--with-lto" in arguments:
        parts.append("LTO")
    return ", ".join([*parts, platform.python_compiler()])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _file_system(folder: str) -> str:
    """Give type and device of the file system that has the folder."""
    best, found = "", "unknown"
    real = os.path.realpath(folder)
    for line in Path("/proc/mounts").read_text().splitlines():
        device, where, kind, *_ = line.split()
        if os.path.commonpath((real, where)) == where and len(where) >= len(best):
            best, found = where, f"{kind} on {device}"
    return found
