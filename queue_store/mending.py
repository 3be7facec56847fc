"""A damaged index: how it is noticed, and how a new one takes its place.

SQLite notices a damaged page as it reads it, and passes over a damaged log in silence; what it passes over is looked
for at each opening. Damage that is met while the store is open is noted in the file `damaged`, and the next opening
looks at every page. The new index (salvage.py) is made beside the old one, which then lies in `quarantine`, and
whatever moment this ends at, the next opening goes on from there.
"""

from __future__ import annotations

import os
import struct
import time
from contextlib import closing, suppress
from pathlib import Path

from queue_store.errors import StoreDamaged
from queue_store.halt_journal import read_promises
from queue_store.page_image import PageImage
from queue_store.salvage import salvage
from queue_store.segments import sync_folder
from queue_store.wal_format import FRAME, WAL_HEADER, read_header

__all__ = [
    "ACCEPT",
    "HALTS",
    "INDEX",
    "LOG",
    "NOTED",
    "check_log",
    "finish",
    "look",
    "make_quarantine",
    "mend",
    "note_damage",
    "set_aside",
    "set_body_aside",
]

INDEX = "queue.db"
LOG = "queue.db-wal"
HALTS = "halts"
NOTED = "damaged"
ACCEPT = "accept-lost-halts"
_SHARED = "queue.db-shm"
_QUARANTINE = "quarantine"
_MAKING = "queue.db.mending"
_MADE = "queue.db.mended"
_FRAMES_THAT_COUNT = 16  # where the shared memory has their number, in the order of this machine's octets


def note_damage(folder: Path, what: str) -> None:
    """Have the next opening look at every page. Where even that can't be written, it will meet the damage again."""
    with suppress(OSError), (folder / NOTED).open("a") as file:
        file.write(f"{what}\n")


def set_aside(folder: Path) -> list[Path]:
    """Give the folders in which damaged files lie, the oldest first."""
    quarantine = folder / _QUARANTINE
    return sorted(quarantine.iterdir()) if quarantine.is_dir() else []


def make_quarantine(folder: Path) -> Path:
    """Make a new folder for what is damaged. Raises OSError."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for number in range(1000):
        made = folder / _QUARANTINE / (stamp if not number else f"{stamp}-{number}")
        made.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            made.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return made
    raise FileExistsError(made)


def set_body_aside(folder: Path, message_id: int, octets: bytes) -> None:
    """Keep what is left of a damaged body, header and all. Raises OSError."""
    bodies = folder / _QUARANTINE / "bodies"
    bodies.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(bodies / f"message-{message_id}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:  # noqa: PTH123 - it takes the descriptor
        file.write(octets)


def check_log(folder: Path) -> None:
    """Look for commits that SQLite passed over as it opened the index. Raises StoreDamaged, OSError.

    A power cut spoils the last commit alone, for each is synced before the next one is written: two of the same log
    behind its end were cut off by damage in front of them.
    """
    lost = 0
    with (folder / LOG).open("rb") as log:
        octets = log.read(WAL_HEADER.size)
        if len(octets) < WAL_HEADER.size or not any(octets):
            return
        header = read_header(octets)
        length = os.fstat(log.fileno()).st_size
        step = FRAME.size + (4096 if header is None else header.page_size)
        allowed = 1 if header is not None else 0
        first = 0 if header is None else _frames_that_count(folder)
        salts: tuple[int, ...] | None = None if header is None else header.salts
        for at in range(WAL_HEADER.size + first * step, length - step + 1, step):
            _, commit, *rest = FRAME.unpack(os.pread(log.fileno(), FRAME.size, at))
            salts = salts or tuple(rest[:2])
            lost += bool(commit) and tuple(rest[:2]) == salts
    if lost > allowed:
        raise StoreDamaged(str(folder / LOG), f"it is damaged, and {lost} commits lie behind the damage")


def _frames_that_count(folder: Path) -> int:
    with (folder / _SHARED).open("rb") as shared:
        (frames,) = struct.unpack_from("=I", shared.read(64), _FRAMES_THAT_COUNT)
    return int(frames)


def look(folder: Path) -> None:
    """Look at every page of the index and its log; an empty note is a person's, who asks for a new index in any case.

    Raises StoreDamaged, OSError.
    """
    note = folder / NOTED
    if note.exists() and not note.stat().st_size:
        raise StoreDamaged(str(folder / INDEX), "as was asked for")
    with closing(PageImage(folder / INDEX, folder / LOG)) as image:
        if image.lost_frames or image.damaged:
            raise StoreDamaged(str(folder / INDEX), f"{len(image.damaged)} of its {image.pages} pages are damaged")


def mend(folder: Path, why: StoreDamaged, *, now: int) -> list[str]:
    """Put a new index in the place of a damaged one; tell what was found and done, a sentence each.

    Raises HaltsLost, StoreCorrupt, apsw.Error, OSError; then nothing was changed.
    """
    index, log, made = folder / INDEX, folder / LOG, folder / _MADE
    with closing(PageImage(index, log)) as image:
        result = salvage(
            image,
            folder / _MAKING,
            promises=read_promises(folder / HALTS),
            segments=folder / "segments",
            now=now,
            accept_lost_halts=(folder / ACCEPT).exists(),
        )
    quarantine = make_quarantine(folder)
    for path in (index, log, folder / HALTS, folder / NOTED):
        with suppress(FileNotFoundError):
            os.link(path, quarantine / path.name)
    if result.bodies:
        bodies = quarantine / "segments"
        bodies.mkdir(mode=0o700)
        for path in (folder / "segments").iterdir():
            os.link(path, bodies / path.name)
    (folder / _MAKING).rename(made)
    sync_folder(quarantine)
    finish(folder)
    return [
        f"{why}: the index was made anew",
        *result.told,
        f"the damaged files are in {quarantine}" + (", with all bodies as they are now" if result.bodies else ""),
    ]


def finish(folder: Path) -> None:
    """Put a new index that is whole in its place; nothing to do without one. Raises OSError."""
    made = folder / _MADE
    if made.exists():
        sync_folder(folder)  # it has its name for good before the log of the old one goes
        for name in (LOG, _SHARED, NOTED):
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
        made.rename(folder / INDEX)
        sync_folder(folder)
