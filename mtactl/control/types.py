"""The wire types of the control API (CONTRACT.md §4), shared by daemon and client. Times are RFC 3339 in UTC."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

__all__ = [
    "CampaignAnalysis",
    "CampaignIds",
    "CampaignList",
    "CampaignOrder",
    "CampaignReport",
    "CampaignState",
    "Counts",
    "Event",
    "HaltBody",
    "LaneCounts",
    "LaneList",
    "LaneOrder",
    "LaneRow",
    "NoBody",
    "OutcomeName",
    "Problem",
    "QueueChanged",
    "QueueList",
    "QueueMessage",
    "QueueRecipient",
    "QueueSelection",
    "QueueState",
    "RecipientRow",
    "ReloadReport",
    "ReplyCount",
    "RequestedBy",
    "Status",
    "Step",
    "StopFacts",
    "Timeline",
]

CampaignState = Literal["active", "held", "halting", "halted"]
QueueState = Literal["ready", "deferred", "scheduled", "held", "in_flight"]
CampaignOrder = Literal[
    "name", "accepted", "queued", "in_flight", "delivered", "delivered_after_stop", "bounced", "dropped", "unknown"
]
LaneOrder = Literal["name", "backoff", "connections", "in_flight", "window", "delivered", "deferred", "bounced"]
OutcomeName = Literal["delivered", "bounced", "expired", "dropped", "unknown"]

# Reasons go to logs and terminals: no control characters.
OneLine = Annotated[str, msgspec.Meta(max_length=500, pattern="^[^\\x00-\\x1f\\x7f-\\x9f]*$")]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Recipients. accepted = queued + in_flight + delivered + bounced + expired + dropped + unknown."""

    accepted: int = 0
    queued: int = 0
    in_flight: int = 0
    delivered: int = 0
    delivered_after_stop: int = 0
    bounced: int = 0
    expired: int = 0
    dropped: int = 0
    unknown: int = 0
    refused: int = 0
    discarded: int = 0


