"""Quantities as people write them: "64MiB", "1h30m", "6000/min", "[::1]:25", "0660".

Each function takes text and gives a value, or raises ValueError with a phrase that says what is wrong with the text
and what would be right; the caller puts the key in front of it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

__all__ = [
    "FORMS",
    "LONGEST_DURATION",
    "is_host",
    "parse_duration",
    "parse_header_name",
    "parse_host_port",
    "parse_lane_pattern",
    "parse_mode",
    "parse_nameserver",
    "parse_network",
    "parse_rate",
    "parse_size",
    "show_duration",
]

LONGEST_DURATION = 36500 * 86400.0  # a hundred years: beyond it, dates can't be computed

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZES = {"": 1} | {
    f"{letter}{binary}": (1024 if binary else 1000) ** power
    for power, letter in enumerate("KMGT", start=1)
    for binary in ("", "i")
}
_PER = {"s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}
_PER |= {"d": 86400.0, "day": 86400.0}

_NUMBER = r"\d+(?:\.\d+)?"
_DURATION = re.compile(rf"(?:{_NUMBER}(?:ms|s|min|m|h|d|w)\s*)+", re.ASCII)
_DURATION_PART = re.compile(rf"({_NUMBER})(ms|s|min|m|h|d|w)", re.ASCII)
_SIZE = re.compile(rf"({_NUMBER})\s*([kKMGT]?i?)B", re.ASCII)
_RATE = re.compile(rf"({_NUMBER})\s*/\s*([a-z]+)", re.ASCII)
_BARE_NUMBER = re.compile(_NUMBER, re.ASCII)
_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_FTEXT = re.compile(r"[\x21-\x39\x3b-\x7e]+")  # RFC 5322 §3.6.8: printable, no colon


def _any_case(words: Iterable[str]) -> str:
    return "|".join("".join(f"[{letter}{letter.upper()}]" for letter in word) for word in words)


_HOST = rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*"
_IPV4 = r"(?:\d{1,3}\.){3}\d{1,3}"
_IPV6 = r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[^\]/\s]+)?"
_PORT = r"0*(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])"
_LOW_LABEL = _LABEL.pattern.replace("A-Z", "")

# What the functions below take, as a regular expression for the JSON schema (ECMA 262), which may take somewhat more:
# these are to help while someone writes; the functions decide.
FORMS = {
    "duration": rf"^\s*{_DURATION.pattern}$",
    "size": rf"^\s*{_NUMBER}\s*(?:[kKMGT]i?)?B\s*$",
    "rate": rf"^\s*(?:{_any_case(['none'])}|{_NUMBER}\s*/\s*(?:{_any_case(sorted(_PER))}))\s*$",
    "mode": r"^\s*0?[67][0-7]{2}\s*$",
    "host": rf"^(?:{_HOST}|{_IPV6})$",
    "host_port": rf"^\s*(?:\[{_IPV6}\]|{_HOST}):{_PORT}\s*$",
    "listen": rf"^\s*(?:\[{_IPV6}\]|{_HOST}|\*)?:(?:{_PORT}|0+)\s*$",
    "nameserver": rf"^\s*(?:{_IPV4}(?::{_PORT})?|{_IPV6}|\[{_IPV6}\]:{_PORT})\s*$",
    "network": rf"^\s*(?:{_IPV4}(?:/[\d.]+)?|{_IPV6}(?:/\d{{1,3}})?)\s*$",
    "header": r"^[!-9;-~]{1,77}$",
    "lane": rf"^(?:\*|(?:\*\.)?{_LOW_LABEL}(?:\.{_LOW_LABEL})*|\[(?:ipv6:)?[0-9a-f:.]+(?:%[^\]]+)?\])$",
}


def parse_duration(text: str) -> float:
    """Give the seconds of "250ms", "5s", "1m", "2h", "30d", "2w" or a sequence of them ("1h30m")."""
    stripped = text.strip()
    if not _DURATION.fullmatch(stripped):
        if _BARE_NUMBER.fullmatch(stripped):
            raise ValueError(f'"{text}" has no unit: write "{stripped}s" if seconds are meant')
        raise ValueError(
            f'"{text}" is not a time: write a number and a unit (ms, s, m, h, d, w), such as "90s" or "1h30m"'
        )
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(stripped))
    if seconds > LONGEST_DURATION:
        raise ValueError(f'"{text}" is longer than a hundred years')
    return seconds


def show_duration(seconds: float) -> str:
    """Write a time as `parse_duration` reads it, with the largest unit that divides it: "90s", "1h", "250ms"."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("m", 60.0)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    number, unit = (seconds * 1000, "ms") if 0 < seconds < 1 else (seconds, "s")
    return f"{f'{number:.3f}'.rstrip('0').rstrip('.')}{unit}"


