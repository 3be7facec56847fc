"""Commands as they stand on the wire, taken apart: verb and argument, paths, the size of a chunk. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from mtactl.message.address import PLAIN_MAILBOX, AddressError, Mailbox, parse_mailbox, plain_mailbox
from mtactl.message.reply import Reply

__all__ = [
    "AddressParser",
    "parse_chunk",
    "parse_command",
    "read_mailbox",
    "read_plain_mail",
    "read_plain_rcpt",
    "split_path",
]

# aiosmtpd's `_getaddr`: text to address and rest, (None, None) when it can't be read.
AddressParser = Callable[[str], tuple[str | None, str | None]]

MAX_ODD_PATH = 512  # characters: the email package takes 50 ms for some texts four times as long

# Only the commands that carry addresses may have other characters than ASCII (RFC 6531 §3.1, §3.4).
_WITH_ADDRESSES = frozenset({"MAIL", "RCPT", "VRFY"})

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_PATH = re.compile(r"<(?:@[^<>\s\"\\:]*:)?([^<>\s\"\\]*)>(?: +(.*))?", re.DOTALL)
_QUOTED_PATH = re.compile(r"""<(?:@[^<>\s"\\:]*:)?("(?:[^"\\]|\\.)*"@[^<>\s"\\]*)>(?: +(.*))?""", re.DOTALL)
# What nearly all senders say of nearly all mail.
_PLAIN_MAIL = re.compile(rf"FROM:<({PLAIN_MAILBOX})>(?: SIZE=([0-9]{{1,20}}))?")
_PLAIN_RCPT = re.compile(rf"TO:<({PLAIN_MAILBOX})>")
_CHUNK = re.compile(r"([0-9]{1,19})( +LAST)?", re.IGNORECASE)

# RFC 3463 has its own codes for the sender's address.
_SENDER_STATUS = {"5.1.3": "5.1.7", "5.1.2": "5.1.8"}

_NOT_TEXT = Reply(500, "5.5.2", "the command is not UTF-8")
_HAS_CONTROL = Reply(500, "5.5.2", "a control character in the command")
_NOT_ASCII = Reply(500, "5.5.2", "only addresses may have other than ASCII characters")


def parse_command(line: bytes) -> tuple[str, str] | Reply:
    """Take a line without its CRLF apart into the verb, in capitals, and the argument."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return _NOT_TEXT
    if not text.isprintable() and _CONTROL.search(text) is not None:
        return _HAS_CONTROL
    verb, _, argument = text.partition(" ")
    verb = verb.upper()
    if not text.isascii() and verb not in _WITH_ADDRESSES:
        return _NOT_ASCII
    return verb, argument.strip(" ")


def read_plain_mail(argument: str) -> tuple[Mailbox, int | None] | None:
    """Read a plain argument of MAIL in one step: the reverse-path and SIZE (None: not there).

    None for any other, which `split_path` and what follows it read; of this one they would make the same.
    """
    found = _PLAIN_MAIL.fullmatch(argument)
    if found is None:
        return None
    mailbox = plain_mailbox(found[1], found[2], found[3])
    return None if mailbox is None else (mailbox, None if found[4] is None else int(found[4]))


def read_plain_rcpt(argument: str) -> Mailbox | None:
    """Read a plain argument of RCPT in one step; None for any other."""
    found = _PLAIN_RCPT.fullmatch(argument)
    return None if found is None else plain_mailbox(found[1], found[2], found[3])


def split_path(keyword: str, argument: str, parse_address: AddressParser) -> tuple[str, str] | None:
    """Split `FROM:<path> parameters` into the path, without brackets and source route, and the parameters.

    None when it has not that form. `parse_address` reads paths that are out of the ordinary.
    """
    if argument[: len(keyword)].upper() != keyword:
        return None
    argument = argument[len(keyword) :].lstrip(" ")
    found = _PATH.fullmatch(argument)
    if found is not None:
        return found[1], found[2] or ""
    if '"' in argument:
        # The email package takes `"a"b` for ab, which may be somebody else.
        found = _QUOTED_PATH.fullmatch(argument)
        return None if found is None else (found[1], found[2] or "")
    if len(argument) > MAX_ODD_PATH:
        return None
    try:
        path, rest = parse_address(argument)
    except Exception:  # noqa: BLE001 - text that is no address trips the email package in a dozen ways
        return None
    if not path or rest is None:
        return None
    taken = argument.removesuffix(rest)
    # It mends what is not closed, and reads on where no space divides.
    closed = not taken.startswith("<") or taken.rstrip(" ").endswith(">")
    divided = not rest or taken.endswith(" ") or rest.startswith(" ")
    if not closed or not divided:
        return None
    return path, rest.strip(" ")


def read_mailbox(text: str, *, sender: bool, smtputf8: bool) -> Mailbox | Reply:
    """Give the mailbox of a path, or the refusal (553)."""
    try:
        mailbox = parse_mailbox(text)
    except AddressError as error:
        return Reply(553, _SENDER_STATUS.get(error.enhanced, error.enhanced) if sender else error.enhanced, error.what)
    if not smtputf8 and not text.isascii():
        return Reply(553, "5.6.7", "the address needs SMTPUTF8 (RFC 6531)")
    return mailbox


def parse_chunk(argument: str) -> tuple[int, bool] | None:
    """Give the octets of a BDAT chunk and whether it is the last one; None when nobody can tell (RFC 3030 §2)."""
    found = _CHUNK.fullmatch(argument)
    return None if found is None else (int(found[1]), found[2] is not None)
