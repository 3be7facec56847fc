"""A model of a disk behind a write cache: what is on it for certain, and what may be there if the power goes now.

What is for certain: a file's content when its last sync began that has ended, and each write that was made durable by
itself; a folder's names likewise. All else reaches the disk by sectors, pages, sizes and names in any order, or not at
all:
    - each page (4096 octets) is as after some of the writes to it since, each sector (512) of a torn one by itself;
    - a file's size is one of those that it has had since; what was not written of a grown file is zeros;
    - a cut is there or not, and what was written behind it only if it is;
    - each name is what it was at some time since: made, removed, or the file before.
Pages of a shared mapping are written like others, at no time in particular.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.powercut.recording import Event

SECTOR = 512
PAGE = 4096
MOMENTS = 6


@dataclass(slots=True, eq=False)
class Change:
    """A write (`data`), or a new size."""

    offset: int
    data: bytes | None
    number: int  # of its event
    sync: int = 0  # of a write that is to be durable by itself
    durable: bool = False
    mapped: bool = False

    @property
    def end(self) -> int:
        """Where it ends; of a size, that."""
        return self.offset + len(self.data or b"")

    def apply(self, content: bytearray) -> None:
        """Do it."""
        if self.data is None:
            del content[self.offset :]
            content.extend(bytes(self.offset - len(content)))
            return
        data = self.data[: max(0, len(content) - self.offset)] if self.mapped else self.data
        content.extend(bytes(max(0, self.offset + len(data) - len(content))))
        content[self.offset : self.offset + len(data)] = data


@dataclass(slots=True, eq=False)
class File:
    """A file: what is on the disk for certain, and what changed since."""

    certain: bytearray = field(default_factory=bytearray)
    changes: list[Change] = field(default_factory=list)
    content: bytearray = field(default_factory=bytearray)  # as its processes see it
    syncs: dict[int, int] = field(default_factory=dict)  # by its number, the event at which one began

    def change(self, change: Change) -> None:
        """Take a change into the cache."""
        change.apply(self.content)
        if change.mapped:  # it may have been written at each of a thousand moments: a few are enough
            before = [each for each in self.changes if each.mapped and each.offset == change.offset]
            if len(before) >= MOMENTS:
                self.changes.remove(before[1])
        self.changes.append(change)

    def end_sync(self, number: int) -> None:
        """What changed before the sync began is on the disk now."""
        begun = self.syncs.pop(number)
        while self.changes and self.changes[0].number < begun:
            self.changes.pop(0).apply(self.certain)

    def end_write(self, sync: int) -> None:
        """A write that was to be durable by itself is."""
        for change in self.changes:
            if change.sync == sync:
                change.durable = True
        while self.changes and self.changes[0].durable:
            self.changes.pop(0).apply(self.certain)

    def after_cut(self, chance: random.Random | None, keep: float) -> bytes:
        """Give a content that a cut may leave; without chance, the one with nothing that is uncertain."""
        changes = self.changes[: self._first_cut_lost(chance, keep)]
        pages: dict[int, dict[int, int]] = defaultdict(dict)  # which changes touch a page: the how many-eth of them
        least: dict[int, int] = defaultdict(int)  # how many of them are there for certain
        for place, change in enumerate(changes):
            if change.data:
                for page in range(change.offset // PAGE, (change.end - 1) // PAGE + 1):
                    pages[page][place] = len(pages[page])
                    if change.durable:
                        least[page] = len(pages[page])
        versions = {
            page: _choose_versions(len(touching), least[page], chance, keep) for page, touching in pages.items()
        }
        content = bytearray(self.certain)
        sizes = [len(content)]
        surest = len(content)  # it has at least so many octets
        for place, change in enumerate(changes):
            if change.data is None:
                if change.offset < len(content):
                    change.apply(content)
                if change.offset < sizes[-1]:
                    sizes, surest = [change.offset], change.offset  # a cut that is there
                else:
                    sizes.append(change.offset)
                continue
            for start, end in _sectors(change):
                touching = pages[start // PAGE]
                if touching[place] < versions[start // PAGE][start % PAGE // SECTOR]:
                    piece = change.data[start - change.offset : end - change.offset]
                    Change(start, piece, 0, mapped=change.mapped).apply(content)
            if change.end > sizes[-1] and not change.mapped:
                sizes.append(change.end)
            if change.durable:
                surest = max(surest, change.end)
        sizes = [surest] + [size for size in sizes if size > surest]
        size = sizes[0 if chance is None else _choose(len(sizes) - 1, 0, chance, keep)]
        return bytes(content[:size]) + bytes(max(0, size - len(content)))

    def _first_cut_lost(self, chance: random.Random | None, keep: float) -> int:
        """Give the place of the first cut that is not there, and with it nothing that came behind."""
        size = len(self.certain)
        cuts: list[int] = []
        for place, change in enumerate(self.changes):
            if change.durable:
                cuts.clear()
            if change.data is None and change.offset < size:
                cuts.append(place)
            size = change.offset if change.data is None else size if change.mapped else max(size, change.end)
        if cuts and chance is None:
            return cuts[0]
        for place in cuts:
            if chance is not None and chance.random() > keep:
                return place
        return len(self.changes)


@dataclass(slots=True, eq=False)
class Folder:
    """A folder: its names on the disk for certain, and each change since, as (event, name, what it stands for)."""

    certain: dict[str, File | Folder] = field(default_factory=dict)
    changes: list[tuple[int, str, File | Folder | None]] = field(default_factory=list)
    names: dict[str, File | Folder] = field(default_factory=dict)
    syncs: dict[int, int] = field(default_factory=dict)

    def change(self, number: int, name: str, node: File | Folder | None) -> None:
        """Have a name stand for something else, or nothing."""
        self.changes.append((number, name, node))
        _set(self.names, name, node)

    def end_sync(self, number: int) -> None:
        """What changed before the sync began is on the disk now."""
        begun = self.syncs.pop(number)
        while self.changes and self.changes[0][0] < begun:
            _set(self.certain, *self.changes.pop(0)[1:])

    def after_cut(self, chance: random.Random | None, keep: float) -> dict[str, File | Folder]:
        """Give the names that a cut may leave."""
        versions: dict[str, list[File | Folder | None]] = {name: [node] for name, node in self.certain.items()}
        for _, name, node in self.changes:
            versions.setdefault(name, [None]).append(node)
        chosen = {
            name: of[0 if chance is None else _choose(len(of) - 1, 0, chance, keep)] for name, of in versions.items()
        }
        return {name: node for name, node in chosen.items() if node is not None}


class Disk:
    """The disk below one folder, which has what it had when the record began. `take` is given each event of it.

    Where it is not `honest`, a sync does nothing.
    """

    def __init__(self, root: Path, inode: int, *, honest: bool = True) -> None:
        self.root_path = root
        self.root = Folder()
        self.inodes: dict[int, File | Folder] = {inode: self.root}
        self.number = 0
        self.honest = honest

    def load(self, folder: Path, inodes: Mapping[Path, int]) -> None:
        """Take a copy of what was in the folder for what is on the disk for certain; inodes are by relative path."""
        self._load(folder, self.root, folder, inodes)

    def _load(self, path: Path, into: Folder, top: Path, inodes: Mapping[Path, int]) -> None:
        for entry in path.iterdir():
            content = bytearray() if entry.is_dir() else bytearray(entry.read_bytes())
            node = Folder() if entry.is_dir() else File(certain=content, content=bytearray(content))
            self.inodes[inodes[entry.relative_to(top)]] = into.certain[entry.name] = into.names[entry.name] = node
            if isinstance(node, Folder):
                self._load(entry, node, top, inodes)

    def take(self, event: Event) -> None:
        """Do what was done."""
        self.number += 1
        match event.kind:
            case "C" | "M":
                node = self.inodes[event.file] = File() if event.kind == "C" else Folder()
                self._parent(event.path).change(self.number, Path(event.path).name, node)
            case "U":
                self._parent(event.path).change(self.number, Path(event.path).name, None)
            case "R":  # two names change, and nothing here says that they do so together
                before = event.data.decode()
                self._parent(before).change(self.number, Path(before).name, None)
                self._parent(event.path).change(self.number, Path(event.path).name, self.inodes[event.file])
            case "W" | "P":
                change = Change(event.first, event.data, self.number, sync=event.second, mapped=event.kind == "P")
                self._file(event).change(change)
            case "T":
                self._file(event).change(Change(event.first, None, self.number))
            case "A":
                file = self._file(event)
                if event.first + event.second > len(file.content):
                    file.change(Change(event.first + event.second, None, self.number))
            case "S":
                self.inodes[event.file].syncs[event.first] = self.number
            case "s" if self.honest:
                self.inodes[event.file].end_sync(event.first)
            case "w" if self.honest:
                self._file(event).end_write(event.first)

    def write(self, folder: Path, chance: random.Random | None, keep: float = 0.0) -> None:
        """Write what a cut may leave into an empty folder: what is for certain, and by chance some of the rest."""
        _write(folder, self.root, chance, keep)

    def write_all(self, folder: Path) -> None:
        """Write what the processes have seen: what is there when no power is cut."""
        _write_all(folder, self.root)

    def _file(self, event: Event) -> File:
        file = self.inodes[event.file]
        assert isinstance(file, File)
        return file

    def _parent(self, path: str) -> Folder:
        folder = self.root
        for name in Path(path).relative_to(self.root_path).parts[:-1]:
            found = folder.names[name]
            assert isinstance(found, Folder)
            folder = found
        return folder


def _write(path: Path, folder: Folder, chance: random.Random | None, keep: float) -> None:
    for name, node in folder.after_cut(chance, keep).items():
        if isinstance(node, Folder):
            (path / name).mkdir()
            _write(path / name, node, chance, keep)
        else:
            (path / name).write_bytes(node.after_cut(chance, keep))


def _write_all(path: Path, folder: Folder) -> None:
    for name, node in folder.names.items():
        if isinstance(node, Folder):
            (path / name).mkdir()
            _write_all(path / name, node)
        else:
            (path / name).write_bytes(node.content)


def _set(names: dict[str, File | Folder], name: str, node: File | Folder | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _choose(most: int, least: int, chance: random.Random, keep: float) -> int:
    """Choose how many of `most` changes are there: all with odds of `keep`, else any number."""
    return most if chance.random() < keep else chance.randint(least, most)


def _choose_versions(most: int, least: int, chance: random.Random | None, keep: float) -> list[int]:
    """Choose for each sector of a page how many of the changes to the page are there; it may be torn."""
    if chance is None:
        return [least] * (PAGE // SECTOR)
    one = _choose(most, least, chance, keep)
    if chance.random() < 0.7:
        return [one] * (PAGE // SECTOR)
    other = chance.randint(least, most)
    return [chance.choice((one, other)) for _ in range(PAGE // SECTOR)]


def _sectors(change: Change) -> Iterator[tuple[int, int]]:
    start = change.offset
    while start < change.end:
        end = min(change.end, (start // SECTOR + 1) * SECTOR)
        yield start, end
        start = end
