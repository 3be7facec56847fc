"""A relay whose transactions end when, and how, a test says: the second thing behind the seam of schedule/ports.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mtactl.errors import TransientFailure
from mtactl.message.reply import Reply
from mtactl.schedule.ports import Delivery, Ending, RecipientResult

REPLIES = {
    Ending.DELIVERED: Reply(250, "2.0.0", "ok"),
    Ending.PERMANENT: Reply(550, "5.1.1", "no such user"),
    Ending.TRANSIENT: Reply(451, "4.3.0", "later"),
}


class ScriptedSession:
    """One open session; it holds its transaction until `answer` is called."""

    def __init__(self, relay: ScriptedRelay, lane: str) -> None:
        self.relay = relay
        self.lane = lane
        self.peer = f"{lane}[127.0.0.1]:25"
        self.usable = True
        self.delivery: Delivery | None = None
        self.ended: asyncio.Future[Sequence[RecipientResult]] | None = None
        self.ending_noted = False

    def refusal(self, delivery: Delivery) -> Reply | None:
        return None

    def begin(self, delivery: Delivery) -> None:
        assert self.usable and self.delivery is None
        self.delivery = delivery
        self.ending_noted = False
        self.ended = asyncio.get_running_loop().create_future()
        self.relay.open[self] = delivery
        self.relay.on_begin(delivery)

    async def finish(self) -> Sequence[RecipientResult]:
        assert self.ended is not None
        return await self.ended

    def end_message(self) -> None:
        """Write the final dot, as far as the scheduler can tell."""
        if not self.ending_noted:
            self.ending_noted = True
            self.delivery.on_ending()

    def answer(self, ending: Ending) -> None:
        """End the transaction for all its recipients."""
        delivery, self.delivery = self.delivery, None
        if ending is not Ending.LOST:
            if not self.ending_noted:
                delivery.on_ending()
        elif self.ending_noted:
            ending = Ending.LOST_AFTER_END
        if ending in (Ending.LOST, Ending.LOST_AFTER_END):
            self.usable = False
        del self.relay.open[self]
        result = RecipientResult(ending, REPLIES.get(ending), "" if ending in REPLIES else "connection lost")
        self.ended.set_result([result] * len(delivery.recipients))

    async def wait_unusable(self) -> None:
        await asyncio.Event().wait()

    async def quit(self) -> None:
        self.usable = False

    def abort(self) -> None:
        self.usable = False


class ScriptedRelay:
    """All open transactions are in `open`; lanes in `dead` can't be reached."""

    def __init__(self, on_begin: Callable[[Delivery], None]) -> None:
        self.on_begin = on_begin
        self.open: dict[ScriptedSession, Delivery] = {}
        self.dead: set[str] = set()

    async def connect(self, lane: str, domain: str) -> ScriptedSession:
        if lane in self.dead:
            raise TransientFailure(Reply(451, "4.4.1", "connection refused"), lane)
        return ScriptedSession(self, lane)

    async def close(self) -> None:
        pass