class RequestedBy(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked, by the peer credentials of the control socket."""

    uid: int | None = None
    user: str = ""


class StopFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a halt. `kind` is "cancel" when no transaction of the campaign had begun on this node."""

    kind: Literal["stop", "cancel"]
    reason: str | None
    requested_by: RequestedBy
    requested_at: str
    queued_at_stop: int
    in_flight_at_stop: int
    completed_at: str | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step of a halt; `at` is null until it is reached."""

    name: Literal["gate_closed", "recorded", "queue_dropped", "in_flight_finished", "completed"]
    at: str | None
    done: int | msgspec.UnsetType = msgspec.UNSET
    total: int | msgspec.UnsetType = msgspec.UNSET


class CampaignReport(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know of a campaign on one node."""

    campaign: str
    node: str
    state: CampaignState
    counts: Counts
    stop: StopFacts | None = None
    steps: tuple[Step, ...] = ()


class CampaignList(msgspec.Struct, frozen=True, kw_only=True):
    """A report for each campaign that fits, or for the first of them; `total` is how many fit."""

    campaigns: tuple[CampaignReport, ...]
    total: int = 0


class CampaignIds(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of campaigns, by name. `truncated` says that there are more than the limit."""

    campaigns: tuple[str, ...]
    truncated: bool


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """Outcomes by the clock: each list has a number for each step from `start` on, all of the same length."""

    start: str
    step_seconds: int
    delivered: tuple[int, ...]
    delivered_after_stop: tuple[int, ...]  # a part of delivered
    bounced: tuple[int, ...]
    expired: tuple[int, ...]
    dropped: tuple[int, ...]
    unknown: tuple[int, ...]


class LaneCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a campaign at one destination. `deferred` is a part of `queued`."""

    lane: str
    queued: int
    in_flight: int
    deferred: int
    delivered: int
    bounced: int
    expired: int
    dropped: int
    unknown: int


class ReplyCount(msgspec.Struct, frozen=True, kw_only=True):
    """A reply that recipients of one outcome got: `text` has a `*` where they differ, `example` is one of them.

    Of an outcome that very many have not all replies are looked at: then the number is reckoned, and not `exact`.
    """

    outcome: OutcomeName | Literal["deferred"]
    code: int | None
    text: str
    example: str
    recipients: int
    exact: bool


class CampaignAnalysis(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a campaign: when, where to, and with which replies, as far as outcomes are kept.

    `forgotten` counts outcomes that are not kept any more. `lanes` has the destinations with the most recipients, and
    `other_lanes` the number of the others, whose sum is in `others`. `replies` has those seen most of each outcome.
    """

    campaign: str
    timeline: Timeline | None
    around_stop: Timeline | None  # half an hour before and after the gate closed
    lanes: tuple[LaneCounts, ...]
    other_lanes: int
    others: LaneCounts | None
    replies: tuple[ReplyCount, ...]
    forgotten: int


class LaneRow(msgspec.Struct, frozen=True, kw_only=True):
    """A destination. `window` is what it holds in memory, not all that waits on disk."""

    lane: str
    state: Literal["idle", "open", "throttled", "backoff"]
    connections: int
    max_connections: int
    in_flight: int
    window: int
    rate: float | None  # the limit, recipients a second
    delivered: int  # since the daemon started
    deferred: int
    bounced: int
    backoff_until: str | None = None
    last_reply: str = ""
    last_peer: str = ""


class LaneList(msgspec.Struct, frozen=True, kw_only=True):
    """The destinations in memory that fit, or the first of them; `total` is how many fit."""

    lanes: tuple[LaneRow, ...]
    total: int = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The node at a glance. `health` is "ok" or what is wrong, a sentence each in `problems`."""

    node: str
    version: str
    uptime_seconds: float
    health: Literal["ok", "degraded", "failed"]
    problems: tuple[str, ...]
    totals: Counts
    campaigns: dict[str, int]  # by state
    queue: dict[str, int]  # by sub-state: ready, deferred, scheduled, held
    connections: int
    in_flight_transactions: int
    store_free_bytes: int
    lanes: int
    lanes_in_backoff: tuple[LaneRow, ...] = ()
    deferrals: int = 0  # temporary failures since the daemon started


class RecipientRow(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one recipient of a campaign."""

    recipient: str
    outcome: OutcomeName
    after_stop: bool
    at: str
    message: str
    attempts: int
    code: int | None
    reply: str
    peer: str
    lane: str


class QueueRecipient(msgspec.Struct, frozen=True, kw_only=True):
    """A recipient in the queue."""

    message: str
    campaign: str | None
    sender: str
    recipient: str
    lane: str
    state: QueueState
    attempts: int
    size: int  # bytes, in wire form
    arrived_at: str
    due_at: str | None = None
    last_reply: str = ""


class QueueList(msgspec.Struct, frozen=True, kw_only=True):
    """Recipients in the queue, the oldest first. `truncated` says that there are more than the limit."""

    recipients: tuple[QueueRecipient, ...]
    truncated: bool


class QueueMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message: its recipients that wait and those that have an outcome."""

    message: str
    waiting: tuple[QueueRecipient, ...]
    settled: tuple[RecipientRow, ...]


class NoBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a command that takes none: nothing, or an empty object."""


class HaltBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST …/halt`. `confirm` must be the campaign's id again."""

    confirm: str | None = None
    reason: OneLine | None = None


class QueueSelection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which queued recipients a retry or a drop means; all that is given must fit. A drop needs one at least."""

    campaign: str | None = None
    domain: str | None = None
    sender: str | None = None
    id: str | None = None


class QueueChanged(msgspec.Struct, frozen=True, kw_only=True):
    """How many recipients a retry or a drop changed."""

    recipients: int


class ReloadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload did. `needs_restart` lists keys that changed and are read at start only."""

    applied: tuple[str, ...]
    needs_restart: tuple[str, ...]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. `id` grows by one an event within a run of the daemon."""

    id: int
    at: str
    kind: str  # "outcome", "halt", "halt_step", "hold", "release", "backoff", "reload", "drop", "retry", …
    data: dict[str, Any]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    problems: tuple[str, ...] = ()
