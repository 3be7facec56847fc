"""What keeps a folder from being used as a store, in a sentence that names it, its owner and who we are."""

from __future__ import annotations

import errno
import os
import pwd
import stat
from pathlib import Path

from queue_store.errors import StoreUnusable

__all__ = ["unusable"]

_RIGHTS = (errno.EACCES, errno.EPERM)


def unusable(folder: Path, error: OSError) -> StoreUnusable | None:
    """Give the error for one of the operating system that a person can mend; None for any other."""
    where = Path(error.filename) if isinstance(error.filename, str) else folder
    if error.errno == errno.EROFS:
        return StoreUnusable(f"{where} is on a file system that is mounted read-only: the store must be written to")
    if error.errno in _RIGHTS:
        return StoreUnusable(f"{_describe(where)}: this process runs as {_name(os.geteuid())} and may not use it")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return StoreUnusable(f"{where} is there and is not a folder: the store needs one of its own")
    return None


def _describe(where: Path) -> str:
    """Name the first thing on the way to a path that bars it, else the path."""
    for path in (*reversed(where.parents), where):
        try:
            facts = path.stat()
        except OSError:
            return f"{path} can't be reached or made in {_owned(path.parent)}"
        if stat.S_ISDIR(facts.st_mode) and not os.access(path, os.X_OK, effective_ids=True):
            return _owned(path)
    return _owned(where)


def _owned(path: Path) -> str:
    try:
        facts = path.stat()
    except OSError:
        return str(path)
    return f"{path} (which belongs to {_name(facts.st_uid)}, mode {stat.S_IMODE(facts.st_mode):04o})"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