def parse_size(text: str) -> int:
    """Give the bytes of "512B", "64KiB" (1024), "50MB" (1000), "1.5GiB"."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or (prefix := found[2].replace("k", "K")) not in _SIZES:
        if _BARE_NUMBER.fullmatch(text.strip()):
            raise ValueError(f'"{text}" has no unit: write "{text.strip()}B" if bytes are meant')
        raise ValueError(f'"{text}" is not a size: write a number and a unit, such as "512B", "64MiB" or "50MB"')
    size = float(found[1]) * _SIZES[prefix]
    if size != int(size):
        raise ValueError(f'"{text}" is not a whole number of bytes')
    if size >= 1 << 60:
        raise ValueError(f'"{text}" is more than any disk holds')
    return int(size)


def parse_rate(text: str) -> float | None:
    """Give the recipients a second of "100/s", "6000/min", "500/h"; None for "none"."""
    stripped = text.strip().lower()
    if stripped == "none":
        return None
    found = _RATE.fullmatch(stripped)
    if found is None or found[2] not in _PER:
        raise ValueError(
            f'"{text}" is not a rate: write "none", or a number and a unit such as "100/s", "6000/min" or "500/h"'
        )
    rate = float(found[1]) / _PER[found[2]]
    if rate == 0:
        raise ValueError(f'"{text}" would never let anything go: write "none" for no limit, or use `mtactl hold`')
    return rate


def is_host(host: str) -> bool:
    """Tell whether the text is a host name in ASCII (RFC 1123 §2.1) or an address, without brackets."""
    labels = host.split(".")
    is_name = len(host) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()
    return is_name or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def parse_host_port(text: str, *, wildcard: bool) -> tuple[str, int]:
    """Give the host and the port of "127.0.0.1:25", "mx.example.com:25" or "[::1]:25".

    With `wildcard` the host may be empty (":2525", "*:2525": all addresses, given as "") and the port 0 (any free one).
    """
    stripped = text.strip()
    host, colon, digits = stripped.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")) or host.endswith(":"):
        if is_host(stripped) and ":" in stripped:
            raise ValueError(f'"{text}" needs a port: write "[{stripped}]:25"')
        if is_host(stripped):
            raise ValueError(f'"{text}" needs a port: write "{stripped}:25"')
        raise ValueError(f'"{text}" is not an address: write "host:port", or "[::1]:25" for IPv6')
    if not (digits.isascii() and digits.isdigit()) or not (0 if wildcard else 1) <= int(digits) <= 65535:
        raise ValueError(f'"{text}": "{digits}" is not a port: a number from 1 to 65535')
    if host in {"", "*"} and wildcard:
        return "", int(digits)
    if host.startswith("["):
        literal = host[1:-1] if host.endswith("]") else host
        try:
            ipaddress.IPv6Address(literal)
        except ValueError:
            raise ValueError(f'"{text}": "{literal}" is not an IPv6 address') from None
        return literal, int(digits)
    if not is_host(host):
        raise ValueError(f'"{text}": "{host}" is not a host name or an address')
    return host, int(digits)


def parse_nameserver(text: str) -> str:
    """Check "192.0.2.53", "2001:db8::53", "192.0.2.53:5353" or "[2001:db8::53]:5353"; give it back, stripped."""
    stripped = text.strip()
    try:
        ipaddress.ip_address(stripped)
    except ValueError:
        try:
            host, _port = parse_host_port(stripped, wildcard=False)
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(
                f'"{text}" is not the address of a name server: write an IP address, such as "192.0.2.53" '
                'or "[::1]:5353", since a name would have to be looked up first'
            ) from None
    return stripped


def parse_network(text: str) -> str:
    """Check a CIDR network ("192.0.2.0/24", "::1/128", or a single address); give it in its usual form."""
    try:
        return str(ipaddress.ip_network(text.strip()))
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(f'"{text}" is not a network: write it like "192.0.2.0/24" or "2001:db8::/32"') from None
    raise ValueError(f'"{text}" has host bits set: write "{meant}" for the network, or the address without the "/"')


def parse_mode(text: str) -> int:
    """Give the permission bits of "0660"."""
    if not _MODE.fullmatch(text.strip()):
        raise ValueError(f'"{text}" is not a file mode: write three octal digits, such as "0660"')
    mode = int(text, 8)
    if mode & 0o600 != 0o600:
        raise ValueError(f'"{text}" locks out the daemon\'s own user: the first digit must be 6 or 7')
    return mode


def parse_header_name(text: str) -> str:
    """Check the name of a header field (RFC 5322 §3.6.8, `ftext`)."""
    if text.endswith(":") and _FTEXT.fullmatch(text[:-1]):
        raise ValueError(f'"{text}" has a colon, which is not part of the name: write "{text[:-1]}"')
    if not _FTEXT.fullmatch(text):
        raise ValueError(f'"{text}" is not a header name: printable ASCII without blanks and colons (RFC 5322)')
    if len(text) > 77:
        raise ValueError(f'"{text[:20]}…" is too long for a header name: no line could hold it and a value')
    return text


def parse_lane_pattern(text: str) -> str:
    """Check the name of a `[lane."…"]` table: "*", "*.suffix", a domain, or an address literal, all in lower case."""
    if text == "*":
        return text
    if text != text.lower() and text.isascii():
        raise ValueError(f'"{text}" has capital letters, and lanes are named without: write "{text.lower()}"')
    if not text.isascii():
        raise ValueError(f'"{text}" has letters beyond ASCII: write the domain in its A-label form ("xn--…")')
    if text.startswith("[") and text.endswith("]"):
        literal = text[1:-1]
        try:
            ipaddress.ip_address(literal[5:] if literal.lower().startswith("ipv6:") else literal)
        except ValueError:
            raise ValueError(f'"{text}" is not an address literal (RFC 5321 §4.1.3)') from None
        return text
    _check_lane_domain(text, text.removeprefix("*."))
    return text


def _check_lane_domain(text: str, domain: str) -> None:
    if "*" in domain:
        raise ValueError(
            f'"{text}": the star stands alone or first, before a dot: "*" or "*.{domain.strip("*.") or "com"}"'
        )
    if domain.endswith(".") and is_host(domain[:-1]):
        raise ValueError(f'"{text}" ends in a dot: write "{text[:-1]}"')
    if "@" in domain:
        raise ValueError(f'"{text}" is a mail address: a lane is named by the domain, "{domain.rpartition("@")[2]}"')
    if _is_address(domain):
        literal = f"[ipv6:{domain}]" if ":" in domain else f"[{domain}]"
        raise ValueError(f'"{text}" is an address: the lane of mail to an address literal is named "{literal}"')
    if not is_host(domain):
        raise ValueError(f'"{text}" is not "*", "*.suffix" or a domain name')
