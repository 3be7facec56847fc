"""What the edge asks of the rest of the daemon for a message that it has received."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from msgspec import Struct

from mtactl.message.reply import Reply

__all__ = ["Intake", "ReceivedMessage", "ReceivedRecipient"]


class ReceivedRecipient(Struct, frozen=True, kw_only=True, gc=False):
    """One accepted RCPT TO. The domain's letters are in lower case, in A-label form (RFC 5891)."""

    address: str
    domain: str
    notify: str | None = None
    orcpt: str | None = None


class ReceivedMessage(Struct, frozen=True, kw_only=True, gc=False):
    """A message received whole, not yet durable. `campaign` is "" for none, and was checked for its form.

    `body` pieces joined are the message in wire form (the Received: field first; dot-stuffed; ending in CRLF.CRLF).
    `hold_until` is µs since the epoch (RFC 4865), None to send it now.
    """

    campaign: str
    reverse_path: str
    recipients: Sequence[ReceivedRecipient]
    body: Sequence[bytes | bytearray | memoryview]
    received_at: int
    eight_bit: bool
    smtputf8: bool
    ret: str | None
    envid: str | None
    hold_until: int | None
    client: str  # "[192.0.2.1]:4711"


class Intake(Protocol):
    """Takes received messages into the queue."""

    def ready(self) -> Reply | None:
        """Say why no mail can be taken now (452 4.3.1, 421 4.3.2), else None. Asked at MAIL FROM."""

    def accept(self, message: ReceivedMessage) -> Awaitable[Reply]:
        """Make the message durable, or refuse it; give the reply to the end of data. Never raises on a full store or
        a halted campaign: those are replies (452 4.3.1; 550 5.7.1, or 250 when they are discarded).
        """
