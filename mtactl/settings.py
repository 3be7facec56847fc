"""The configuration's schema (CONTRACT.md §5). Frozen values; durations are in seconds, sizes in bytes."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Settings"]


class Section(BaseModel):
    """A table of the file: frozen, and a key that it does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeSettings(Section):
    """`[node]`."""

    name: str = Field(default_factory=socket.gethostname)
    hostname: str = Field(default_factory=socket.getfqdn)


class StoreSettings(Section):
    """`[store]`."""

    path: Path = Path("/var/lib/mtactl")
    reserve: int = 64 << 20  # bytes; parsed from "64MiB"
    keep_outcomes: float = 30 * 86400.0  # seconds; parsed from "30d"


class ControlSettings(Section):
    """`[control]`."""

    socket: Path = Path("/run/mtactl/control.sock")
    mode: int = 0o660
    operators: tuple[str, ...] = ("mtactl",)
    observers: tuple[str, ...] = ("adm",)


class MetricsSettings(Section):
    """`[metrics]`. `listen` None: no listener."""

    listen: tuple[str, int] | None = ("127.0.0.1", 9464)


class LogSettings(Section):
    """`[log]`."""

    format: Literal["json", "console"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


class ListenerSettings(Section):
    """`[[listener]]`."""

    listen: tuple[str, int] = ("127.0.0.1", 2525)
    relay_from: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    max_message_size: int = 50 << 20
    max_recipients: int = 1000
    max_connections: int = 1000
    max_line_length: int = 1000  # of text lines, CRLF included (RFC 5321 §4.5.3.1.6)
    command_timeout: float = 300.0  # RFC 5321 §4.5.3.2.7
    data_timeout: float = 180.0  # a data block
    max_memory: int = 512 << 20  # all messages being received together


class CampaignSettings(Section):
    """`[campaign]`."""

    headers: tuple[str, ...] = ("X-Campaign-ID", "X-Campaign", "X-Job")
    after_halt: Literal["reject", "discard"] = "reject"


class DnsSettings(Section):
    """`[dns]`."""

    nameservers: tuple[str, ...] = ()
    timeout: float = 5.0  # one query
    lifetime: float = 15.0  # one question with its retries


class TimeoutSettings(Section):
    """`[delivery.timeouts]`: RFC 5321 §4.5.3.2."""

    connect: float = 30.0
    greeting: float = 300.0
    ehlo: float = 300.0
    starttls: float = 300.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    data_block: float = 180.0
    data_end: float = 600.0
    quit: float = 5.0


class DeliverySettings(Section):
    """`[delivery]`."""

    port: int = 25
    retry: tuple[float, ...] = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0)
    expire_after: float = 3 * 86400.0
    idle_connection: float = 5.0
    max_connections: int = 3000  # all lanes together
    max_connections_per_attempt: int = 5  # MX hosts tried for one session
    shutdown_timeout: float = 30.0
    tls: Literal["may", "none"] = "may"  # opportunistic STARTTLS (RFC 7435)
    timeouts: TimeoutSettings = TimeoutSettings()


class LaneSettings(Section):
    """`[lane."PATTERN"]`. `rate` is recipients a second, None for no limit."""

    max_connections: Annotated[int, Field(ge=1)] = 20
    max_deliveries_per_connection: Annotated[int, Field(ge=1)] = 100
    max_recipients_per_transaction: Annotated[int, Field(ge=1, le=1000)] = 50
    rate: float | None = None
    burst: int = 1  # recipients that may go at once under `rate`
    route: tuple[tuple[str, int], ...] = ()
    pipelining: bool = True
    backoff: tuple[float, ...] = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0)  # of a destination out of reach; the last repeats


class Settings(Section):
    """The whole file."""

    node: NodeSettings = NodeSettings()
    store: StoreSettings = StoreSettings()
    control: ControlSettings = ControlSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
    listener: tuple[ListenerSettings, ...] = (ListenerSettings(),)
    campaign: CampaignSettings = CampaignSettings()
    dns: DnsSettings = DnsSettings()
    delivery: DeliverySettings = DeliverySettings()
    lane: dict[str, LaneSettings] = {}

    def lane_settings(self, lane: str) -> LaneSettings:
        """Give the limits of a lane: exact name, then the longest `*.suffix`, then `*`, then the defaults."""
        raise NotImplementedError


def load_settings(path: Path) -> Settings:
    """Read and check a configuration file. Raises ConfigError with every problem at once."""
    raise NotImplementedError
