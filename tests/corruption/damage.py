"""Damage to the files of a store, drawn from a seed: flipped bits, blocks written over, cut tails, lost files."""

from __future__ import annotations

import random
from pathlib import Path

MANNERS = ("flip", "flip", "flip", "zero", "noise", "cut", "delete")


def files_of(folder: Path) -> dict[str, list[Path]]:
    """Give the files that can be damaged, by what they are."""
    named = {
        "index": [folder / "queue.db"],
        "log": [folder / "queue.db-wal"],
        "segments": sorted((folder / "segments").iterdir()),
        "halts": [folder / "halts"],
        "attempts": [folder / "attempts"],
        "reserve": [folder / "reserve"],
        "lock": [folder / "lock"],
    }
    present = {kind: [path for path in paths if path.exists()] for kind, paths in named.items()}
    return {kind: paths for kind, paths in present.items() if paths}


def damage(folder: Path, draw: random.Random, kinds: tuple[str, ...] | None = None) -> list[tuple[str, str, str]]:
    """Damage a store; give what was done: the kind of file, the manner, and a text for people."""
    files = files_of(folder)
    weights = {"index": 4, "log": 3, "segments": 3, "halts": 2}
    pool = [kind for kind in files for _ in range(weights.get(kind, 1)) if kinds is None or kind in kinds]
    kind = draw.choice(pool)
    done = []
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        path = draw.choice(files[kind])
        if path.exists():
            done.append(_damage(kind, path, draw))
    return done


def _damage(kind: str, path: Path, draw: random.Random) -> tuple[str, str, str]:
    size = path.stat().st_size
    manner = draw.choice(MANNERS)
    if manner == "delete" or size == 0:
        path.unlink()
        return kind, "delete", f"{path.name} deleted"
    if manner == "cut":
        length = draw.choice((0, draw.randrange(size), size - size % 4096 - 4096, max(0, size - draw.randrange(1, 64))))
        length = max(0, length)
        with path.open("r+b") as file:
            file.truncate(length)
        return kind, manner, f"{path.name} cut from {size} to {length}"
    at = _place(path, size, draw)
    with path.open("r+b") as file:
        file.seek(at)
        if manner == "flip":
            octet = file.read(1)[0] ^ 1 << draw.randrange(8)
            new = bytes([octet])
        else:
            length = min(draw.choice((1, 16, 512, 4096, 4096)), size - at)
            if length == 4096:
                at -= at % 4096
            new = bytes(length) if manner == "zero" else draw.randbytes(length)
        file.seek(at)
        file.write(new)
    return kind, manner, f"{path.name}: {manner} of {len(new)} octets at {at} of {size}"


def _place(path: Path, size: int, draw: random.Random) -> int:
    """Draw an octet; in a file that is mostly empty, one of its beginning as often as not."""
    if path.name in ("attempts", "halts") and draw.random() < 0.7:
        return draw.randrange(min(size, 5000))
    if draw.random() < 0.1:
        return draw.randrange(min(size, 100))
    return draw.randrange(size)
