"""Check what the index is written on, and the copy of its halts: pages, structure, journal, attempts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw

from queue_store.attempts import is_attempt_log
from queue_store.errors import HaltsLost, StoreError
from queue_store.finding import Finding, Kind, Severity
from queue_store.fsck_bodies import check_bodies
from queue_store.halt_journal import Promises, read_promises
from queue_store.index import connect
from queue_store.mending import ACCEPT, HALTS, INDEX, NOTED, set_aside
from queue_store.page_image import PageImage
from queue_store.salvage import salvage

__all__ = ["BODIES", "check_files", "check_halts", "check_pages", "foretell"]

_SHOWN = 20
BODIES = "segments"


def check_pages(image: PageImage) -> Iterator[Finding]:
    """Find damaged pages of the index and of its log."""
    if image.pages and len(image.damaged) >= image.pages:
        yield _error(INDEX, "none of its pages is one of a queue store's index")
        return
    for number, (page, table) in enumerate(image.damaged.items()):
        if number == _SHOWN:
            yield _error(INDEX, f"and {len(image.damaged) - _SHOWN} more damaged pages")
            break
        whose = f"with rows of {table}" if table else "of its structure" if table == "" else "of no table known"
        yield _error(f"{INDEX}, page {page}", f"it does not fit its checksum, or is missing; it is one {whose}")


def foretell(image: PageImage, folder: Path) -> Iterator[Finding]:
    """Say what making the index anew would come to, and which bodies would be missing then; tried in a temporary
    folder. Raises apsw.Error, OSError.
    """
    with tempfile.TemporaryDirectory(prefix="mtactl-fsck-") as made:
        new = Path(made) / "index"
        try:
            result = salvage(
                image,
                new,
                promises=read_promises(folder / HALTS),
                segments=folder / BODIES,
                now=time.time_ns() // 1000,
                accept_lost_halts=(folder / ACCEPT).exists(),
            )
        except HaltsLost as error:
            yield Finding(severity=Severity.ERROR, where=INDEX, what=error.what, kind=Kind.HALTS_LOST)
        except (StoreError, apsw.Error) as error:
            yield _error(INDEX, f"it can't be made anew: {error}; restore the folder from a backup")
        else:
            affects = tuple(result.told) or ("no mail, no outcome and no halt is lost by it",)
            yield _error(INDEX, "what is lost when it is made anew", *affects)
            with closing(connect(new, read_only=True)) as db:
                yield from check_bodies(db, folder / BODIES)
                yield from check_halts(db, folder)


def check_halts(db: apsw.Connection, folder: Path) -> Iterator[Finding]:
    """Compare the halts of the index with their copy. Raises apsw.Error, OSError."""
    promises = read_promises(folder / HALTS)
    if not promises.whole:
        severity = Severity.NOTE if promises.missing or promises.torn else Severity.ERROR
        yield Finding(severity=severity, where=HALTS, what=promises.damage, kind=Kind.HALTS)
    sql = "SELECT c.name FROM halts h JOIN campaigns c ON c.id = h.campaign_id"
    yield from _compare({str(name) for (name,) in db.execute(sql)}, promises)


def _compare(indexed: set[str], promises: Promises) -> Iterator[Finding]:
    for name in sorted(promises.halts.keys() - indexed):
        what = "its halt is in the copy, but not in the index"
        yield Finding(severity=Severity.ERROR, where=f"{HALTS}, campaign {name}", what=what, kind=Kind.HALTS)


def check_files(folder: Path) -> Iterator[Finding]:
    """Look at the other files of a store. Raises OSError."""
    attempts = folder / "attempts"
    if attempts.exists() and not is_attempt_log(attempts):
        what = "it is damaged, or of another version"
        yield Finding(severity=Severity.NOTE, where=attempts.name, what=what, kind=Kind.ATTEMPTS)
    if (folder / NOTED).exists():
        what = "damage was met while the store was open, and is to be looked for at the next start"
        yield Finding(severity=Severity.NOTE, where=NOTED, what=what, kind=Kind.INDEX)
    for path in set_aside(folder):
        what = "damaged files were put here"
        yield Finding(severity=Severity.NOTE, where=str(path), what=what, kind=Kind.ASIDE)


def _error(where: str, what: str, *affects: str) -> Finding:
    return Finding(severity=Severity.ERROR, where=where, what=what, kind=Kind.INDEX, affects=affects)
