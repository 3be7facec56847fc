"""The trace field that goes in front of each message (RFC 5321 §4.4; RFC 6531 §4.3 for the internationalised forms)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from ipaddress import ip_address

__all__ = ["Trace"]

MAX_NAME = 255  # octets of the client's name that are repeated

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9.:_\[\]\-]+")


class Trace:
    """What the field says of where a session's messages come from: made once, at its greeting.

    `helo` is the client's name for itself, which may be anything; `client` the address of its end, "" for none.
    """

    __slots__ = ("_head", "_utf8_head")

    def __init__(
        self, *, helo: str, client: str, hostname: str, extended: bool, tls: bool = False, authenticated: bool = False
    ) -> None:
        suffix = ("S" if tls else "") + ("A" if authenticated else "")
        protocol = "ESMTP" + suffix if extended or suffix else "SMTP"
        origin = _NOT_IN_A_NAME.sub("?", helo)[:MAX_NAME] or "unknown"
        head = f"Received: from {origin} ({_literal(client)})\r\n\tby {hostname} with "
        self._head = f"{head}{protocol} id "
        self._utf8_head = f"{head}UTF8SMTP{suffix} id "

    def render(self, *, token: int, received_at: int, smtputf8: bool, recipient: str | None) -> bytes:
        """Give the field, folded, ending in CRLF.

        `token` becomes its `id`; `received_at` is µs since the epoch; `recipient` is named only where there is one, so
        that none learns of another.
        """
        head = self._utf8_head if smtputf8 else self._head
        addressee = "" if recipient is None else f"\r\n\tfor <{recipient}>"
        return f"{head}{token:X}{addressee};\r\n\t{_date(received_at // 1_000_000)}\r\n".encode()


@lru_cache(maxsize=4)
def _date(second: int) -> str:
    return format_datetime(datetime.fromtimestamp(second, UTC))


def _literal(client: str) -> str:
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return "unknown"
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"
