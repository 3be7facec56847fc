"""The books: how many recipients of each campaign are in which state.

Every change is a transfer from one state to another, so the law of CONTRACT.md §1 (accepted = queued + in_flight + the
five outcomes) holds at each moment by construction. A transfer that would make a count negative is a defect of the
caller and raises. The queue store keeps the same counts durably; this is the copy that reports read.
"""

from __future__ import annotations

import enum
from collections.abc import ItemsView, Iterator
from dataclasses import dataclass

__all__ = ["Account", "Final", "Ledger"]


class Final(enum.Enum):
    """A recipient's final states (CONTRACT.md §1); the value is the name of the count."""

    DELIVERED = "delivered"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    DROPPED = "dropped"
    UNKNOWN = "unknown"


@dataclass(slots=True, kw_only=True)
class Account:
    """The counts of one campaign, in recipients. `deferred` and `scheduled` are parts of `queued`.

    `began` says that a transaction of it has begun on this node. `deferrals` counts temporary failures since the start.
    `closed` says that its gate has closed; `begun_after_stop` counts what began all the same, which nothing may: the
    gate is not asked here, so this is the check on those who ask it.
    """

    accepted: int = 0
    queued: int = 0
    deferred: int = 0
    scheduled: int = 0
    in_flight: int = 0
    delivered: int = 0
    delivered_after_stop: int = 0
    bounced: int = 0
    expired: int = 0
    dropped: int = 0
    unknown: int = 0
    refused: int = 0
    discarded: int = 0
    deferrals: int = 0
    begun_after_stop: int = 0
    began: bool = False
    closed: bool = False

    @property
    def balanced(self) -> bool:
        """Whether the law holds."""
        final = self.delivered + self.bounced + self.expired + self.dropped + self.unknown
        return self.accepted == self.queued + self.in_flight + final


class Ledger:
    """The accounts of all campaigns, the one of no campaign (the empty name), and their total."""

    __slots__ = ("_accounts", "total")

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self.total = Account()

    def __contains__(self, campaign: str) -> bool:
        return campaign in self._accounts

    def __len__(self) -> int:
        return len(self._accounts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._accounts)

    def items(self) -> ItemsView[str, Account]:
        """Give all campaigns with their accounts, that of no campaign among them."""
        return self._accounts.items()

    def account(self, campaign: str) -> Account:
        """Give the account of a campaign, opened if need be. Callers read it; only the ledger writes."""
        account = self._accounts.get(campaign)
        if account is None:
            account = self._accounts[campaign] = Account()
        return account

    def restore(self, campaign: str, account: Account) -> None:
        """Enter an account as the store had it at the start."""
        if campaign in self._accounts or not account.balanced:
            raise ValueError(f"campaign {campaign!r}: the books do not balance: {account}")
        self._accounts[campaign] = account
        for name in Account.__slots__:
            if name not in {"began", "closed"}:
                setattr(self.total, name, getattr(self.total, name) + getattr(account, name))

    def close(self, campaign: str) -> None:
        """Note that the gate of a campaign has closed: nothing of it may begin any more."""
        self.account(campaign).closed = True

    def accept(self, campaign: str, recipients: int, *, scheduled: int = 0) -> None:
        """Enter recipients that became durable in the queue."""
        for account in (self.account(campaign), self.total):
            account.accepted += recipients
            account.queued += recipients
            account.scheduled += scheduled

    def begin(self, campaign: str, recipients: int) -> None:
        """Move queued recipients to in flight: their transaction begins in this tick."""
        own = self.account(campaign)
        _check(own.queued - own.deferred - own.scheduled >= recipients, campaign, own)
        own.began = True
        for account in (own, self.total):
            account.queued -= recipients
            account.in_flight += recipients
        if own.closed:
            own.begun_after_stop += recipients
            self.total.begun_after_stop += recipients

    def finish(self, campaign: str, final: Final, *, after_stop: bool, in_flight: bool = True) -> None:
        """Move one recipient to a final state, from in flight or (`in_flight` false) from the queue."""
        own, total = self.account(campaign), self.total
        _check((own.in_flight if in_flight else own.queued) > 0, campaign, own)
        if in_flight:
            own.in_flight -= 1
            total.in_flight -= 1
        else:
            own.queued -= 1
            total.queued -= 1
        if final is not Final.DELIVERED:
            setattr(own, final.value, getattr(own, final.value) + 1)
            setattr(total, final.value, getattr(total, final.value) + 1)
            return
        own.delivered += 1
        total.delivered += 1
        if after_stop:
            own.delivered_after_stop += 1
            total.delivered_after_stop += 1

    def defer(self, campaign: str, *, in_flight: bool = True) -> None:
        """Move one recipient back to the queue as deferred, from in flight or from being ready."""
        own = self.account(campaign)
        _check(not in_flight or own.in_flight > 0, campaign, own)
        for account in (own, self.total):
            if in_flight:
                account.in_flight -= 1
                account.queued += 1
            account.deferred += 1
            account.deferrals += 1

    def promote(self, campaign: str, *, deferred: int, scheduled: int) -> None:
        """Note that deferred or scheduled recipients became ready."""
        own = self.account(campaign)
        _check(own.deferred >= deferred and own.scheduled >= scheduled, campaign, own)
        for account in (own, self.total):
            account.deferred -= deferred
            account.scheduled -= scheduled

    def remove(
        self, campaign: str, final: Final, *, ready: int, deferred: int, scheduled: int, unknown: int = 0
    ) -> None:
        """Move queued recipients to a final state, many at once; `unknown` of them to that one instead."""
        own = self.account(campaign)
        _check(own.deferred >= deferred and own.scheduled >= scheduled, campaign, own)
        recipients = ready + deferred + scheduled
        _check(own.queued >= recipients, campaign, own)
        for account in (own, self.total):
            account.queued -= recipients
            account.deferred -= deferred
            account.scheduled -= scheduled
            setattr(account, final.value, getattr(account, final.value) + recipients - unknown)
            account.unknown += unknown

    def refuse(self, campaign: str, recipients: int, *, discarded: bool = False) -> None:
        """Count recipients that came for a halted campaign; they were never accepted."""
        for account in (self.account(campaign), self.total):
            if discarded:
                account.discarded += recipients
            else:
                account.refused += recipients


def _check(holds: bool, campaign: str, account: Account) -> None:
    if not holds:
        raise ValueError(f"campaign {campaign!r}: a transfer that its books do not cover: {account}")
