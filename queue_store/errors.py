"""The store's failures. Each carries the data that the caller needs to answer with."""

from __future__ import annotations

__all__ = [
    "CampaignHalted",
    "HaltsLost",
    "StoreClosed",
    "StoreCorrupt",
    "StoreDamaged",
    "StoreError",
    "StoreFailed",
    "StoreFull",
    "StoreLocked",
    "StoreUnusable",
]


class StoreError(Exception):
    """Any failure of the queue store."""


class StoreFull(StoreError):
    """Refuse a write because the file system has no room beside the reserve."""

    def __init__(self, path: str, free: int) -> None:
        super().__init__(f"no room in {path}: {free} bytes are free beside the reserve")
        self.path = path
        self.free = free


class StoreFailed(StoreError):
    """A write or an fsync failed (EIO, EROFS): the store takes no more writes until it is opened anew."""


class StoreCorrupt(StoreError):
    """A file says what it can't have been told: a checksum, a magic number or a length does not fit."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.path = path
        self.what = what


class StoreDamaged(StoreCorrupt):
    """The index is damaged: what it promises can't be kept from here on. Opening the store anew mends it."""


class HaltsLost(StoreCorrupt):
    """What was halted can't be read, neither from the index nor from its copy: nothing may begin."""

    def __init__(self, path: str, journal: str) -> None:
        super().__init__(
            path,
            "it is damaged so that halts may be lost from it, and their copy can't make up for it (halts:"
            f" {journal}). Nothing is begun, since it could be of a halted campaign. Restore `halts` or the whole"
            " folder from a backup; or, to go on without the halts that are lost, make an empty file"
            " `accept-lost-halts` in the folder, start again, and halt again what was halted",
        )


class StoreLocked(StoreError):
    """Another process has the store open."""

    def __init__(self, path: str, pid: int | None) -> None:
        holder = "another process" if pid is None else f"process {pid}"
        super().__init__(f"{path} is in use by {holder}")
        self.path = path
        self.pid = pid


class StoreClosed(StoreError):
    """The store was closed before this operation could become durable."""


class CampaignHalted(StoreError):
    """The message's campaign is halted: it is not stored."""

    def __init__(self, campaign: str) -> None:
        super().__init__(f"campaign {campaign} is halted")
        self.campaign = campaign


class StoreUnusable(StoreError):
    """The folder of a store, or a file in it, can't be used: rights, a read-only file system, something else there."""
