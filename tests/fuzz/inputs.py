"""The inputs that a target begins with: its seeds, and those that once failed (`found/TARGET/`, a file each)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

FOUND = Path(__file__).parent / "found"


def found(target: str) -> dict[str, bytes]:
    """Give the inputs that once failed, by name."""
    folder = FOUND / target
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.is_dir() else {}


def write_seeds(folder: Path, seeds: Iterable[bytes]) -> None:
    """Write each into a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


def write_dictionary(path: Path, words: Iterable[bytes]) -> None:
    """Write words in the form that libFuzzer reads."""
    lines = ["".join(f"\\x{octet:02X}" for octet in word) for word in words]
    path.write_text("".join(f'"{line}"\n' for line in lines))
