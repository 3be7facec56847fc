"""An open SMTP session as asyncio's protocol: the Dialogue of transaction.py, a transport, and one timer.

Guarantees: what `data_to_send` gives is handed to the transport in the same tick; a session that broke is aborted, not
closed in peace, so that no octet that waits in a buffer goes out later; each result future is done at the latest when
the connection is lost or the time-out of the stage is over (RFC 5321 §4.5.3.2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mtactl.message.reply import Reply, printable
from mtactl.relay.commands import Offers, refusal
from mtactl.relay.transaction import Dialogue, Event, Finished, Phase
from mtactl.schedule.ports import Delivery, Ending, RecipientResult
from mtactl.settings import TimeoutSettings

__all__ = ["SmtpSession"]

Results = Sequence[RecipientResult]


class SmtpSession(asyncio.Protocol):
    """A RelaySession over a transport that is past EHLO (and STARTTLS). `tls` is its version, "" in the clear."""

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        peer: str,
        offers: Offers,
        timeouts: TimeoutSettings,
        tls: str = "",
    ) -> None:
        self.peer = peer
        self.offers = offers
        self.tls = tls
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._dialogue = Dialogue(offers)
        self._results: asyncio.Future[Results] | None = None
        self._left = ""  # why the session is of no more use
        self._unusable = asyncio.Event()
        self._lost = asyncio.Event()
        self._paused = False
        self._limits = {
            Phase.FRESHEN: timeouts.mail,
            Phase.MAIL: timeouts.mail,
            Phase.RCPT: timeouts.rcpt,
            Phase.DATA: timeouts.data,
            Phase.BODY: timeouts.data_block,
            Phase.END: timeouts.data_end,
            # nothing hangs on these two but whether the session can be used again
            Phase.DISCARD: timeouts.quit,
            Phase.TIDY: timeouts.quit,
        }
        self._quit_limit = timeouts.quit
        self._shortest = min(self._limits.values())
        self._timer: asyncio.TimerHandle | None = None
        self._steps = 0
        self._stepped_at = 0.0
        transport.set_protocol(self)

    # -- RelaySession -----------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether another transaction may begin on it now."""
        return self._dialogue.phase is Phase.IDLE and not self._transport.is_closing()

    def refusal(self, delivery: Delivery) -> Reply | None:
        """Say why this peer can't take the message at all, else None."""
        return refusal(delivery, self.offers)

    def begin(self, delivery: Delivery) -> None:
        """Write MAIL FROM, and with PIPELINING all up to DATA. Raises OutOfTurn while a transaction is open."""
        why = self._left or ("the connection is closing" if self._transport.is_closing() else "")
        if not why:
            self._dialogue.begin(delivery)
        results = self._results = self._loop.create_future()
        if why:
            results.set_result([RecipientResult(Ending.LOST, None, why)] * len(delivery.recipients))
            return
        self._send()
        self._watch()

    async def finish(self) -> Results:
        """Give the results when all are known. When cancelled, it aborts the connection."""
        if self._results is None:
            raise RuntimeError("finish without begin")
        try:
            return await self._results
        except asyncio.CancelledError:
            self.abort()
            raise

    async def wait_unusable(self) -> None:
        """Return when the session can't be used any more."""
        await self._unusable.wait()

    async def quit(self) -> None:
        """Say QUIT, wait for its reply or for the end of the connection, close."""
        if self.usable:
            self._dialogue.quit()
            self._send()
            try:
                async with asyncio.timeout(self._quit_limit):
                    await self._lost.wait()
            except TimeoutError:
                self.abort()
            except asyncio.CancelledError:
                self.abort()
                raise
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once. An open transaction ends as lost."""
        self._lose("we closed the connection")

    # -- asyncio.Protocol -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what the peer says, and answer it in the same tick."""
        dialogue = self._dialogue
        events = dialogue.receive_data(data)
        if dialogue.phase is not Phase.IDLE and not dialogue.closed:
            self._send()
            self._watch()
        if events:
            self._take(events)

    def eof_received(self) -> None:
        """Take the end of the peer's stream for the end of the session; the transport closes itself then."""
        self._lose(f"the peer closed the connection{self._dialogue.stage}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle what is open."""
        why = "" if exc is None else printable(f": {exc}")
        self._lose(f"the connection was lost{self._dialogue.stage}{why}")
        self._lost.set()

    def pause_writing(self) -> None:
        """Take note that the transport's buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on with the message."""
        self._paused = False
        self._send()
        self._watch()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        dialogue, transport = self._dialogue, self._transport
        # a transport that is closing drops what it is given, so the end of a message must not count as written
        while not self._paused and not transport.is_closing() and (octets := dialogue.data_to_send()):
            transport.write(octets)
            if dialogue.phase is not Phase.BODY:
                return  # that was all

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Finished):
                if self._results is not None and not self._results.done():
                    self._results.set_result(event.results)
            else:
                self._left = event.why
                self._unusable.set()
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                self._transport.abort()

    def _lose(self, why: str) -> None:
        self._take(self._dialogue.lose(why))

    # -- the timer --------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Take note of when something was got done; the phase that the dialogue is in has its time from then on.

        So a peer that gives its reply octet by octet has no more time for it than another. The timer is never further
        off than the shortest time that a phase has, so it is left alone, and works out what is over when it fires: a
        transaction sets no timer at all, most of the time.
        """
        steps = self._dialogue.steps
        if steps == self._steps:
            return
        self._steps = steps
        self._stepped_at = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(self._stepped_at + self._shortest, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        phase = self._dialogue.phase
        limit = self._limits.get(phase)
        if limit is None:
            return  # nothing is awaited: the next step sets it again
        now = self._loop.time()
        deadline = self._stepped_at + limit
        if now < deadline:
            self._timer = self._loop.call_at(min(deadline, now + self._shortest), self._on_timer)
        else:
            what = "the peer took no part of" if phase is Phase.BODY else "no reply to"
            self._lose(f"{what} {phase.value} within {limit:g} s")
