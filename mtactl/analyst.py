"""Analyses of campaigns, made of what the store has on disk without holding anyone up.

One is made at a time, a page of recipients after another, each counted by the store's reader in a few milliseconds and
followed by a pause as long; a campaign of five million takes some twenty seconds. What was made is kept until the
campaign's counts change.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace

from mtactl.campaign.analysis import Analysis
from mtactl.campaign.ledger import Account, Final
from mtactl.core import Core
from queue_store.records import AnalysisPage, Outcome, QueuedState

__all__ = ["Analyst", "CampaignAnalysis"]

_PAGE = 4_000  # recipients
_REPLIES = 50_000  # of an outcome that are looked at; of more, one in so many
_KEPT = 16  # analyses
_SETTLED_IN = 1.0  # seconds that what is known already may take to be on disk
_LEAST_PAUSE = 0.001

_NAMES = {outcome: outcome.name.lower() for outcome in Outcome}


class CampaignAnalysis:
    """An analysis: of which counts it was made, and how many replies stand for each that was looked at."""

    __slots__ = ("account", "analysis", "one_in")

    def __init__(self, account: Account, analysis: Analysis, one_in: Mapping[str, int]) -> None:
        self.account = account
        self.analysis = analysis
        self.one_in = one_in


class Analyst:
    """Makes analyses of the campaigns of a node. Called from the event loop's thread."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._busy = asyncio.Lock()
        self._kept: OrderedDict[str, CampaignAnalysis] = OrderedDict()

    async def analyse(self, campaign: str, *, wanted: Callable[[], bool] = lambda: True) -> CampaignAnalysis | None:
        """Give the analysis of a known campaign; None when it was not `wanted` any more before it was made.

        Raises StoreError.
        """
        async with self._busy:
            account = replace(self._core.ledger.account(campaign))
            kept = self._kept.get(campaign)
            if kept is not None and kept.account == account:
                self._kept.move_to_end(campaign)
                return kept
            made = await self._make(campaign, account, wanted)
            if made is not None and _agrees(made.analysis, account):
                self._kept[campaign] = made
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            return made

    async def _make(self, campaign: str, account: Account, wanted: Callable[[], bool]) -> CampaignAnalysis | None:
        halt = self._core.halter.halts.get(campaign)
        analysis = Analysis(None if halt is None else halt.requested_at // 1_000_000)
        one_in = {final.value: _one_in(getattr(account, final.value)) for final in Final}
        one_in["deferred"] = _one_in(account.deferred)
        looked_at: dict[Outcome | None, int] = {outcome: one_in[name] for outcome, name in _NAMES.items()}
        looked_at[None] = one_in["deferred"]
        # The counts may be ahead of the disk by a commit, or by more when that is full.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._core.settler.drain(), _SETTLED_IN)
        above: int | None = 0
        while above is not None:
            if not wanted():
                return None
            began = time.monotonic()
            page = await self._core.store.analyse(campaign, looked_at, above=above, limit=_PAGE)
            await asyncio.to_thread(_enter, analysis, page)
            above = page.above
            if above is not None:
                await asyncio.sleep(max(_LEAST_PAUSE, time.monotonic() - began))
        return CampaignAnalysis(account, analysis, one_in)


def _enter(analysis: Analysis, page: AnalysisPage) -> None:
    analysis.add(
        waiting=((lane, state is QueuedState.DEFERRED, number) for lane, state, number in page.waiting),
        settled=((lane, _NAMES[outcome], number) for lane, outcome, number in page.settled),
        times=((second, _NAMES[outcome], after, number) for second, outcome, after, number in page.times),
        replies=(
            ("deferred" if outcome is None else _NAMES[outcome], code, reply, number)
            for outcome, code, reply, number in page.replies
        ),
    )


def _one_in(recipients: int) -> int:
    return max(1, -(-recipients // _REPLIES))


def _agrees(analysis: Analysis, account: Account) -> bool:
    """Whether an analysis has all that is counted: what was not yet on disk must not be left out for ever."""
    totals = analysis.totals
    return totals["waiting"] == account.queued + account.in_flight and all(
        totals[final.value] == getattr(account, final.value) for final in Final
    )
