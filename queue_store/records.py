"""The values that cross the queue store's interface.

Times are integers: microseconds since the Unix epoch (UTC). Identifiers are positive integers that are never used
twice in the life of a store. The empty campaign name stands for mail that belongs to no campaign.

They are msgspec structs, since several are made for each mail: a frozen dataclass takes ten times as long to make. The
garbage collector is not to look at them (`gc=False`): none can be part of a cycle.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import Struct

__all__ = [
    "AnalysisPage",
    "Appended",
    "CampaignRecord",
    "Claim",
    "ClaimPage",
    "Dropped",
    "HaltRecord",
    "HaltRequest",
    "Message",
    "NewMessage",
    "NewRecipient",
    "Outcome",
    "OutcomeRow",
    "Promoted",
    "QueueFilter",
    "QueueRow",
    "QueuedDelta",
    "QueuedState",
    "Recipient",
    "Recovery",
    "Settlement",
    "Tally",
]


class Outcome(enum.IntEnum):
    """How a recipient ended. Final: a recipient has one at most, and it never changes."""

    DELIVERED = 1
    BOUNCED = 2
    EXPIRED = 3
    DROPPED = 4
    UNKNOWN = 5


class QueuedState(enum.IntEnum):
    """Where a recipient without an outcome stands on disk.

    CLAIMED belongs to a lane's window in memory; it may be in flight, which only the attempt log and memory know.
    """

    READY = 0
    DEFERRED = 1
    SCHEDULED = 2
    CLAIMED = 3


class NewRecipient(Struct, frozen=True, kw_only=True, gc=False):
    """One RCPT TO. `due` is set for FUTURERELEASE (state SCHEDULED until then); `claimed` stores it as claimed at once,
    for a window that has room, and the claim comes back with `Appended`. `due` and `claimed` exclude each other.
    """

    address: str
    lane: str
    due: int | None = None
    claimed: bool = False
    notify: str | None = None
    orcpt: str | None = None


class NewMessage(Struct, frozen=True, kw_only=True, gc=False):
    """A message to make durable. `body` is in wire form (RFC 5321 §4.5.2: CRLF lines, dot-stuffed, ending in
    CRLF.CRLF), in pieces that are written one behind the other.
    """

    campaign: str
    reverse_path: str
    received_at: int
    body: Sequence[bytes | bytearray | memoryview]
    recipients: Sequence[NewRecipient]
    eight_bit: bool = False  # BODY=8BITMIME was declared (RFC 6152)
    smtputf8: bool = False  # RFC 6531
    ret: str | None = None  # RFC 3461 RET=
    envid: str | None = None  # RFC 3461 ENVID=, as it came (xtext)


class Message(Struct, frozen=True, kw_only=True, gc=False):
    """A stored message, without its body. `size` is the length in bytes of the body in wire form."""

    id: int
    campaign: str
    reverse_path: str
    received_at: int
    segment: int
    offset: int
    size: int
    eight_bit: bool
    smtputf8: bool
    ret: str | None
    envid: str | None


class Recipient(Struct, frozen=True, kw_only=True, gc=False):
    """A recipient that waits. `attempts` counts the transactions (or refusals by us) that ended in a deferral.

    `uncertain`: one of them was lost after the end of the message, so that it may have been delivered.
    """

    id: int
    address: str
    attempts: int
    notify: str | None
    orcpt: str | None
    uncertain: bool = False


class Claim(Struct, frozen=True, kw_only=True, gc=False):
    """Recipients of one message and one lane that may go out in one transaction; durable as CLAIMED."""

    lane: str
    message: Message
    recipients: tuple[Recipient, ...]


class ClaimPage(Struct, frozen=True, kw_only=True, gc=False):
    """One page of a lane. `cursor` is where the next page goes on among the campaigns (opaque); `more` says that READY
    recipients were left behind, `held` that some were passed over because their campaign is held.
    """

    lane: str
    claims: tuple[Claim, ...]
    cursor: int
    more: bool
    held: bool


class Appended(Struct, frozen=True, kw_only=True, gc=False):
    """What `append` made durable. `claims` has the recipients that were stored as claimed, a claim per lane."""

    message_id: int
    recipient_ids: tuple[int, ...]
    claims: tuple[Claim, ...]


class Settlement(Struct, frozen=True, kw_only=True, gc=False):
    """What became of a claimed recipient: a final outcome, or a deferral (`outcome` None) until `due`.

    A deferral of a halted campaign is stored as DROPPED; as UNKNOWN when it is `uncertain`, that is, this or an earlier
    transaction of the recipient was lost after the end of the message. `began` says that a transaction began (it
    decides `stop` or `cancel`); `slot` is the attempt log's, freed when this is durable.
    """

    recipient_id: int
    message_id: int
    campaign: str
    outcome: Outcome | None
    at: int
    due: int = 0
    after_stop: bool = False
    began: bool = True
    uncertain: bool = False
    code: int | None = None  # the reply's three digits (RFC 5321 §4.2); None where no reply came
    reply: str = ""  # printable, without the code, at most 500 characters
    peer: str = ""
    slot: int | None = None


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of recipients by campaign, kept for ever. accepted = live + the five outcomes."""

    accepted: int = 0
    delivered: int = 0
    delivered_after_stop: int = 0
    bounced: int = 0
    expired: int = 0
    dropped: int = 0
    unknown: int = 0
    refused: int = 0
    discarded: int = 0

    @property
    def live(self) -> int:
        """Recipients without an outcome."""
        return self.accepted - self.delivered - self.bounced - self.expired - self.dropped - self.unknown


