"""The daemon's own failures. The queue store's are in queue_store.errors; third-party ones are mapped at the edge where
the library is met.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtactl.message.reply import Reply

__all__ = [
    "CampaignError",
    "ConfigError",
    "IllegalMove",
    "LocalShortage",
    "MtactlError",
    "PermanentFailure",
    "TransientFailure",
    "UnknownCampaign",
]


class MtactlError(Exception):
    """Any failure that the daemon raises itself."""


class ConfigError(MtactlError):
    """The configuration can't be used; `problems` has one sentence for each thing that is wrong with it."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class CampaignError(MtactlError):
    """A command about a campaign can't be done."""

    def __init__(self, campaign: str, what: str) -> None:
        super().__init__(f"campaign {campaign}: {what}")
        self.campaign = campaign
        self.what = what


class UnknownCampaign(CampaignError):
    """No mail, hold or halt of that campaign was ever seen on this node."""

    def __init__(self, campaign: str) -> None:
        super().__init__(campaign, "not known on this node")


class IllegalMove(CampaignError):
    """A state machine was asked for a move that its table does not have."""

    def __init__(self, campaign: str, state: str, event: str) -> None:
        super().__init__(campaign, f"{event} is not possible while it is {state}")
        self.state = state
        self.event = event


class DeliveryFailure(MtactlError):
    """No session to a destination could be had; `reply` is the peer's, or ours in its form (RFC 3463 codes)."""

    def __init__(self, reply: Reply, peer: str = "") -> None:
        super().__init__(f"{peer}: {reply}" if peer else str(reply))
        self.reply = reply
        self.peer = peer


class TransientFailure(DeliveryFailure):
    """A later attempt may do (no answer, 4yz, DNS time-out)."""


class LocalShortage(TransientFailure):
    """This machine lacks what a connection takes (descriptors, memory), which is no fault of the destination."""


class PermanentFailure(DeliveryFailure):
    """No later attempt will do (no such domain, null MX)."""
