"""The trace field that goes in front of each message (RFC 5321 §4.4; RFC 6531 §4.3 for the internationalised forms)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from ipaddress import ip_address

from mtactl.message import queue_id

__all__ = ["Trace"]

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9.:_\[\]\-]+")
MAX_NAME = 255  # octets of the client's name that are repeated


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What the field says of where the message came from. `client` is the address of the client's end, "" for none."""

    helo: str
    client: str
    hostname: str
    extended: bool
    tls: bool = False
    authenticated: bool = False

    def render(self, *, token: int, received_at: int, smtputf8: bool, recipient: str | None) -> bytes:
        """Give the field, folded, ending in CRLF.

        `token` becomes its `id`; `received_at` is µs since the epoch; `recipient` is named only where there is one, so
        that none learns of another.
        """
        origin = _NOT_IN_A_NAME.sub("?", self.helo)[:MAX_NAME] or "unknown"
        lines = [
            f"Received: from {origin} ({_literal(self.client)})",
            f"by {self.hostname} with {self._protocol(smtputf8)} id {queue_id.encode(token)}",
        ]
        date = _date(received_at // 1_000_000)
        if recipient is None:
            lines[-1] += ";"
        else:
            lines.append(f"for <{recipient}>;")
        lines.append(date)
        return "\r\n\t".join(lines).encode("utf-8") + b"\r\n"

    def _protocol(self, smtputf8: bool) -> str:
        suffix = ("S" if self.tls else "") + ("A" if self.authenticated else "")
        if smtputf8:
            return "UTF8SMTP" + suffix
        return "ESMTP" + suffix if self.extended or suffix else "SMTP"


@lru_cache(maxsize=4)
def _date(second: int) -> str:
    return format_datetime(datetime.fromtimestamp(second, UTC))


@lru_cache(maxsize=1024)
def _literal(client: str) -> str:
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return "unknown"
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"