class HaltRequest(Struct, frozen=True, kw_only=True, gc=False):
    """A halt, as asked for. `closed_at` is when the gate closed, `in_flight` the recipients in flight at that moment.

    Submit it in the tick in which the gate closes: operations are done in order of submission, so what was submitted
    before belongs to the time before the stop.
    """

    campaign: str
    closed_at: int
    in_flight: int
    reason: str | None = None
    requested_uid: int | None = None
    requested_user: str = ""


class HaltRecord(Struct, frozen=True, kw_only=True, gc=False):
    """A durable halt. `kind` is "stop" when a transaction of the campaign had begun on this node, else "cancel".

    `queued_at_stop` = recipients without an outcome, less `in_flight_at_stop`, after all that was submitted before.
    `already` says that the halt was on record before this request, whose facts were then ignored.
    """

    campaign: str
    kind: str
    reason: str | None
    requested_uid: int | None
    requested_user: str
    requested_at: int
    recorded_at: int
    queued_at_stop: int
    in_flight_at_stop: int
    queue_dropped_at: int | None = None
    in_flight_finished_at: int | None = None
    completed_at: int | None = None
    already: bool = False


class CampaignRecord(Struct, frozen=True, kw_only=True, gc=False):
    """A campaign as the store knows it. `deferred` and `scheduled` are parts of `tally.live`."""

    name: str
    tally: Tally
    held: bool
    began: bool
    halt: HaltRecord | None
    deferred: int = 0
    scheduled: int = 0


class Recovery(Struct, frozen=True, kw_only=True, gc=False):
    """What opening the store found and mended."""

    campaigns: Sequence[CampaignRecord]
    ready_lanes: Sequence[str]
    next_due: int | None
    clean: bool  # the last run closed the store
    returned: int = 0  # claimed recipients that went back to READY
    unknown: int = 0  # recipients of halted campaigns whose transaction was open
    settled: int = 0  # outcomes found in the attempt log and not yet in the index
    repairs: Sequence[str] = ()  # a sentence each: torn tails cut, damage mended
    set_aside: Sequence[str] = ()  # the folders in which damaged files lie until someone has looked at them


class QueuedDelta(Struct, frozen=True, kw_only=True, gc=False):
    """How many recipients of a campaign an operation took from (or moved within) the queue, by state.

    `unknown` of them were stored as UNKNOWN, not as DROPPED: they may have been delivered before.
    """

    ready: int = 0
    deferred: int = 0
    scheduled: int = 0
    unknown: int = 0

    @property
    def total(self) -> int:
        """All states together."""
        return self.ready + self.deferred + self.scheduled


class Dropped(Struct, frozen=True, kw_only=True, gc=False):
    """One chunk of a drop or an expiry. `more` says that the same call would find more now."""

    by_campaign: Mapping[str, QueuedDelta]
    more: bool


class Promoted(Struct, frozen=True, kw_only=True, gc=False):
    """One chunk of recipients that became READY. `next_due` is the earliest time at which more will."""

    by_campaign: Mapping[str, QueuedDelta]
    lanes: frozenset[str]
    next_due: int | None
    more: bool


class QueueFilter(Struct, frozen=True, kw_only=True, gc=False):
    """Which queued recipients are meant; what is None is not asked. All that is given must fit."""

    campaign: str | None = None
    lane: str | None = None
    domain: str | None = None
    sender: str | None = None
    message_id: int | None = None
    state: QueuedState | None = None


class QueueRow(Struct, frozen=True, kw_only=True, gc=False):
    """A recipient in the queue, as an administrator sees it."""

    message: Message
    recipient: Recipient
    lane: str
    state: QueuedState
    due: int | None
    last_code: int | None = None
    last_reply: str = ""


class OutcomeRow(Struct, frozen=True, kw_only=True, gc=False):
    """What became of one recipient, kept for `keep_outcomes`."""

    recipient_id: int
    message_id: int
    address: str
    lane: str
    outcome: Outcome
    after_stop: bool
    at: int
    attempts: int
    code: int | None = None
    reply: str = ""
    peer: str = ""


class AnalysisPage(Struct, frozen=True, kw_only=True, gc=False):
    """A page of a campaign's recipients, counted. The last number of each row is of recipients.

    `above` is where the next page begins, None after the last one. `waiting` is by lane and state, `settled` by lane
    and outcome, `times` by second since the epoch, outcome and whether it came after the stop; `replies` by outcome
    (None: deferred), code and text.
    """

    above: int | None
    waiting: Sequence[tuple[str, QueuedState, int]] = ()
    settled: Sequence[tuple[str, Outcome, int]] = ()
    times: Sequence[tuple[int, Outcome, bool, int]] = ()
    replies: Sequence[tuple[Outcome | None, int | None, str, int]] = ()
