"""Mailboxes as SMTP knows them (RFC 5321 §4.1.2 and §4.5.3.1, internationalised by RFC 6531).

What passes here is safe to be written into a `MAIL FROM` or `RCPT TO` again: no control characters, no angle bracket
outside a quoted string. The common form is one anchored regular expression that can't backtrack; everything else is
looked at more slowly.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import idna
from msgspec import Struct

__all__ = [
    "MAX_LOCAL_PART",
    "MAX_PATH",
    "PLAIN_MAILBOX",
    "AddressError",
    "Mailbox",
    "parse_domain",
    "parse_mailbox",
    "plain_mailbox",
]

MAX_LOCAL_PART = 64  # octets, RFC 5321 §4.5.3.1.1
MAX_DOMAIN = 253  # octets without the root's dot; RFC 5321 §4.5.3.1.2 says 255 of the form with lengths (RFC 1035)
MAX_PATH = 256  # octets, the angle brackets included: RFC 5321 §4.5.3.1.3

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?"
PLAIN_MAILBOX = rf"([{_ATEXT}]+(?:\.[{_ATEXT}]+)*)@({_LABEL}(?:\.{_LABEL})*)"  # local part and domain are its groups
_PLAIN = re.compile(PLAIN_MAILBOX)
_LOCAL = re.compile(
    rf"[{_ATEXT}\u0080-\U0010ffff]+(?:\.[{_ATEXT}\u0080-\U0010ffff]+)*"
    r'|"(?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*"'
)
_LITERAL = re.compile(r"\[(?:(?i:IPv6):(?P<six>[0-9A-Fa-f:.]{2,45})|(?P<four>[0-9.]{7,15}))\]")
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# C1 controls, line and paragraph separators, directional overrides, surrogates: never part of an address.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


class AddressError(ValueError):
    """The text is no mailbox; `enhanced` is the status code (RFC 3463) and `what` the sentence that says why."""

    def __init__(self, enhanced: str, what: str) -> None:
        super().__init__(what)
        self.enhanced = enhanced
        self.what = what


class Mailbox(Struct, frozen=True, kw_only=True, gc=False):
    """A mailbox. `address` is what is written on the wire; its domain is in A-label form where it had U-labels.

    `domain` is in lower case; an address literal keeps its brackets.
    """

    address: str
    domain: str

    @property
    def ascii(self) -> bool:
        """Whether the address can be sent without SMTPUTF8."""
        return self.address.isascii()


def parse_mailbox(text: str) -> Mailbox:
    """Read `local-part@domain`, without angle brackets. Raises AddressError (status x.1.3, or x.1.2 for the domain)."""
    found = _PLAIN.fullmatch(text)
    plain = None if found is None else plain_mailbox(text, found[1], found[2])
    return _parse_slowly(text) if plain is None else plain


def plain_mailbox(text: str, local: str, domain: str) -> Mailbox | None:
    """Give the mailbox that PLAIN_MAILBOX has found, with its two groups, or None if a part of it is too long."""
    if len(local) > MAX_LOCAL_PART or len(domain) > MAX_DOMAIN or len(text) > MAX_PATH - 2:
        return None
    return Mailbox(address=text, domain=domain.lower())


def parse_domain(text: str) -> str:
    """Give a domain or address literal in lower case and A-label form (RFC 5891). Raises AddressError (x.1.2)."""
    if text.startswith("["):
        return _parse_literal(text)
    if not text.isascii():
        text = _to_ascii(text)
    if _DOMAIN.fullmatch(text) is None:
        raise AddressError("5.1.2", "the domain is not one (RFC 5321 section 4.1.2)")
    if len(text) > MAX_DOMAIN:
        raise AddressError("5.1.2", "the domain is longer than 255 octets")
    return text.lower()


def _parse_slowly(text: str) -> Mailbox:
    local, at, domain = text.rpartition("@")
    if not at or not local or not domain:
        raise AddressError("5.1.3", "an address has the form local-part@domain")
    if _UNSAFE.search(text) is not None or _LOCAL.fullmatch(local) is None:
        raise AddressError("5.1.3", "the local part is not one (RFC 5321 section 4.1.2)")
    if len(local.encode()) > MAX_LOCAL_PART:
        raise AddressError("5.1.3", f"the local part is longer than {MAX_LOCAL_PART} octets")
    normal = parse_domain(domain)
    address = f"{local}@{domain if domain.isascii() else normal}"
    if len(address.encode()) > MAX_PATH - 2:
        raise AddressError("5.1.3", f"the path is longer than {MAX_PATH} octets")
    return Mailbox(address=address, domain=normal)


def _to_ascii(domain: str) -> str:
    try:
        # UTS 46 maps capitals and full-width forms, as every mail client does before it looks a name up.
        return idna.encode(domain, uts46=True, transitional=False).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise AddressError("5.1.2", "the domain is no internationalised domain name (RFC 5891)") from error


def _parse_literal(text: str) -> str:
    found = _LITERAL.fullmatch(text)
    if found is not None:
        try:
            if found["six"] is not None:
                IPv6Address(found["six"])
            else:
                IPv4Address(found["four"])
        except AddressValueError:
            found = None
    if found is None:
        raise AddressError("5.1.2", "the address literal is not one (RFC 5321 section 4.1.3)")
    return text.lower()
