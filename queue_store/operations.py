"""What is submitted to the committer: one value for each call of the store that writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from queue_store.index import Index
from queue_store.records import Appended, ClaimPage, NewMessage, Outcome, Settlement

__all__ = ["Append", "Call", "Claiming", "Close", "Operation", "Settle", "Unclaim", "Walk"]


@dataclass(slots=True, eq=False)
class Append:
    """Store a message."""

    future: asyncio.Future[Appended]
    message: NewMessage

    @property
    def weight(self) -> int:
        """How many recipients it writes, about."""
        return len(self.message.recipients)


@dataclass(slots=True, eq=False)
class Settle:
    """Record what became of claimed recipients."""

    future: asyncio.Future[Sequence[Outcome | None]]
    settlements: Sequence[Settlement]

    @property
    def weight(self) -> int:
        """How many recipients it writes, about."""
        return len(self.settlements)


@dataclass(slots=True, eq=False)
class Claiming:
    """Claim a page of a lane."""

    future: asyncio.Future[ClaimPage]
    lane: str
    limit: int
    cursor: int

    @property
    def weight(self) -> int:
        """How many recipients it writes, about."""
        return self.limit


@dataclass(slots=True, eq=False)
class Unclaim:
    """Put claimed recipients back."""

    future: asyncio.Future[None]
    claims: Sequence[tuple[str, int]]

    @property
    def weight(self) -> int:
        """How many recipients it writes, about."""
        return len(self.claims)


@dataclass(slots=True, eq=False)
class Call:
    """Anything rarer, done at its place in the order. `essential`: it may spend the reserve."""

    future: asyncio.Future[Any]
    work: Callable[[Index], Any]
    essential: bool = False

    @property
    def weight(self) -> int:
        """How many recipients it writes, about."""
        return 1

    @property
    def is_urgent(self) -> bool:
        """Whether someone waits who asked for it to be done at once: a halt, a hold."""
        return self.essential


@dataclass(slots=True, eq=False)
class Walk(Call):
    """One chunk of what goes over many rows. Walks keep an order among themselves."""

    @property
    def is_urgent(self) -> bool:
        """Never: a walk goes on as there is time."""
        return False


@dataclass(slots=True, eq=False)
class Close:
    """The last operation of a store."""

    future: asyncio.Future[None]


Operation = Append | Settle | Claiming | Unclaim | Call | Close
