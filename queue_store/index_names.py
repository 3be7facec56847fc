"""Campaigns and lanes by name: the ids that stand for them in the rows, cached in the committer's thread."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queue_store.index import Index

__all__ = ["CampaignEntry", "Campaigns", "Lanes"]

_LANES_CACHED = 100_000


class CampaignEntry:
    """What the committer needs to know of a campaign at each of its mails."""

    __slots__ = ("halted", "held", "id", "name")

    def __init__(self, number: int, name: str, *, held: bool, halted: bool) -> None:
        self.id = number
        self.name = name
        self.held = held
        self.halted = halted


class Campaigns:
    """All campaigns, in memory: they are kept for ever in the index too, and a hundred thousand take some 30 MB."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._by_name: dict[str, CampaignEntry] = {}
        self._by_id: dict[int, CampaignEntry] = {}
        rows = index.db.execute(
            "SELECT c.id, c.name, c.held, h.campaign_id IS NOT NULL FROM campaigns c LEFT JOIN halts h"
            " ON h.campaign_id = c.id"
        )
        for number, name, held, halted in rows:
            self._add(CampaignEntry(number, name, held=bool(held), halted=bool(halted)))

    def find(self, name: str) -> CampaignEntry | None:
        """Give the campaign, if it is known."""
        return self._by_name.get(name)

    def of_id(self, number: int) -> CampaignEntry:
        """Give the campaign with an id that came out of the index."""
        return self._by_id[number]

    def intern(self, name: str) -> CampaignEntry:
        """Give the campaign; make it known, in this transaction, if it is not."""
        entry = self._by_name.get(name)
        if entry is None:
            self._index.db.execute("INSERT INTO campaigns (name) VALUES (?)", (name,))
            entry = CampaignEntry(self._index.db.last_insert_rowid(), name, held=False, halted=False)
            self._add(entry)
            self._index.on_rollback(lambda: self._forget(name))
            journal = self._index.journal
            if journal is not None:
                number = entry.id
                self._index.after_commit(lambda: journal.note_campaign(number, name))
        return entry

    def mark(self, entry: CampaignEntry, *, held: bool | None = None, halted: bool | None = None) -> None:
        """Change what is cached of a campaign, as this transaction changes it in the index."""
        before = entry.held, entry.halted

        def restore() -> None:
            entry.held, entry.halted = before

        self._index.on_rollback(restore)
        if held is not None:
            entry.held = held
        if halted is not None:
            entry.halted = halted

    def _add(self, entry: CampaignEntry) -> None:
        self._by_name[entry.name] = entry
        self._by_id[entry.id] = entry

    def _forget(self, name: str) -> None:
        del self._by_id[self._by_name.pop(name).id]


class Lanes:
    """Lanes by name. A bounded part is cached: there may be as many as there are domains."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._cache: dict[str, int] = {}

    def is_cached(self, name: str) -> bool:
        """Whether the lane's id is known without a look into the index."""
        return name in self._cache

    def find(self, name: str) -> int | None:
        """Give the lane's id, if it is known."""
        number = self._cache.get(name)
        if number is None:
            number = self._index.value("SELECT id FROM lanes WHERE name = ?", (name,))
            if number is not None:
                self._keep(name, number)
        return number

    def intern(self, name: str) -> int:
        """Give the lane's id; make it known, in this transaction, if it is not."""
        number = self._cache.get(name)
        if number is not None:
            return number
        number = self.find(name)
        if number is None:
            self._index.db.execute("INSERT INTO lanes (name) VALUES (?)", (name,))
            number = self._index.db.last_insert_rowid()
            self._keep(name, number)
            self._index.on_rollback(lambda: self._cache.pop(name, None))
        return number

    def names(self, numbers: Iterable[int]) -> frozenset[str]:
        """Give the names of lanes by their ids."""
        rows = self._index.db.execute(
            "SELECT name FROM lanes WHERE id IN (SELECT value FROM json_each(?))", (str(list(numbers)),)
        )
        return frozenset(name for (name,) in rows)

    def _keep(self, name: str, number: int) -> None:
        if len(self._cache) >= _LANES_CACHED:
            self._cache.clear()
        self._cache[name] = number
