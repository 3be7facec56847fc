"""Messages in, and recipients out: the statements for appends and settlements, a batch at a time.

Whatever ends a recipient (a reply, a halt, an expiry) goes through `chosen`: rows are put there with their outcome,
and `move_chosen` moves them from `recipients` to `outcomes` and takes the living off messages and segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from queue_store.errors import CampaignHalted, StoreError
from queue_store.index import Index, as_json, ids
from queue_store.records import (
    Appended,
    Claim,
    Message,
    NewMessage,
    NewRecipient,
    Outcome,
    QueuedState,
    Recipient,
    Settlement,
)
from queue_store.segments import Segments

__all__ = ["CLAIM_LIMIT", "SegmentShare", "add_to_segment", "append_messages", "move_chosen", "settle", "unclaim"]

CLAIM_LIMIT = 100  # recipients in a claim: what every server must take (RFC 5321 §4.5.3.1.8)

_DROPPED = int(Outcome.DROPPED)
_CLAIMED = int(QueuedState.CLAIMED)
_READY = int(QueuedState.READY)
_SCHEDULED = int(QueuedState.SCHEDULED)


def _columns(number: int) -> str:
    return ", ".join(f"value ->> {at}" for at in range(number))


_INSERT_MESSAGES = (
    "INSERT INTO messages (id, campaign_id, reverse_path, received_at, segment, offset, size, eight_bit, smtputf8, ret,"
    f" envid, recipients, live) SELECT {_columns(12)}, value ->> 11 FROM json_each(?)"
)
_INSERT_RECIPIENTS = (
    "INSERT INTO recipients (campaign_id, id, message_id, lane_id, address, state, due, notify, orcpt)"
    f" SELECT {_columns(9)} FROM json_each(?)"
)
_ADD_TO_SEGMENT = """
INSERT INTO segments (id, length, live_bytes, live_messages, first_message, last_message) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET length = excluded.length, live_bytes = live_bytes + excluded.live_bytes,
    live_messages = live_messages + excluded.live_messages,
    first_message = min(first_message, excluded.first_message),
    last_message = max(last_message, excluded.last_message)
"""
_CHOOSE = (
    "INSERT INTO temp.chosen (campaign_id, id, message_id, state, outcome, after_stop, at, tries, code, reply, peer)"
    f" SELECT {_columns(11)} FROM json_each(?)"
)
_DEFER = """
UPDATE recipients SET state = 1, due = d.value ->> 2, attempts = attempts + 1, last_code = d.value ->> 3,
    last_reply = d.value ->> 4, uncertain = d.value ->> 5
FROM json_each(?) AS d
WHERE recipients.campaign_id = (d.value ->> 0) AND recipients.id = (d.value ->> 1) AND recipients.state = 3
"""
# The left side of each join is the small one; CROSS JOIN keeps the planner from thinking otherwise.
_TO_OUTCOMES = """
INSERT INTO outcomes (campaign_id, id, message_id, lane_id, address, outcome, after_stop, at, attempts, code, reply,
    peer)
SELECT r.campaign_id, r.id, r.message_id, r.lane_id, r.address, b.outcome, b.after_stop, b.at, r.attempts + b.tries,
    b.code, b.reply, b.peer
