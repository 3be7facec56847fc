"""Messages in, and recipients out: the rows that appends and settlements put into a batch.

Whatever ends a recipient (a reply, a halt, an expiry) goes through `chosen`: rows are put there with their outcome,
and batch.sql moves them from `recipients` to `outcomes` and takes the living off messages and segments.
"""

from __future__ import annotations

from collections.abc import Sequence

from queue_store.errors import CampaignHalted, StoreError
from queue_store.index import BatchRows, Index, ids
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

__all__ = ["CLAIM_LIMIT", "append_messages", "settle", "unclaim"]

CLAIM_LIMIT = 100  # recipients in a claim: what every server must take (RFC 5321 §4.5.3.1.8)

_UNWRITTEN = StoreError("not written")  # where a result is still to come
_CLAIMED = int(QueuedState.CLAIMED)
_READY = int(QueuedState.READY)
_SCHEDULED = int(QueuedState.SCHEDULED)


def append_messages(
    index: Index, segments: Segments, messages: Sequence[NewMessage], rows: BatchRows
) -> list[Appended | StoreError]:
    """Write the bodies (not yet synced) and add the rows of a run of messages. A halted campaign's message is an error
    in its place. Raises StoreFull, StoreFailed, apsw.Error.
    """
    results: list[Appended | StoreError] = []
    stored: list[tuple[int, int, int]] = []  # the place among the results, the message's id, its campaign's
    for message in messages:
        if not message.recipients:
            results.append(StoreError("a message without recipients would never be gone"))
        elif (campaign := index.campaigns.intern(message.campaign)).halted:
            results.append(CampaignHalted(message.campaign))
        else:
            stored.append((len(results), index.take_ids(len(message.recipients) + 1), campaign.id))
            results.append(_UNWRITTEN)
    if stored:
        segment = segments.active
        places = segments.append_all([(message_id, messages[at].body) for at, message_id, _ in stored])
        for (at, message_id, campaign_id), place in zip(stored, places, strict=True):
            results[at] = _append(index, rows, messages[at], (message_id, campaign_id, segment, *place))
        octets = sum(size for _, size in places)
        rows.fill(segment, segments.length(segment), octets, [message_id for _, message_id, _ in stored])
    return results


def _append(index: Index, rows: BatchRows, message: NewMessage, where: tuple[int, int, int, int, int]) -> Appended:
    """Add a message's rows; `where` is its id, its campaign's, and the segment, offset and size of its body."""
    message_id, campaign_id, segment, offset, size = where
    number = len(message.recipients)
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


def settle(index: Index, settlements: Sequence[Settlement], rows: BatchRows) -> list[Outcome | None]:
    """Add what became of claimed recipients; give what is to be stored of each. Raises StoreError for one of no known
    campaign, and then nothing must be committed.
    """
    results: list[Outcome | None] = []
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
            rows.deferred.append(
                (campaign.id, settlement.recipient_id, settlement.due, *reply, int(settlement.uncertain))
            )
            index.deltas.add(campaign.id, "deferred")
        else:
            rows.ended.append(
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
    return results


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
