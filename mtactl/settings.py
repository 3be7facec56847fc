"""The configuration's schema (CONTRACT.md §5). Frozen values; durations are in seconds, sizes in bytes.

What a single value may be is in settings_types; what keys say against each other is found by `contradictions`, which
`load_settings` asks. Settings that are built in Python are checked value by value only.

`[lane."…"]` tables inherit: each key comes from the most specific table that sets it. For `mx.example.com` these are
looked at, in this order: "mx.example.com", "*.example.com", "*.com", "*", and then the built-in default.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from mtactl import settings_types as kind
from mtactl.quantities import show_duration
from mtactl.settings_file import Contradiction, read_settings

__all__ = [
    "CampaignSettings",
    "ControlSettings",
    "DeliverySettings",
    "DnsSettings",
    "LaneSettings",
    "ListenerSettings",
    "LogSettings",
    "MetricsSettings",
    "NodeSettings",
    "Settings",
    "StoreSettings",
    "TimeoutSettings",
    "contradictions",
    "load_settings",
]


class Section(BaseModel):
    """A table of the file: frozen, and a key that it does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeSettings(Section):
    """`[node]`."""

    name: kind.NodeName = Field(default_factory=socket.gethostname)
    hostname: kind.EhloName = Field(default_factory=socket.getfqdn)


class StoreSettings(Section):
    """`[store]`."""

    path: kind.StorePath = Path("/var/lib/mtactl")
    reserve: kind.Reserve = 64 << 20  # bytes
    keep_outcomes: kind.Duration = 30 * 86400.0


class ControlSettings(Section):
    """`[control]`. `operators` and `observers` are groups."""

    socket: kind.SocketPath = Path("/run/mtactl/control.sock")
    mode: kind.Mode = 0o660
    operators: tuple[kind.Group, ...] = ("mtactl",)
    observers: tuple[kind.Group, ...] = ("adm",)


class MetricsSettings(Section):
    """`[metrics]`. `listen` None: no listener."""

    listen: kind.OptionalListenAddress = ("127.0.0.1", 9464)


class LogSettings(Section):
    """`[log]`."""

    format: Literal["json", "console"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


class ListenerSettings(Section):
    """`[[listener]]`. The host "" stands for all addresses; port 0 for any that is free."""

    listen: kind.ListenAddress = ("127.0.0.1", 2525)
    relay_from: tuple[kind.Network, ...] = ("127.0.0.0/8", "::1/128")
    max_message_size: kind.Size = 50 << 20  # bytes
    max_recipients: kind.Count = 1000
    max_connections: kind.Count = 1000
    max_line_length: kind.LineLength = 1000  # of text lines, CRLF included (RFC 5321 §4.5.3.1.6)
    command_timeout: kind.Duration = 300.0  # RFC 5321 §4.5.3.2.7
    data_timeout: kind.Duration = 180.0  # a data block
    max_memory: kind.Size = 512 << 20  # bytes; all messages being received together


class CampaignSettings(Section):
    """`[campaign]`. The first of `headers` that a message has names its campaign."""

    headers: tuple[kind.HeaderName, ...] = ("X-Campaign-ID", "X-Campaign", "X-Job")
    after_halt: Literal["reject", "discard"] = "reject"


class DnsSettings(Section):
    """`[dns]`. Name servers are "address", "address:port" or "[address]:port"; none: the system's."""

    nameservers: tuple[kind.Nameserver, ...] = ()
    timeout: kind.Duration = 5.0  # one query
    lifetime: kind.Duration = 15.0  # one question with its retries


class TimeoutSettings(Section):
    """`[delivery.timeouts]`: RFC 5321 §4.5.3.2."""

    connect: kind.Duration = 30.0
    greeting: kind.Duration = 300.0
    ehlo: kind.Duration = 300.0
    starttls: kind.Duration = 300.0
    mail: kind.Duration = 300.0
    rcpt: kind.Duration = 300.0
    data: kind.Duration = 120.0
    data_block: kind.Duration = 180.0
    data_end: kind.Duration = 600.0
    quit: kind.Duration = 5.0


class DeliverySettings(Section):
    """`[delivery]`. The last of `retry` repeats until `expire_after`."""

    port: kind.Port = 25
    retry: tuple[kind.Duration, ...] = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0)
    expire_after: kind.Duration = 3 * 86400.0
    idle_connection: kind.DurationOrZero = 5.0
    max_connections: kind.Count = 3000  # all lanes together
    max_connections_per_attempt: kind.Count = 5  # MX hosts tried for one session
    shutdown_timeout: kind.DurationOrZero = 30.0
    tls: Literal["may", "none"] = "may"  # opportunistic STARTTLS (RFC 7435)
    timeouts: TimeoutSettings = TimeoutSettings()


class LaneSettings(Section):
    """`[lane."PATTERN"]`. `rate` is recipients a second, None for no limit."""

    max_connections: kind.Count = 20
    max_deliveries_per_connection: kind.Count = 100
    max_recipients_per_transaction: kind.TransactionSize = 50
    rate: kind.Rate = None
    burst: kind.Count = 1  # recipients that may go at once under `rate`
    route: tuple[kind.Address, ...] = ()
    pipelining: StrictBool = True
    backoff: tuple[kind.Duration, ...] = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0)  # out of reach; the last repeats


