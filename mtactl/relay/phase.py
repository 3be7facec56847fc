"""The words of the table of transaction.py: whose reply is awaited, and what kind of reply came."""

from __future__ import annotations

import enum

__all__ = ["KIND_OF_DIGIT", "Kind", "Phase"]


class Phase(enum.Enum):
    """Whose reply is awaited."""

    IDLE = "nothing"
    FRESHEN = "RSET before MAIL"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BODY = "the message"  # it is being written
    END = "the end of the message"
    DISCARD = "an empty message"  # nobody was accepted, yet the peer wanted a message (RFC 2920 §3.1)
    TIDY = "RSET"  # the transaction is decided
    QUIT = "QUIT"
    CLOSED = "closed"

    __hash__ = object.__hash__  # members are looked up at each reply, and Enum's own is slow


class Kind(enum.Enum):
    """What a reply says by its first digit (RFC 5321 §4.2.1); 421 speaks of the session as well (§3.8)."""

    DONE = 2
    GO_AHEAD = 3
    TRANSIENT = 4
    PERMANENT = 5
    CLOSING = 421

    __hash__ = object.__hash__


KIND_OF_DIGIT = {2: Kind.DONE, 3: Kind.GO_AHEAD, 4: Kind.TRANSIENT, 5: Kind.PERMANENT}
