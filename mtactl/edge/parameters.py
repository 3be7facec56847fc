"""The parameters of MAIL and RCPT: SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), RET, ENVID, NOTIFY and ORCPT
(RFC 3461, RFC 6533), HOLDFOR and HOLDUNTIL (RFC 4865).

Pure: text in, values or the refusing Reply out.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from mtactl.message.reply import Reply

__all__ = [
    "PLAIN_MAIL",
    "PLAIN_RCPT",
    "MailParameters",
    "RcptParameters",
    "parse_mail_parameters",
    "parse_rcpt_parameters",
]

MAX_ENVID = 100  # characters, RFC 3461 §4.4
MAX_ORCPT = 500  # characters, RFC 3461 §4.2
MICROSECOND = 1_000_000

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_SIZE = re.compile(r"[0-9]{1,20}")
_INTERVAL = re.compile(r"[1-9][0-9]{0,8}")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
# xtext whose decoded form is printable (RFC 3461 §4 and §4.4): "+" and "=" come as +2B and +3D.
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[2-7][0-9A-F](?<!\+7F))*")
_ORCPT = re.compile(r"([A-Za-z0-9-]{1,63});(.+)", re.DOTALL)
# RFC 6533 §3: raw characters, or \x{HEX} for those that can't be raw.
_UTF8_ADDRESS = re.compile(r"(?:[!-*,-<>-\[\]-~\u00a1-\U0010ffff]|\+[2-7][0-9A-F]|\\x\{[0-9A-F]{2,6}\})+")
_NOTIFY = frozenset({"SUCCESS", "FAILURE", "DELAY"})


class MailParameters(Struct, frozen=True, kw_only=True, gc=False):
    """What MAIL said. `size` is in octets as declared; `hold_until` in µs since the epoch."""

    size: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None
    hold_until: int | None = None


class RcptParameters(Struct, frozen=True, kw_only=True, gc=False):
    """What RCPT said: NOTIFY in capitals, ORCPT as it came."""

    notify: str | None = None
    orcpt: str | None = None


PLAIN_MAIL = MailParameters()
PLAIN_RCPT = RcptParameters()


def parse_mail_parameters(text: str, *, now: int, max_hold: int) -> MailParameters | Reply:
    """Read the parameters of MAIL. `now` is µs since the epoch, `max_hold` the longest hold in seconds."""
    if not text:
        return PLAIN_MAIL
    given = _split(text, "MAIL")
    if isinstance(given, Reply):
        return given
    if "HOLDFOR" in given and "HOLDUNTIL" in given:
        return _invalid("HOLDFOR and HOLDUNTIL exclude each other")
    values: dict[str, Any] = {}
    for keyword, value in given.items():
        if keyword not in _MAIL:
            return _unknown(keyword)
        name, read, rule = _MAIL[keyword]
        values[name] = found = read(value, now)
        if found is None:
            return _invalid(rule)
    if values.get("hold_until", 0) > now + max_hold * MICROSECOND:
        return _invalid(f"the message can be held for {max_hold} seconds at most")
    return MailParameters(**values)


def parse_rcpt_parameters(text: str, *, smtputf8: bool) -> RcptParameters | Reply:
    """Read the parameters of RCPT. `smtputf8` says whether MAIL had that parameter."""
    if not text:
        return PLAIN_RCPT
    given = _split(text, "RCPT")
    if isinstance(given, Reply):
        return given
    notify = orcpt = None
    for keyword, value in given.items():
        match keyword:
            case "NOTIFY":
                words = value.upper().split(",") if value else []
                if words != ["NEVER"] and (not words or not _NOTIFY.issuperset(words) or len(set(words)) != len(words)):
                    return _invalid("NOTIFY is NEVER, or a list of SUCCESS, FAILURE and DELAY")
                notify = ",".join(words)
            case "ORCPT":
                if not value or not _is_orcpt(value, smtputf8=smtputf8):
                    return _invalid(f"ORCPT is type;address in xtext, of at most {MAX_ORCPT} characters")
                orcpt = value
            case _:
                return _unknown(keyword)
    return RcptParameters(notify=notify, orcpt=orcpt)


def _split(text: str, command: str) -> dict[str, str | None] | Reply:
    given: dict[str, str | None] = {}
    for word in text.split(" "):
        if not word:
            continue
        keyword, equals, value = word.partition("=")
        if _KEYWORD.fullmatch(keyword) is None:
            return _invalid(f"parameters of {command} have the form KEYWORD=value")
        keyword = keyword.upper()
        if keyword in given:
            return _invalid(f"{keyword[:40]} is there twice")
        given[keyword] = value if equals else None
    return given


def _size(value: str | None, now: int) -> int | None:  # noqa: ARG001
    return int(value) if value is not None and _SIZE.fullmatch(value) is not None else None


def _body(value: str | None, now: int) -> bool | None:  # noqa: ARG001
    return {"7BIT": False, "8BITMIME": True}.get((value or "").upper())


def _smtputf8(value: str | None, now: int) -> bool | None:  # noqa: ARG001
    return True if value is None else None


def _ret(value: str | None, now: int) -> str | None:  # noqa: ARG001
    return {"FULL": "FULL", "HDRS": "HDRS"}.get((value or "").upper())


def _envid(value: str | None, now: int) -> str | None:  # noqa: ARG001
    return value if value and len(value) <= MAX_ENVID and _XTEXT.fullmatch(value) is not None else None


def _hold_for(value: str | None, now: int) -> int | None:
    if value is None or _INTERVAL.fullmatch(value) is None:
        return None
    return now + int(value) * MICROSECOND


def _hold_until(value: str | None, now: int) -> int | None:  # noqa: ARG001
    if value is None or _DATE_TIME.fullmatch(value) is None:
        return None
    try:
        moment = datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return calendar.timegm(moment.timetuple()) * MICROSECOND + moment.microsecond


# Keyword: the field of MailParameters, what reads its value (None: it can't be one), the rule.
_MAIL: dict[str, tuple[str, Callable[[str | None, int], Any], str]] = {
    "SIZE": ("size", _size, "SIZE is a number of octets"),
    "BODY": ("eight_bit", _body, "BODY is 7BIT or 8BITMIME"),
    "SMTPUTF8": ("smtputf8", _smtputf8, "SMTPUTF8 takes no value"),
    "RET": ("ret", _ret, "RET is FULL or HDRS"),
    "ENVID": ("envid", _envid, f"ENVID is xtext of at most {MAX_ENVID} characters"),
    "HOLDFOR": ("hold_until", _hold_for, "HOLDFOR is a number of seconds, from 1 to 999999999"),
    "HOLDUNTIL": ("hold_until", _hold_until, "HOLDUNTIL is a time as in RFC 3339"),
}


def _is_orcpt(value: str, *, smtputf8: bool) -> bool:
    if len(value) > MAX_ORCPT:
        return False
    found = _ORCPT.fullmatch(value)
    if found is None:
        return False
    kind, address = found.groups()
    if kind.lower() == "utf-8":
        return _UTF8_ADDRESS.fullmatch(address) is not None and (smtputf8 or address.isascii())
    return _XTEXT.fullmatch(address) is not None


def _invalid(what: str) -> Reply:
    return Reply(501, "5.5.4", what)


def _unknown(keyword: str) -> Reply:
    return Reply(555, "5.5.4", f"parameter {keyword[:40]} is not known here")
