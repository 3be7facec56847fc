"""One transaction from its begin to its settlements: its slots in the attempt log, and what its results mean."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
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
_CUT_OFF = RecipientResult(Ending.LOST, None, "cut off")
_CUT_OFF_AFTER_END = RecipientResult(Ending.LOST_AFTER_END, None, "cut off")


class Attempt:
    """A claim on a session. `session` is None where we refuse it ourselves, without a transaction.

    It does not hold its Delivery: that one calls back into the attempt, and a cycle would keep each message until the
    garbage collector comes by.
    """

    __slots__ = ("_log", "_slots", "claim", "lane", "results", "reused", "session", "task", "was_lost")

    def __init__(
        self,
        *,
        lane: Lane,
        session: RelaySession | None,
        claim: Claim,
        reused: bool = False,
        task: asyncio.Task[None] | None = None,
    ) -> None:
        self.lane = lane
        self.session = session
        self.claim = claim
        self.reused = reused
        self.task = task  # that makes the transaction
        self._log: AttemptLog | None = None
        self._slots: list[int] = []
        # What is true when nothing is heard of the session again: the results replace it.
        self.results: Sequence[RecipientResult] = ()
        self.was_lost = False  # known when settled: the session was lost before all results were known

    @property
    def was_stale(self) -> bool:
        """Whether the session had served before and was lost without a reply to this: it ended while it was idle."""
        return self.reused and all(result.ending is Ending.LOST and result.reply is None for result in self.results)

    def make_delivery(self, body: bytes) -> Delivery:
        """Give what the session is to do."""
        message = self.claim.message
        return Delivery(
            reverse_path=message.reverse_path,
            recipients=tuple(
                [
                    Rcpt(address=recipient.address, notify=recipient.notify, orcpt=recipient.orcpt)
                    for recipient in self.claim.recipients
                ]
            ),
            body=body,
            eight_bit=message.eight_bit,
            smtputf8=message.smtputf8,
            ret=message.ret,
            envid=message.envid,
            on_ending=self._note_ending,
        )

    def note_begin(self, log: AttemptLog) -> None:
        """Put on record, before MAIL FROM is written, that the transaction begins. Raises StoreFull."""
        self._log = log
        try:
            for recipient in self.claim.recipients:
                self._slots.append(log.begin(recipient.id, recipient.attempts))
        except StoreFull:
            while self._slots:
                log.free(self._slots.pop())
            raise

    def _note_ending(self) -> None:
        if self._log is not None:
            for slot in self._slots:
                self._log.ending(slot)
        self.results = (_CUT_OFF_AFTER_END,) * len(self._slots)

    def settle(
        self, *, now: int, closed: bool, delivery: DeliverySettings, lets_expire: Callable[[], bool]
    ) -> list[Settled]:
        """Give what became of each recipient. `closed`: the gate is closed at this moment, so it is after the stop.

        A connection lost after the end of the message is `unknown` if the campaign is halted, else it is tried again
        (RFC 5321 §4.5.4.1), which may deliver it twice; if a halt comes before that, it is `unknown` as well.
        """
        claim, lane = self.claim, self.lane
        message = claim.message
        peer = "" if self.session is None else self.session.peer
        settled = []
        results = self.results or (_CUT_OFF,) * len(claim.recipients)
        for recipient, result, slot in zip(claim.recipients, results, self._slots, strict=True):
            outcome: Outcome | None
            ending, reply = result.ending, result.reply
            if ending is Ending.DELIVERED:
                outcome, due = Outcome.DELIVERED, 0
            else:
                outcome, due = self._judge(
                    recipient, ending, now=now, closed=closed, delivery=delivery, lets_expire=lets_expire
                )
            if ending in _LOST:
                self.was_lost = True
            lane.note(outcome, result.why if reply is None else reply)
            settlement = Settlement(
                recipient_id=recipient.id,
                message_id=message.id,
                campaign=message.campaign,
                outcome=outcome,
                at=now,
                due=due,
                after_stop=closed,
                uncertain=recipient.uncertain or ending is Ending.LOST_AFTER_END,
                code=None if reply is None else reply.code,
                reply=(result.why or "connection lost") if reply is None else reply.detail,
                peer=peer,
                slot=slot,
            )
            settled.append(
                Settled(settlement=settlement, message=message, recipient=recipient, lane=claim.lane, stored=outcome)
            )
        return settled

    def refuse(self, reply: Reply, *, peer: str, now: int) -> list[Settled]:
        """Give the settlements of a refusal by us: bounced, though no transaction began."""
        claim = self.claim
        settled = []
        for recipient in claim.recipients:
            self.lane.note(Outcome.BOUNCED, reply)
            settlement = Settlement(
                recipient_id=recipient.id,
                message_id=claim.message.id,
                campaign=claim.message.campaign,
                outcome=Outcome.BOUNCED,
                at=now,
                began=False,
                code=reply.code,
                reply=reply.detail,
                peer=peer,
            )
            settled.append(
                Settled(
                    settlement=settlement,
                    message=claim.message,
                    recipient=recipient,
                    lane=claim.lane,
                    stored=Outcome.BOUNCED,
                )
            )
        return settled

    def _judge(
        self,
        recipient: Recipient,
        ending: Ending,
        *,
        now: int,
        closed: bool,
        delivery: DeliverySettings,
        lets_expire: Callable[[], bool],
    ) -> tuple[Outcome | None, int]:
        """Give the outcome of what was not delivered, or None and when the recipient is due again."""
        if ending is Ending.PERMANENT:
            return Outcome.BOUNCED, 0
        if closed:
            # What began and can't be retried: of a deferral the store makes DROPPED, of an uncertain one UNKNOWN, when
            # the halt is on record. Should we die before it is, the campaign goes on, and so does the recipient.
            return None, now
        if is_expired(self.claim.message.received_at, delivery.expire_after, now) and lets_expire():
            return Outcome.EXPIRED, 0
        if ending is Ending.LOST and self.reused and recipient.attempts == 0:
            return None, now  # the peer closed an idle session as we began: not a failure of this recipient
        return None, due_after(delivery.retry, recipient.attempts, now, recipient.id)
