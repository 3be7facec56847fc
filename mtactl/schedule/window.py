"""A lane's window: the claims that it holds in memory, handed out fairly over its campaigns.

Mail that belongs to no campaign goes first; then each campaign has its turn, one claim a turn, so a campaign of a
million does not starve one of ten. All operations are O(1), but `evict`, `remove` and `drain`, which are linear.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec.structs import replace

from queue_store.records import Claim

__all__ = ["Window"]


class Window:
    """Claims by campaign, and whose turn it is."""

    __slots__ = ("_campaigns", "_turns", "recipients")

    def __init__(self) -> None:
        self._campaigns: dict[str, deque[Claim]] = {}
        self._turns: deque[str] = deque()
        self.recipients = 0

    def __len__(self) -> int:
        return sum(map(len, self._campaigns.values()))

    def __bool__(self) -> bool:
        return self.recipients > 0

    def push(self, claim: Claim) -> None:
        """Add a claim behind those of its campaign."""
        campaign = claim.message.campaign
        waiting = self._campaigns.get(campaign)
        if waiting is None:
            waiting = self._campaigns[campaign] = deque()
            if campaign:
                self._turns.append(campaign)
        waiting.append(claim)
        self.recipients += len(claim.recipients)

    def put_back(self, claim: Claim) -> None:
        """Give back a claim that was popped in this tick: it is the next to be popped again."""
        campaign = claim.message.campaign
        waiting = self._campaigns.get(campaign)
        if waiting is None:
            waiting = self._campaigns[campaign] = deque()
        elif campaign:
            self._turns.remove(campaign)
        if campaign:
            self._turns.appendleft(campaign)
        waiting.appendleft(claim)
        self.recipients += len(claim.recipients)

    def pop(self, lets_begin: Callable[[str], bool], *, most: int) -> Claim | None:
        """Take the next claim that the gate lets begin; at most `most` recipients of it, the rest stays in front."""
        if "" in self._campaigns:
            return self._take("", most)
        for _ in range(len(self._turns)):
            campaign = self._turns.popleft()
            if lets_begin(campaign):
                claim = self._take(campaign, most)
                if campaign in self._campaigns:
                    self._turns.append(campaign)
                return claim
            self._turns.append(campaign)
        return None

    def _take(self, campaign: str, most: int) -> Claim:
        waiting = self._campaigns[campaign]
        claim = waiting.popleft()
        if len(claim.recipients) > most:
            waiting.appendleft(replace(claim, recipients=claim.recipients[most:]))
            claim = replace(claim, recipients=claim.recipients[:most])
        if not waiting:
            del self._campaigns[campaign]
        self.recipients -= len(claim.recipients)
        return claim

    def holds(self, campaign: str) -> bool:
        """Whether a claim of the campaign is in the window."""
        return campaign in self._campaigns

    def evict(self, campaign: str) -> list[Claim]:
        """Take all claims of one campaign."""
        waiting = self._campaigns.pop(campaign, None)
        if waiting is None:
            return []
        if campaign:
            self._turns.remove(campaign)
        self.recipients -= sum(len(claim.recipients) for claim in waiting)
        return list(waiting)

    def remove(self, fits: Callable[[Claim], bool]) -> list[Claim]:
        """Take the claims that fit."""
        taken = []
        for claim in self.drain():
            if fits(claim):
                taken.append(claim)
            else:
                self.push(claim)
        return taken

    def drain(self) -> list[Claim]:
        """Take all claims."""
        claims = [claim for waiting in self._campaigns.values() for claim in waiting]
        self._campaigns.clear()
        self._turns.clear()
        self.recipients = 0
        return claims
