"""What all sessions of a listener go by: whom it serves, its limits, and where its mail goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from mtactl.edge.content import MemoryBudget
from mtactl.edge.ports import Intake
from mtactl.message.headers import CampaignHeaders
from mtactl.message.reply import Reply
from mtactl.settings import ListenerSettings

__all__ = ["ListenerPolicy", "TokenSource", "wall_clock"]

DAY = 86_400


def wall_clock() -> int:
    """Give µs since the epoch."""
    return time.time_ns() // 1000


class TokenSource:
    """Gives numbers for the `id` of Received: fields: the time in µs, and never the same one twice."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0

    def take(self, now: int) -> int:
        """Give a number that was not given before."""
        self._last = max(self._last + 1, now)
        return self._last


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerPolicy:
    """One listener's rules. `longest_hold` gives the longest FUTURERELEASE in seconds; `now` µs since the epoch."""

    hostname: str
    settings: ListenerSettings
    campaigns: CampaignHeaders
    intake: Intake
    longest_hold: Callable[[], int] = lambda: 30 * DAY
    max_errors: int = 20  # refused commands in a session, since the last message that was taken
    now: Callable[[], int] = wall_clock
    budget: MemoryBudget = field(init=False)
    too_large: Reply = field(init=False)
    tokens: TokenSource = field(init=False, default_factory=TokenSource)
    _networks: Sequence[IPv4Network | IPv6Network] = field(init=False)

    def __post_init__(self) -> None:
        networks = tuple(ip_network(network, strict=False) for network in self.settings.relay_from)
        object.__setattr__(self, "_networks", networks)
        size = self.settings.max_message_size
        too_large = Reply(552, "5.3.4", f"the message is larger than the maximum of {size} octets")
        object.__setattr__(self, "too_large", too_large)
        object.__setattr__(self, "budget", MemoryBudget(self.settings.max_memory))

    @property
    def max_hold(self) -> int:
        """The longest FUTURERELEASE in seconds, by the present configuration."""
        return self.longest_hold()

    def keywords(self) -> Sequence[str]:
        """Give the extensions that EHLO offers (CONTRACT.md §7)."""
        longest = self.max_hold
        latest = datetime.fromtimestamp(self.now() // 1_000_000 + longest, UTC)
        return (
            "PIPELINING",
            f"SIZE {self.settings.max_message_size}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "CHUNKING",
            "DSN",
            f"FUTURERELEASE {longest} {latest:%Y-%m-%dT%H:%M:%SZ}",
        )

    def may_relay(self, client: str) -> bool:
        """Whether a client at this address may inject without a password."""
        try:
            address = ip_address(client.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)
