"""Check a queue store from its files alone: `python -m queue_store.fsck FOLDER`.

`mtactl fsck` tells the same, with what it means. Nothing is written, not even a lock byte or SQLite's shared memory:
the index is read with its log, as it would be when the store is opened, but in this process's memory. The store must
not be in use; while the check runs it can't be opened. Mending is not done here: opening the store mends what a crash
leaves behind by rights, and a damaged index (mending.py); what that would lose is found out in a temporary folder.

Exit codes: 0 nothing is wrong (there may be notes), 1 something is, 2 the store can't be checked.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import apsw

from queue_store.errors import StoreError, StoreLocked
from queue_store.finding import Finding, Kind, Severity
from queue_store.fsck_bodies import check_bodies
from queue_store.fsck_books import check_books
from queue_store.fsck_index import BODIES, check_files, check_halts, check_pages, foretell
from queue_store.fsck_log import check_log
from queue_store.lock import holder
from queue_store.mending import INDEX, LOG
from queue_store.page_image import PageImage

__all__ = ["BODIES", "INDEX", "Finding", "Kind", "Severity", "StoreError", "StoreLocked", "check", "main"]

LOCK = "lock"


def check(folder: Path) -> list[Finding]:
    """Check the store in a folder. Raises StoreLocked when it is in use, OSError when it can't be read."""
    index = folder / INDEX
    with _hold_off(folder):
        index.stat()
        with closing(PageImage(index, folder / LOG)) as image:
            findings = [*check_log(image), *check_pages(image)]
            if not any(found.severity is Severity.ERROR for found in findings):
                findings += _check_content(folder)
            if any(found.kind in (Kind.INDEX, Kind.LOG) for found in findings):
                findings += foretell(image, folder)
        findings += check_files(folder)
    return findings


def _check_content(folder: Path) -> list[Finding]:
    index = folder / INDEX
    findings: list[Finding] = []
    try:
        with closing(_open(index, folder / LOG)) as db:
            findings += check_books(db, index.name)
            findings += check_bodies(db, folder / BODIES)
            findings += check_halts(db, folder)
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError) as error:
        what = f"it is damaged so that the check could not go on: {error}"
        findings.append(Finding(severity=Severity.ERROR, where=index.name, what=what, kind=Kind.INDEX))
    except (apsw.CantOpenError, apsw.IOError, apsw.PermissionsError) as error:
        raise OSError(f"{index} can't be read: {error}") from error
    return findings


def main(arguments: Sequence[str]) -> int:
    """Check the store in the folder given, print what is found, and give the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write("usage: python -m queue_store.fsck FOLDER\n")
        return 2
    try:
        findings = check(Path(arguments[0]))
    except (StoreError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for finding in findings:
        sys.stdout.write(f"{finding}\n")
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    sys.stdout.write(f"{errors} errors, {len(findings) - errors} notes\n" if findings else "clean\n")
    return 1 if errors else 0


@contextmanager
def _hold_off(folder: Path) -> Iterator[None]:
    """Keep the store from being opened, by a shared lock that needs no right to write."""
    locked: list[int] = []
    try:
        for path in (folder, folder / LOCK):
            with suppress(FileNotFoundError):  # a copy of a store may be without the file
                locked.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        try:
            for fd in locked:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreLocked(str(folder), holder(folder / LOCK)) from None
        yield
    finally:
        for fd in locked:
            os.close(fd)


def _open(index: Path, log: Path) -> apsw.Connection:
    """Open the index for reading so that nothing of it is written.

    Without a log it can be taken for immutable. With one, SQLite would want to write its shared memory; told that it
    is alone (exclusive, and with no file locks behind that) it keeps the log's index in its own memory.
    """
    alone = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    db = apsw.Connection(f"file:{quote(str(index.absolute()))}?{alone}", flags=flags, vfs="unix-none")
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    return db


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
