"""What the control server asks of the daemon. app hands it an implementation; tests may hand it another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from typing import Protocol

from mtactl.control.types import (
    CampaignAnalysis,
    CampaignOrder,
    CampaignReport,
    CampaignState,
    Event,
    LaneOrder,
    LaneRow,
    QueueChanged,
    QueueMessage,
    QueueRecipient,
    QueueSelection,
    RecipientRow,
    ReloadReport,
    RequestedBy,
    Status,
)

__all__ = ["Node"]


class Node(Protocol):
    """The daemon, as its operators see it. Campaign ids were checked for their form before they come here."""

    def status(self) -> Status:
        """Give the node at a glance."""

    async def campaigns(
        self, state: CampaignState | None, *, match: str = "", sort: CampaignOrder = "name", limit: int
    ) -> tuple[Sequence[CampaignReport], int]:
        """Give the reports of the first campaigns that fit, and how many fit: by name, or those with most of a count.

        `match` is a part of the id, in whatever case.
        """

    def report(self, campaign: str) -> CampaignReport:
        """Give a campaign's report. Raises UnknownCampaign."""

    def campaign_ids(self, states: Collection[str] | None) -> Iterable[str]:
        """Give the ids of campaigns in these states, in no order."""

    async def analysis(self, campaign: str, *, wanted: Callable[[], bool]) -> CampaignAnalysis | None:
        """Give what became of a campaign: when, where to, with which replies; None when it is not wanted any more.

        Raises UnknownCampaign, StoreError.
        """

    async def halt(self, campaign: str, *, reason: str | None, by: RequestedBy) -> CampaignReport:
        """Halt a campaign, known or not; return when the halt is durable. Raises StoreError when it can't be."""

    async def hold(self, campaign: str, *, by: RequestedBy) -> CampaignReport:
        """Hold a campaign, known or not. Raises IllegalMove when it is halted."""

    async def release(self, campaign: str, *, by: RequestedBy) -> CampaignReport:
        """Release a held campaign; an active one stays as it is. Raises UnknownCampaign, IllegalMove when halted."""

    def recipients(
        self, campaign: str, *, outcomes: Collection[str] | None, after_stop: bool
    ) -> AsyncIterator[Sequence[RecipientRow]]:
        """Stream the outcomes of a campaign in pages. Raises UnknownCampaign at the call."""

    async def queue(
        self, *, campaign: str | None, domain: str | None, state: str | None, limit: int
    ) -> Sequence[QueueRecipient]:
        """List queued and in-flight recipients, the oldest first."""

    async def message(self, message: str) -> QueueMessage | None:
        """Show one message by its queue id, or None if it was never here (or is forgotten)."""

    async def retry(self, selection: QueueSelection, *, by: RequestedBy) -> QueueChanged:
        """Make deferred recipients ready now, and end the back-off of the lanes meant."""

    async def drop(self, selection: QueueSelection, *, by: RequestedBy) -> QueueChanged:
        """Drop queued recipients that fit."""

    def lanes(
        self, lane: str | None, *, match: str = "", sort: LaneOrder = "name", limit: int
    ) -> tuple[Sequence[LaneRow], int]:
        """Give the first destinations in memory that fit, and how many fit: by name, or those with most of something
        ("backoff": those in back-off, the longest to go first).
        """

    def recent_events(self) -> Sequence[Event]:
        """Give the latest events, the oldest first (a bounded ring)."""

    def follow_events(self, after: int | None, *, outcomes: bool = True) -> AsyncIterator[Event]:
        """Stream events from now on, or those after the given id that are still in the ring first (all of them when
        the id is of an earlier run of the daemon, larger than any of this one). A reader that is too slow gets an
        event of kind "gap" that says how many it missed. Without `outcomes` it gets all other events.
        """

    async def reload(self, *, by: RequestedBy) -> ReloadReport:
        """Read the configuration again. Raises ConfigError; then nothing was changed."""
