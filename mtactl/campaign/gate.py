"""The gate: the one place that lets a transaction of a campaign begin.

It lives in memory and is asked in the very tick in which `MAIL FROM` is written, so closing it stops a campaign of any
size at once. Only campaigns that are not active are in the table: asking about an active one is a look-up that misses.
Mail that belongs to no campaign (the empty name) passes always.
"""

from __future__ import annotations

from collections.abc import Iterator

from mtactl.campaign.state import CampaignEvent, CampaignState, move
from mtactl.errors import CampaignError

__all__ = ["Gate"]

_CLOSED = frozenset({CampaignState.HALTING, CampaignState.HALTED})


class Gate:
    """The state of every campaign that is not simply active."""

    __slots__ = ("_states",)

    def __init__(self) -> None:
        self._states: dict[str, CampaignState] = {}

    def lets_begin(self, campaign: str) -> bool:
        """Whether a transaction of the campaign may begin now. The answer holds for this tick only."""
        return campaign not in self._states

    def is_closed(self, campaign: str) -> bool:
        """Whether the campaign is halting or halted."""
        return self._states.get(campaign) in _CLOSED

    def state(self, campaign: str) -> CampaignState:
        """Give the campaign's state; one that was never heard of is active."""
        return self._states.get(campaign, CampaignState.ACTIVE)

    def move(self, campaign: str, event: CampaignEvent) -> CampaignState:
        """Apply an event and give the new state. Raises IllegalMove, and CampaignError for mail of no campaign."""
        if not campaign:
            raise CampaignError(campaign, "mail that belongs to no campaign can't be stopped by campaign")
        after = move(campaign, self.state(campaign), event)
        if after is CampaignState.ACTIVE:
            self._states.pop(campaign, None)
        else:
            self._states[campaign] = after
        return after

    def held(self) -> Iterator[str]:
        """Give the campaigns that are held."""
        return self.in_state(CampaignState.HELD)

    def in_state(self, state: CampaignState) -> Iterator[str]:
        """Give the campaigns in a state other than active."""
        return (campaign for campaign, each in self._states.items() if each is state)

    def counts(self) -> dict[CampaignState, int]:
        """Give how many campaigns are in each state other than active."""
        counts = dict.fromkeys(CampaignState, 0)
        for state in self._states.values():
            counts[state] += 1
        return counts
