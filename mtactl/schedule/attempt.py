"""One transaction from its begin to its settlements: its slots in the attempt log, and what its results mean."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mtactl.message.reply import Reply
from mtactl.schedule.lane import Lane
from mtactl.schedule.ports import Delivery, Ending, Rcpt, RecipientResult, RelaySession
from mtactl.schedule.retry import due_after, is_expired
from mtactl.schedule.settler import Settled
from queue_store.errors import StoreFull
from queue_store.records import Claim, Outcome, Recipient, Settlement

if TYPE_CHECKING:
    from mtactl.settings import DeliverySettings
    from queue_store.attempts import AttemptLog

__all__ = ["Attempt"]

_LOST = (Ending.LOST, Ending.LOST_AFTER_END)


class Attempt:
    """A claim on a session. `session` is None where we refuse it ourselves, without a transaction."""

    __slots__ = ("_log", "_slots", "claim", "delivery", "lane", "results", "reused", "session", "task")

    def __init__(
        self,
        *,
        lane: Lane,
        session: RelaySession | None,
        claim: Claim,
        body: bytes = b"",
        reused: bool = False,
        task: asyncio.Task[None] | None = None,
    ) -> None:
        self.lane = lane
        self.session = session
        self.claim = claim
        self.reused = reused
        self.task = task  # that makes the transaction
        self._log: AttemptLog | None = None
        self._slots: tuple[int, ...] = ()
        message = claim.message
        self.delivery = Delivery(
            reverse_path=message.reverse_path,
            recipients=tuple(
                Rcpt(address=recipient.address, notify=recipient.notify, orcpt=recipient.orcpt)
                for recipient in claim.recipients
            ),
            body=body,
            eight_bit=message.eight_bit,
            smtputf8=message.smtputf8,
            ret=message.ret,
            envid=message.envid,
            on_ending=self._note_ending,
        )
        # What is true when nothing is heard of the session again: the results replace it.
        self.results: Sequence[RecipientResult] = ()

    def note_begin(self, log: AttemptLog) -> None:
        """Put on record, before MAIL FROM is written, that the transaction begins. Raises StoreFull."""
        self._log = log
        slots: list[int] = []
        try:
            slots.extend(log.begin(recipient.id, recipient.attempts) for recipient in self.claim.recipients)
        except StoreFull:
            for slot in slots:
                log.free(slot)
            raise
        self._slots = tuple(slots)

    def _note_ending(self) -> None:
        if self._log is not None:
            for slot in self._slots:
                self._log.ending(slot)
        self.results = (RecipientResult(Ending.LOST_AFTER_END, None, "cut off"),) * len(self._slots)

    @property
    def was_lost(self) -> bool:
        """Whether the session was lost before all results were known."""
        return any(result.ending in _LOST for result in self.results)

    def settle(self, *, now: int, closed: bool, delivery: DeliverySettings) -> Iterator[Settled]:
        """Give what became of each recipient. `closed`: the gate is closed at this moment, so it is after the stop.

        A connection lost after the end of the message is `unknown` if the campaign is halted, else it is tried again
        (RFC 5321 §4.5.4.1), which may deliver it twice; if a halt comes before that, it is `unknown` as well.
        """
        lost = RecipientResult(Ending.LOST, None, "cut off")
        results = self.results or (lost,) * len(self.claim.recipients)
        for recipient, result, slot in zip(self.claim.recipients, results, self._slots, strict=True):
            outcome, due = self._judge(recipient, result, now=now, closed=closed, delivery=delivery)
            reply = result.reply
            self._count(outcome, reply, result)
            yield self._settled(
                recipient,
                Settlement(
                    recipient_id=recipient.id,
                    message_id=self.claim.message.id,
                    campaign=self.claim.message.campaign,
                    outcome=outcome,
                    at=now,
                    due=due,
                    after_stop=closed,
                    uncertain=recipient.uncertain or result.ending is Ending.LOST_AFTER_END,
                    code=None if reply is None else reply.code,
                    reply=(result.why or "connection lost") if reply is None else reply.detail,
                    peer="" if self.session is None else self.session.peer,
                    slot=slot,
                ),
            )

    def refuse(self, reply: Reply, *, peer: str, now: int) -> Iterator[Settled]:
        """Give the settlements of a refusal by us: bounced, though no transaction began."""
        for recipient in self.claim.recipients:
            self._count(Outcome.BOUNCED, reply, None)
            yield self._settled(
                recipient,
                Settlement(
                    recipient_id=recipient.id,
                    message_id=self.claim.message.id,
                    campaign=self.claim.message.campaign,
                    outcome=Outcome.BOUNCED,
                    at=now,
                    began=False,
                    code=reply.code,
                    reply=reply.detail,
                    peer=peer,
                ),
            )

    def _judge(
        self, recipient: Recipient, result: RecipientResult, *, now: int, closed: bool, delivery: DeliverySettings
    ) -> tuple[Outcome | None, int]:
        """Give the outcome, or None and when the recipient is due again."""
        if result.ending is Ending.DELIVERED:
            return Outcome.DELIVERED, 0
        if result.ending is Ending.PERMANENT:
            return Outcome.BOUNCED, 0
        if closed:
            # What began and can't be retried: of a deferral the store makes DROPPED, of an uncertain one UNKNOWN, when
            # the halt is on record. Should we die before it is, the campaign goes on, and so does the recipient.
            return None, now
        if is_expired(self.claim.message.received_at, delivery.expire_after, now):
            return Outcome.EXPIRED, 0
        if result.ending is Ending.LOST and self.reused and recipient.attempts == 0:
            return None, now  # the peer closed an idle session as we began: not a failure of this recipient
        return None, due_after(delivery.retry, recipient.attempts, now, recipient.id)

    def _count(self, outcome: Outcome | None, reply: Reply | None, result: RecipientResult | None) -> None:
        lane = self.lane
        if outcome is Outcome.DELIVERED:
            lane.delivered += 1
        elif outcome is Outcome.BOUNCED:
            lane.bounced += 1
        elif outcome is None:
            lane.deferred += 1
        if reply is not None:
            lane.last_said = reply
        elif result is not None:
            lane.last_said = result.why

    def _settled(self, recipient: Recipient, settlement: Settlement) -> Settled:
        return Settled(
            settlement=settlement,
            message=self.claim.message,
            recipient=recipient,
            lane=self.claim.lane,
            stored=settlement.outcome,
        )