FROM temp.chosen AS b CROSS JOIN recipients AS r
WHERE r.campaign_id = b.campaign_id AND r.id = b.id AND r.state = b.state
"""
_DELETE_CHOSEN = "DELETE FROM recipients WHERE (campaign_id, id) IN (SELECT campaign_id, id FROM temp.chosen)"
_TOUCH = "INSERT INTO temp.touched (message_id, gone) SELECT message_id, count(*) FROM temp.chosen GROUP BY message_id"
_EMPTY_SEGMENTS = """
UPDATE segments SET live_messages = live_messages - d.messages, live_bytes = live_bytes - d.bytes
FROM (
    SELECT m.segment AS segment, count(*) AS messages, sum(m.size) AS bytes
    FROM temp.touched AS t CROSS JOIN messages AS m WHERE m.id = t.message_id AND m.live = t.gone GROUP BY m.segment
) AS d
WHERE segments.id = d.segment
"""
_DELETE_MESSAGES = """
DELETE FROM messages WHERE id IN (
    SELECT t.message_id FROM temp.touched AS t CROSS JOIN messages AS m WHERE m.id = t.message_id AND m.live = t.gone
)
"""
_LESSEN_MESSAGES = """
UPDATE messages SET live = live - (SELECT t.gone FROM temp.touched AS t WHERE t.message_id = messages.id)
WHERE id IN (SELECT message_id FROM temp.touched)
"""


@dataclass(slots=True)
class SegmentShare:
    """What a batch put into one segment: octets, messages, the least and the greatest message id."""

    octets: int
    messages: int
    first: int
    last: int

    def add(self, message_id: int, size: int) -> None:
        """Add a message, whose id is above all before it."""
        self.octets += size
        self.messages += 1
        self.last = message_id


def add_to_segment(index: Index, segment: int, length: int, share: SegmentShare) -> None:
    """Vouch for a segment up to `length`, and count what was put there."""
    row = (segment, length, share.octets, share.messages, share.first, share.last)
    index.db.execute(_ADD_TO_SEGMENT, row)


def append_messages(index: Index, segments: Segments, messages: Sequence[NewMessage]) -> list[Appended | StoreError]:
    """Write the bodies (not yet synced) and the rows of a run of messages. A halted campaign's message is an error in
    its place. Raises StoreFull, StoreFailed, apsw.Error.
    """
    results: list[Appended | StoreError] = []
    rows = _NewRows()
    for message in messages:
        if not message.recipients:
            results.append(StoreError("a message without recipients would never be gone"))
        elif (campaign := index.campaigns.intern(message.campaign)).halted:
            results.append(CampaignHalted(message.campaign))
        else:
            message_id = index.take_ids(len(message.recipients) + 1)
            place = segments.append(message_id, message.body)
            results.append(_append(index, rows, message, (message_id, campaign.id, *place)))
    if rows.messages:
        index.db.execute(_INSERT_MESSAGES, (as_json(rows.messages),))
        index.db.execute(_INSERT_RECIPIENTS, (as_json(rows.recipients),))
        for segment, share in rows.shares.items():
            add_to_segment(index, segment, segments.length(segment), share)
    return results


class _NewRows:
    """The rows that a run of appends is to insert."""

    __slots__ = ("messages", "recipients", "shares")

    def __init__(self) -> None:
        self.messages: list[tuple[Any, ...]] = []
        self.recipients: list[tuple[Any, ...]] = []
        self.shares: dict[int, SegmentShare] = {}


def _append(index: Index, rows: _NewRows, message: NewMessage, where: tuple[int, int, int, int, int]) -> Appended:
    """Add a message's rows; `where` is its id, its campaign's, and the segment, offset and size of its body."""
    message_id, campaign_id, segment, offset, size = where
    number = len(message.recipients)
    share = rows.shares.get(segment)
    if share is None:
        rows.shares[segment] = SegmentShare(size, 1, message_id, message_id)
    else:
        share.add(message_id, size)
    rows.messages.append(
        (
            message_id,
            campaign_id,
            message.reverse_path,
            message.received_at,
            segment,
            offset,
            size,
            int(message.eight_bit),
            int(message.smtputf8),
            message.ret,
            message.envid,
            number,
        )
    )
    claimed: dict[str, list[Recipient]] = {}
    scheduled = 0
    intern_lane = index.lanes.intern
    for recipient_id, recipient in enumerate(message.recipients, message_id + 1):
        lane, address = recipient.lane, recipient.address
        state = _initial_state(recipient)
        if state == _CLAIMED:
            claimed.setdefault(lane, []).append(_new_recipient(recipient_id, recipient))
        elif state == _SCHEDULED:
            scheduled += 1
        rows.recipients.append(
            (
                campaign_id,
                recipient_id,
                message_id,
                intern_lane(lane),
                address,
                state,
                recipient.due,
                recipient.notify,
                recipient.orcpt,
            )
        )
    index.deltas.add(campaign_id, "accepted", number)
    if scheduled:
        index.deltas.add(campaign_id, "scheduled", scheduled)
    claims: tuple[Claim, ...] = ()
    if claimed:
        claims = _new_claims(_stored(message, message_id, (segment, offset, size)), claimed)
    recipient_ids = tuple(range(message_id + 1, message_id + 1 + number))
    return Appended(message_id=message_id, recipient_ids=recipient_ids, claims=claims)


def settle(index: Index, settlements: Sequence[Settlement]) -> list[Outcome | None]:
    """Record what became of claimed recipients; give what was stored of each. Raises StoreError when one of them is
    not claimed, and then nothing must be committed.
    """
    results: list[Outcome | None] = []
    ended: list[tuple[Any, ...]] = []
    deferred: list[tuple[Any, ...]] = []
    for settlement in settlements:
        campaign = index.campaigns.find(settlement.campaign)
        if campaign is None:
            raise StoreError(f"recipient {settlement.recipient_id} is of no known campaign: {settlement.campaign}")
        outcome = settlement.outcome
        # A halt that could not be recorded, or died before it was, has no after: the campaign goes on.
        after_stop = settlement.after_stop and campaign.halted
        if outcome is None and campaign.halted:
            outcome = Outcome.UNKNOWN if settlement.uncertain else Outcome.DROPPED
            after_stop = True
        if settlement.began:
            index.deltas.mark_began(campaign.id)
        if outcome is None:
            reply = settlement.code, settlement.reply
            deferred.append((campaign.id, settlement.recipient_id, settlement.due, *reply, int(settlement.uncertain)))
            index.deltas.add(campaign.id, "deferred")
        else:
            ended.append(
                (
                    campaign.id,
                    settlement.recipient_id,
                    settlement.message_id,
                    _CLAIMED,
                    int(outcome),
                    int(after_stop),
                    settlement.at,
                    int(settlement.began),
                    settlement.code,
                    settlement.reply,
                    settlement.peer,
                )
            )
            index.deltas.add_outcome(campaign.id, outcome, after_stop=after_stop)
        results.append(outcome)
    if deferred and index.change(_DEFER, (as_json(deferred),)) != len(deferred):
        raise StoreError(f"of {len(deferred)} recipients to be deferred some are not claimed")
    if ended:
        index.db.execute("DELETE FROM temp.chosen")
        index.db.execute(_CHOOSE, (as_json(ended),))
        move_chosen(index, len(ended))
    return results


def move_chosen(index: Index, number: int) -> None:
    """Move the `number` recipients in `chosen` to the outcomes. Raises StoreError when they are not there as said."""
    if index.change(_TO_OUTCOMES) != number or index.change(_DELETE_CHOSEN) != number:
        raise StoreError(f"of {number} recipients to be settled some are not in the queue as the caller has it")
    index.db.execute("DELETE FROM temp.touched")
    touched = index.change(_TOUCH)
    index.db.execute(_EMPTY_SEGMENTS)
    if index.change(_DELETE_MESSAGES) != touched:
        index.db.execute(_LESSEN_MESSAGES)


def unclaim(index: Index, claims: Sequence[tuple[str, int]]) -> None:
    """Put claimed recipients, as (campaign, recipient id), back to READY. Those that are not claimed stay."""
    by_campaign: dict[str, list[int]] = {}
    for campaign, recipient_id in claims:
        by_campaign.setdefault(campaign, []).append(recipient_id)
    for campaign, recipient_ids in by_campaign.items():
        entry = index.campaigns.find(campaign)
        if entry is not None:
            index.db.execute(
                "UPDATE recipients SET state = 0 WHERE campaign_id = ? AND id IN (SELECT value FROM carray(?))"
                " AND state = 3",
                (entry.id, ids(recipient_ids)),
            )


def _initial_state(recipient: NewRecipient) -> int:
    if recipient.claimed:
        if recipient.due is not None:
            raise StoreError(f"{recipient.address} can't be claimed and wait for a time")
        return _CLAIMED
    return _READY if recipient.due is None else _SCHEDULED


def _stored(message: NewMessage, message_id: int, where: tuple[int, int, int]) -> Message:
    segment, offset, size = where
    return Message(
        id=message_id,
        campaign=message.campaign,
        reverse_path=message.reverse_path,
        received_at=message.received_at,
        segment=segment,
        offset=offset,
        size=size,
        eight_bit=message.eight_bit,
        smtputf8=message.smtputf8,
        ret=message.ret,
        envid=message.envid,
    )


def _new_recipient(recipient_id: int, recipient: NewRecipient) -> Recipient:
    return Recipient(
        id=recipient_id, address=recipient.address, attempts=0, notify=recipient.notify, orcpt=recipient.orcpt
    )


def _new_claims(message: Message, claimed: dict[str, list[Recipient]]) -> tuple[Claim, ...]:
    return tuple(
        Claim(lane=lane, message=message, recipients=tuple(recipients[at : at + CLAIM_LIMIT]))
        for lane, recipients in claimed.items()
        for at in range(0, len(recipients), CLAIM_LIMIT)
    )
