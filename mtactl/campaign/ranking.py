"""Which campaigns have most of something, found a few campaigns at a time.

There may be very many, and whoever asks for the first hundred of them asks again in a second: a walk over all must not
keep the event loop for itself, nor build what is then thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter, itemgetter

from mtactl.campaign.ledger import Account

__all__ = ["Ranking"]


class Ranking:
    """The `limit` campaigns with most of a count, of those whose id has `match` in it, in whatever case.

    Counts that change during the walk are taken as they were when the campaign was passed.
    """

    def __init__(self, count: str, limit: int, *, match: str = "") -> None:
        self.total = 0  # how many fit, with those that are not among the first
        self._count = attrgetter(count)
        self._limit = limit
        self._match = match.lower()
        self._first: list[tuple[int, str]] = []
        self._floor = -1  # what a campaign must exceed to be among the first

    def take(self, campaigns: Iterable[tuple[str, Account]]) -> None:
        """Pass some campaigns. The mail of no campaign is none."""
        match = self._match
        if match:
            fitting = [each for each in campaigns if each[0] and match in each[0].lower()]
        else:
            fitting = [each for each in campaigns if each[0]]
        self.total += len(fitting)
        count, floor = self._count, self._floor
        self._first += [(number, name) for name, account in fitting if (number := count(account)) > floor]
        if len(self._first) > self._limit:
            self._first.sort(key=itemgetter(0), reverse=True)
            del self._first[self._limit :]
        if len(self._first) == self._limit:
            self._floor = min(self._first)[0]

    def names(self) -> list[str]:
        """Give the first ones: the largest count first, those with the same by name."""
        return [name for _, name in sorted(self._first, key=lambda each: (-each[0], each[1]))]
