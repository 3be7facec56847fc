"""The way from the edge into the queue store.

All that decides is done in the tick in which a message is handed over: the gate is asked, the scheduler's windows are
asked, the append is submitted. Operations are durable in the order of submission, so a message that came before a halt
is in the queue before it, and is dropped by it; one that came after is refused. The books follow the store, not the
client: they are kept in the callback of the append, also when nobody waits for the reply any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

import structlog

from mtactl.edge.ports import ReceivedMessage
from mtactl.message import queue_id
from mtactl.message.reply import Reply
from queue_store.errors import CampaignHalted, StoreClosed, StoreError, StoreFailed, StoreFull
from queue_store.records import Appended, NewMessage, NewRecipient
from queue_store.store import QueueStore

__all__ = ["StoreIntake"]

_log = structlog.get_logger()

_FULL = Reply(452, "4.3.1", "no room in the queue now, try again later")
_FAILED = Reply(451, "4.3.0", "the queue can't be written to, try again later")
_DISCARDED = Reply(250, "2.0.0", "Ok: discarded, its campaign is halted")


class StoreIntake:
    """An Intake over a queue store.

    `is_halted` tells whether a campaign's gate is closed; `claim_for(lane, campaign, recipients)` whether the lane's
    window has room for so many, which are then stored as claimed; `on_appended` is told what became durable,
    `on_refused(campaign, recipients, discarded)` what came for a halted campaign.
    """

    def __init__(
        self,
        store: QueueStore,
        *,
        is_halted: Callable[[str], bool],
        claim_for: Callable[[str, str, int], bool],
        on_appended: Callable[[Appended, NewMessage], None],
        on_refused: Callable[[str, int, bool], None],
        after_halt: Literal["reject", "discard"] = "reject",
    ) -> None:
        self.after_halt = after_halt
        self._store = store
        self._is_halted = is_halted
        self._claim_for = claim_for
        self._on_appended = on_appended
        self._on_refused = on_refused
        self._closed = False
        self._failed = False

    def close(self) -> None:
        """Take no more mail (421 4.3.2). Messages handed over before become durable."""
        self._closed = True

    def ready(self) -> Reply | None:
        """Say why no mail can be taken now, else None."""
        if self._closed:
            return Reply(421, "4.3.2", "the server is shutting down")
        if self._failed:
            return _FAILED
        if self._store.free_bytes() <= 0:
            return _FULL
        return None

    def accept(self, message: ReceivedMessage) -> asyncio.Future[Reply]:
        """Submit the message to the store, or refuse it; give the reply when it is durable."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if message.campaign and self._is_halted(message.campaign):
            answer.set_result(self._refuse(message.campaign, len(message.recipients)))
            return answer
        new = self._build(message)
        try:
            appended = self._store.append(new)
        except StoreError as error:
            answer.set_result(self._explain(error, new))
            return answer

        def settle(future: asyncio.Future[Appended]) -> None:
            reply = self._settle(future, new)
            if not answer.done():
                answer.set_result(reply)

        appended.add_done_callback(settle)
        return answer

    def _build(self, message: ReceivedMessage) -> NewMessage:
        due = (
            message.hold_until if message.hold_until is not None and message.hold_until > message.received_at else None
        )
        claimed: dict[str, bool] = {}
        if due is None:
            lanes: dict[str, int] = {}
            for recipient in message.recipients:
                lanes[recipient.domain] = lanes.get(recipient.domain, 0) + 1
            claimed = {lane: self._claim_for(lane, message.campaign, count) for lane, count in lanes.items()}
        return NewMessage(
            campaign=message.campaign,
            reverse_path=message.reverse_path,
            received_at=message.received_at,
            body=message.body,
            recipients=[
                NewRecipient(
                    address=recipient.address,
                    lane=recipient.domain,
                    due=due,
                    claimed=claimed.get(recipient.domain, False),
                    notify=recipient.notify,
                    orcpt=recipient.orcpt,
                )
                for recipient in message.recipients
            ],
            eight_bit=message.eight_bit,
            smtputf8=message.smtputf8,
            ret=message.ret,
            envid=message.envid,
        )

    def _settle(self, future: asyncio.Future[Appended], new: NewMessage) -> Reply:
        if future.cancelled():
            return _FAILED
        error = future.exception()
        if error is not None:
            return self._explain(error, new)
        appended = future.result()
        self._on_appended(appended, new)
        return Reply(250, "2.0.0", f"Ok: queued as {queue_id.encode(appended.message_id)}")

    def _explain(self, error: BaseException, new: NewMessage) -> Reply:
        match error:
            case CampaignHalted():
                return self._refuse(new.campaign, len(new.recipients))
            case StoreFull():
                _log.warning("store_full", free=error.free)
                return _FULL
            case StoreFailed() | StoreClosed():
                self._failed = True
                _log.error("store_unusable", error=str(error))
            case _:
                _log.error("append_failed", error=repr(error))
        return _FAILED

    def _refuse(self, campaign: str, recipients: int) -> Reply:
        discarded = self.after_halt == "discard"
        self._on_refused(campaign, recipients, discarded)
        if discarded:
            return _DISCARDED
        return Reply(550, "5.7.1", f"campaign {campaign} is halted, its mail is not taken any more")
