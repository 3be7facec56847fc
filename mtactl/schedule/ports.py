"""The seams of the scheduler: what it asks of a relay, and what it tells those who watch.

The order of calls for a transaction is `refusal`, `begin`, `finish`, on a session that is idle. `begin` is synchronous
and writes `MAIL FROM` before it returns, so the gate that was checked just before cannot have closed in between.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from msgspec import Struct

from mtactl.message.reply import Reply

__all__ = ["Delivery", "Ending", "Rcpt", "RecipientResult", "Relay", "RelaySession"]


class Rcpt(Struct, frozen=True, kw_only=True, gc=False):
    """One RCPT TO with its DSN parameters (RFC 3461), as they came in."""

    address: str
    notify: str | None = None
    orcpt: str | None = None


class Delivery(Struct, frozen=True, kw_only=True):
    """One transaction to make. `body` is in wire form: CRLF lines, dot-stuffed, ending in CRLF.CRLF.

    `on_ending` is called, synchronously, just before the last octets of the message are handed to the transport (the
    final dot, or the last BDAT chunk): from then on a lost connection leaves the outcome unknown.
    """

    reverse_path: str
    recipients: tuple[Rcpt, ...]
    body: bytes
    eight_bit: bool
    smtputf8: bool
    ret: str | None
    envid: str | None
    on_ending: Callable[[], None]


class Ending(enum.Enum):
    """How a transaction ended for one recipient."""

    DELIVERED = "delivered"
    PERMANENT = "permanent"  # 5yz
    TRANSIENT = "transient"  # 4yz, or a reply that makes no sense
    LOST = "lost"  # no reply, but the end of the message was not yet written: it was not delivered
    LOST_AFTER_END = "lost_after_end"  # no reply after the end of the message: it may have been delivered


class RecipientResult(Struct, frozen=True, gc=False):
    """The result for one recipient. `reply` is None when none came; `why` then says what happened instead."""

    ending: Ending
    reply: Reply | None
    why: str = ""


class RelaySession(Protocol):
    """An open SMTP session that is past EHLO (and STARTTLS)."""

    peer: str  # "host[address]:port", printable

    @property
    def usable(self) -> bool:
        """Whether another transaction may begin on it now."""

    def refusal(self, delivery: Delivery) -> Reply | None:
        """Say why this peer can't take the message at all (SIZE, 8BITMIME, SMTPUTF8: permanent), else None."""

    def begin(self, delivery: Delivery) -> None:
        """Write MAIL FROM, and with PIPELINING all that may follow it. Nothing is awaited. Never raises on a lost
        connection: `finish` tells it.
        """

    def finish(self) -> Awaitable[Sequence[RecipientResult]]:
        """Give the result for each recipient, in their order, when all are known. Never raises on what the peer did.
        When cancelled, the connection is aborted.
        """

    async def wait_unusable(self) -> None:
        """Return when an idle session stops being usable (the peer closed it or said 421)."""

    async def quit(self) -> None:
        """Say QUIT, wait briefly, close. Never raises on what the peer did."""

    def abort(self) -> None:
        """Close at once."""


class Relay(Protocol):
    """Opens sessions to destinations."""

    async def connect(self, lane: str, domain: str) -> RelaySession:
        """Find the route of a destination and open a session. Raises TransientFailure or PermanentFailure."""

    async def close(self) -> None:
        """Let go of what is shared between sessions."""
