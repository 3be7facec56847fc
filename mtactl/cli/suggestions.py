"""What may have been meant: ids and lanes for the shell's completion, and the known ids nearest to a mistyped one.

The daemon is asked for a moment only, and what goes wrong says nothing: a suggestion is a courtesy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import click
from click.shell_completion import CompletionItem

from mtactl.cli.client import Client
from mtactl.cli.failures import Failure
from mtactl.cli.session import DEFAULT_SOCKET, SOCKET_KEY, is_campaign_start
from mtactl.control.types import CampaignIds, LaneList

__all__ = ["complete_campaign", "complete_lane", "nearest", "nearest_campaigns"]

_MOMENT = 0.6  # seconds without an octet while somebody waits for the TAB key
_LOOK = 2.0  # seconds, after a mistake
_OFFERED = 200
_COMPARED = 10_000
_NEAR = 3

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem[Any]]]


def complete_campaign(*states: str) -> Complete:
    """Give what completes a campaign's id, of those in these states or of all."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
        if incomplete and not is_campaign_start(incomplete):
            return []
        try:
            found = _client(ctx, _MOMENT).get(
                "/v1/campaign-ids", CampaignIds, prefix=incomplete or None, state=states or None, limit=_OFFERED
            )
        except Failure:
            return []
        return [CompletionItem(name) for name in found.value.campaigns if is_campaign_start(name)]

    return complete


def complete_lane(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
    """Complete the name of a destination that is in memory."""
    try:
        found = _client(ctx, _MOMENT).get("/v1/lanes", LaneList)
    except Failure:
        return []
    start = incomplete.lower()
    names = (row.lane for row in found.value.lanes)
    # A lane's name comes from an address; what a shell would take for more than a word is not offered.
    return [CompletionItem(name) for name in names if name.startswith(start) and _is_plain(name)][:_OFFERED]


def nearest_campaigns(client: Client, campaign: str) -> Sequence[str]:
    """Give the known ids that a mistyped one is most like."""
    try:
        found = client.get("/v1/campaign-ids", CampaignIds, patience=_LOOK, limit=_COMPARED)
    except Failure:
        return ()
    return nearest(campaign, found.value.campaigns)


def nearest(word: str, known: Iterable[str]) -> Sequence[str]:
    """Give the words that one is most like, best first: the case counts for nothing, a common beginning for much."""
    by_fold: dict[str, list[str]] = {}
    for each in known:
        by_fold.setdefault(each.casefold(), []).append(each)
    fold = word.casefold()
    found = [fold] if fold in by_fold else []
    found += get_close_matches(fold, by_fold, n=_NEAR)
    if len(fold) >= _NEAR:
        found += sorted(each for each in by_fold if each.startswith(fold))[:_NEAR]
    names = [name for each in dict.fromkeys(found) for name in by_fold[each]]
    return names[:_NEAR]


def _client(ctx: click.Context, patience: float) -> Client:
    """Give a client of the socket that the line so far names."""
    socket = ctx.meta.get(SOCKET_KEY) or ctx.find_root().params.get("socket") or os.environ.get("MTACTL_SOCKET")
    return Client(str(socket or DEFAULT_SOCKET), patience=patience)


def _is_plain(name: str) -> bool:
    return name.isascii() and all(each.isalnum() or each in "._-" for each in name)
