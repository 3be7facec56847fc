"""Mail as the store gives it, made up."""

from __future__ import annotations

from queue_store.records import Message, Recipient

AT = 1_795_000_000_000_000


def make_message(number: int, campaign: str) -> Message:
    """Make the n-th message."""
    return Message(
        id=number,
        campaign=campaign,
        reverse_path="bounce@news.example",
        received_at=AT - 1_500_000,
        segment=1,
        offset=0,
        size=10_000,
        eight_bit=False,
        smtputf8=False,
        ret=None,
        envid=None,
    )


def make_reader(number: int) -> Recipient:
    """Make the recipient of the n-th message."""
    return Recipient(id=number + 1, address=f"reader{number}@inbox.example", attempts=0, notify=None, orcpt=None)