class Settings(Section):
    """The whole file."""

    node: NodeSettings = Field(default_factory=NodeSettings)
    store: StoreSettings = StoreSettings()
    control: ControlSettings = ControlSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
    listener: tuple[ListenerSettings, ...] = (ListenerSettings(),)
    campaign: CampaignSettings = CampaignSettings()
    dns: DnsSettings = DnsSettings()
    delivery: DeliverySettings = DeliverySettings()
    lane: dict[kind.LanePattern, LaneSettings] = {}

    def lane_settings(self, lane: str) -> LaneSettings:
        """Give the limits of a lane, by its exact name, then the longest `*.suffix`, then `*`, then the defaults."""
        lanes = self._lanes
        found = lanes.get(lane)
        if found is not None:
            return found
        if self._has_suffixes:
            dot = lane.find(".")
            while dot != -1:
                found = lanes.get(f"*{lane[dot:]}")
                if found is not None:
                    return found
                dot = lane.find(".", dot + 1)
        return lanes["*"]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy, with some sections replaced; what the lanes inherit is worked out anew."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("_lanes", "_has_suffixes"):
            copied.__dict__.pop(name, None)
        return copied

    @cached_property
    def _lanes(self) -> dict[str, LaneSettings]:
        """What each lane pattern comes to with all that it inherits; "*" is always there."""
        return {pattern: self._inherit(pattern) for pattern in {"*", *self.lane}}

    @cached_property
    def _has_suffixes(self) -> bool:
        return any(pattern.startswith("*.") for pattern in self.lane)

    def _inherit(self, pattern: str) -> LaneSettings:
        labels = pattern.removeprefix("*.").split(".")
        wider = [f"*.{'.'.join(labels[start:])}" for start in range(len(labels) - 1, 0, -1)]
        values: dict[str, object] = {}
        for name in ("*", *wider, pattern):
            if name in self.lane:
                section = self.lane[name]
                values |= {key: getattr(section, key) for key in section.model_fields_set}
        return LaneSettings.model_validate(values)


def load_settings(path: Path) -> Settings:
    """Read and check a configuration file. Raises ConfigError with every problem at once."""
    return read_settings(path, Settings, contradictions)


def contradictions(settings: Settings) -> Iterator[Contradiction]:
    """Find the values that are possible each by itself, but not together."""
    yield from _impossible_schedules(settings)
    yield from _clashing_addresses(settings)
    for number, listener in enumerate(settings.listener):
        if listener.max_message_size > listener.max_memory:
            yield Contradiction(
                "a message of max_message_size would need more than max_memory, and be refused for ever",
                ("listener", number, "max_message_size"),
                ("listener", number, "max_memory"),
            )


def _impossible_schedules(settings: Settings) -> Iterator[Contradiction]:
    delivery, dns = settings.delivery, settings.dns
    if not delivery.retry:
        yield Contradiction(
            "an empty list leaves no time for a second attempt: give one at least", ("delivery", "retry")
        )
    elif delivery.expire_after < delivery.retry[0]:
        yield Contradiction(
            f"mail would expire after {show_duration(delivery.expire_after)}, before the first retry "
            f"after {show_duration(delivery.retry[0])}: one temporary failure would end each recipient",
            ("delivery", "expire_after"),
            ("delivery", "retry"),
        )
    if dns.timeout > dns.lifetime:
        yield Contradiction(
            f"one query may take {show_duration(dns.timeout)}, longer than the whole question with its retries "
            f"({show_duration(dns.lifetime)})",
            ("dns", "timeout"),
            ("dns", "lifetime"),
        )
    for pattern, lane in settings.lane.items():
        if not lane.backoff:
            yield Contradiction(
                "a destination out of reach would be tried without a pause", ("lane", pattern, "backoff")
            )
    headers = [name.lower() for name in settings.campaign.headers]
    if not headers:
        yield Contradiction(
            "without a header no mail has a campaign, and nothing can be halted", ("campaign", "headers")
        )
    for number, name in enumerate(headers):
        if name in headers[:number]:
            yield Contradiction(
                f'"{settings.campaign.headers[number]}" is in the list already (case does not matter)',
                ("campaign", "headers", number),
            )


def _clashing_addresses(settings: Settings) -> Iterator[Contradiction]:
    taken: list[tuple[tuple[str | int, ...], tuple[str, int]]] = [
        (("listener", number, "listen"), listener.listen) for number, listener in enumerate(settings.listener)
    ]
    if settings.metrics.listen is not None:
        taken.append((("metrics", "listen"), settings.metrics.listen))
    for (first, one), (second, other) in combinations(taken, 2):
        if one[1] == other[1] != 0 and _covers(one[0], other[0]):
            yield Contradiction(
                f"port {one[1]} of the same address is taken twice: two can't listen on it", second, first
            )
    for pattern, lane in settings.lane.items():
        for number, (host, port) in enumerate(lane.route):
            for key, listen in taken:
                if key[0] == "listener" and port == listen[1] and _covers(listen[0], host, named=False):
                    yield Contradiction(
                        "this is the daemon's own listener: the mail would come back to it for ever",
                        ("lane", pattern, "route", number),
                        key,
                    )


def _covers(one: str, other: str, *, named: bool = True) -> bool:
    """Tell whether two hosts to listen on are the same, or one stands for all addresses of the other's family.

    Without `named`, `other` is a host to connect to: all addresses then stand for the loopback ones only.
    """
    if one == other:
        return True
    try:
        first, second = (None if host == "" else ipaddress.ip_address(host) for host in (one, other))
    except ValueError:
        return named and "" in {one, other}
    if not named:
        return (
            (first is None or (first.is_unspecified and second is not None and first.version == second.version))
            and second is not None
            and second.is_loopback
        )
    if first is None or second is None:
        return True
    return first == second or (first.version == second.version and (first.is_unspecified or second.is_unspecified))
