"""How the world behaves: by recipient domain, and by the port that was called. Every odd is seeded.

A roll depends on the seed, the stage, the address and which attempt it is, and on nothing else: what becomes of a
recipient does not change with the order in which messages arrive.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """What a recipient domain does. Times are in seconds, odds between 0 and 1."""

    latency: float = 0.0  # of the reply to the end of data; the replies before it take a quarter of that each
    jitter: float = 0.0  # how far a latency strays, as a part of itself, each way
    slow: float = 0.0  # odds of an end of data that takes `slow_latency` instead
    slow_latency: float = 5.0
    greylist: bool = False  # 450 at the first attempt, to each address
    reject: float = 0.0  # 550 to RCPT TO
    defer: float = 0.0  # 451 to RCPT TO
    hang_up_rcpt: float = 0.0
    reject_data: float = 0.0
    defer_data: float = 0.0
    hang_up_data: float = 0.0  # in the middle of the message
    reject_end: float = 0.0
    defer_end: float = 0.0
    hang_up: float = 0.0  # after the end of the message, without a reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """What a listening port offers, and does before it can know the recipient's domain."""

    pipelining: bool = True
    eight_bit: bool = True
    smtputf8: bool = True
    dsn: bool = True
    chunking: bool = False
    size: int = 100 << 20  # octets; 0: not offered
    max_connections: int = 0  # 421 to those beyond; 0: no limit
    max_messages: int = 0  # of one connection, then 421; 0: no limit
    greeting_latency: float = 0.0
    refuse: float = 0.0  # odds of 554 instead of a greeting
    reject_mail: float = 0.0
    defer_mail: float = 0.0
    hang_up_mail: float = 0.0

    @property
    def features(self) -> list[str]:
        """Give the lines of EHLO's reply, less the first."""
        offered = {
            "PIPELINING": self.pipelining,
            "8BITMIME": self.eight_bit,
            "SMTPUTF8": self.smtputf8,
            "DSN": self.dsn,
            "CHUNKING": self.chunking,
            f"SIZE {self.size}": self.size > 0,
            "ENHANCEDSTATUSCODES": True,
        }
        return [feature for feature, is_offered in offered.items() if is_offered]


class Dice:
    """Rolls that can be told in advance."""

    def __init__(self, seed: int) -> None:
        self._salt = str(seed).encode()
        self._attempts: Counter[str] = Counter()

    def attempt(self, address: str) -> int:
        """Count an attempt to reach an address; the first one is 1."""
        self._attempts[address] += 1
        return self._attempts[address]

    def roll(self, stage: str, address: str, attempt: int) -> float:
        """Give a number from 0 up to 1."""
        digest = hashlib.blake2b(f"{stage}/{attempt}/{address}".encode(), digest_size=6, key=self._salt).digest()
        return int.from_bytes(digest, "big") / (1 << 48)


class Behaviour:
    """The profiles of all domains ("*": those without one of their own) and ports, and the dice."""

    def __init__(self, domains: dict[str, dict], ports: dict[str, dict], seed: int) -> None:
        self.dice = Dice(seed)
        self.ports = {name: Port(**given) for name, given in ports.items()}
        self.change(domains)

    def change(self, domains: dict[str, dict]) -> None:
        """Set what the domains do from now on. Raises TypeError for a key that there is not."""
        self._default = Domain(**domains.get("*", {}))
        self._domains = {name: replace(self._default, **given) for name, given in domains.items()}

    def of(self, address: str) -> Domain:
        """Give the profile for an address."""
        return self._domains.get(address.rpartition("@")[2].lower(), self._default)

    def wait(self, where: Domain, stage: str, address: str, attempt: int) -> float:
        """Give the seconds that a reply takes."""
        if stage == "end":
            if where.slow and self.dice.roll("slow", address, attempt) < where.slow:
                return where.slow_latency
            latency = where.latency
        else:
            latency = where.latency / 4
        if latency and where.jitter:
            latency *= 1 + where.jitter * (2 * self.dice.roll(f"wait {stage}", address, attempt) - 1)
        return latency
