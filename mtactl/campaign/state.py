"""What state a campaign is in, and the one table of its moves.

    active --hold--> held --release--> active
    active, held --halt--> halting --complete--> halted

A halt is irreversible: no row leads out of halting but to halted, and none out of halted. Halting again changes nothing
(CONTRACT.md §2.8), so it is a row of its own in both states; the same goes for holding what is held and releasing what
is active.
"""

from __future__ import annotations

import enum

from mtactl.errors import IllegalMove

__all__ = ["CampaignEvent", "CampaignState", "move"]


class CampaignState(enum.Enum):
    """CONTRACT.md §1."""

    ACTIVE = "active"
    HELD = "held"
    HALTING = "halting"
    HALTED = "halted"


class CampaignEvent(enum.Enum):
    """What may be asked of a campaign, or happen to it."""

    HOLD = "hold"
    RELEASE = "release"
    HALT = "halt"
    COMPLETE = "complete"


_MOVES = {
    (CampaignState.ACTIVE, CampaignEvent.HOLD): CampaignState.HELD,
    (CampaignState.ACTIVE, CampaignEvent.RELEASE): CampaignState.ACTIVE,
    (CampaignState.ACTIVE, CampaignEvent.HALT): CampaignState.HALTING,
    (CampaignState.HELD, CampaignEvent.HOLD): CampaignState.HELD,
    (CampaignState.HELD, CampaignEvent.RELEASE): CampaignState.ACTIVE,
    (CampaignState.HELD, CampaignEvent.HALT): CampaignState.HALTING,
    (CampaignState.HALTING, CampaignEvent.HALT): CampaignState.HALTING,
    (CampaignState.HALTING, CampaignEvent.COMPLETE): CampaignState.HALTED,
    (CampaignState.HALTED, CampaignEvent.HALT): CampaignState.HALTED,
}


def move(campaign: str, state: CampaignState, event: CampaignEvent) -> CampaignState:
    """Give the state that the event leads to. Raises IllegalMove, which names campaign, state and event."""
    after = _MOVES.get((state, event))
    if after is None:
        raise IllegalMove(campaign, state.value, event.value)
    return after
