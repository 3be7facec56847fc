"""A command of mtactl run by another user of the machine: a process that has read our files as root and then takes that
user's ids, since the user itself may not be able to read them.

    python -m tests.world.impostor UID GID GROUP,GROUP,… ARGUMENT …
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import mtactl.cli
from mtactl.cli.main import program


def run_as(
    uid: int, gid: int, groups: Sequence[int], socket: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run `mtactl --socket SOCKET ARGUMENTS` with these ids. For root only."""
    ids = (str(uid), str(gid), ",".join(map(str, groups)))
    return subprocess.run(
        [sys.executable, "-m", "tests.world.impostor", *ids, "--socket", str(socket), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def main() -> None:
    uid, gid, groups, *arguments = sys.argv[1:]
    for module in iter_modules(mtactl.cli.__path__):
        import_module(f"mtactl.cli.{module.name}")
    os.setgroups([int(group) for group in groups.split(",") if group])
    os.setresgid(int(gid), int(gid), int(gid))
    os.setresuid(int(uid), int(uid), int(uid))
    program(arguments, prog_name="mtactl")


if __name__ == "__main__":
    main()
