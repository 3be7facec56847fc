"""The commands of a transaction, in the form that a peer's EHLO reply allows (RFC 5321 §4.1.1.11). No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from mtactl.message.reply import Reply
from mtactl.schedule.ports import Delivery, Rcpt

__all__ = ["Offers", "mail_command", "message_size", "rcpt_command", "refusal"]

_ENDS = (b"\r\n.\r\n", b".\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """The extensions of a peer that a transaction can make use of."""

    pipelining: bool = False  # RFC 2920
    size: int | None = None  # RFC 1870: octets, 0 for 'no limit that is known'; None: SIZE is not announced
    eight_bit: bool = False  # RFC 6152
    smtputf8: bool = False  # RFC 6531
    dsn: bool = False  # RFC 3461

    @classmethod
    def from_extensions(cls, extensions: Mapping[str, str], *, pipelining: bool) -> Self:
        """Read an EHLO reply: keywords in lower case with their parameters. `pipelining` False: don't use it."""
        size = extensions.get("size")
        digits = (size or "0").strip()
        return cls(
            pipelining=pipelining and "pipelining" in extensions,
            size=None if size is None else int(digits) if digits.isascii() and digits.isdigit() else 0,
            eight_bit="8bitmime" in extensions,
            smtputf8="smtputf8" in extensions,
            dsn="dsn" in extensions,
        )


def message_size(body: bytes) -> int:
    """Count the octets of a message in wire form as RFC 1870 §5 does: without the dots and the end that DATA adds."""
    stuffed = body.count(b"\r\n..") + body.startswith(b"..")
    return len(body) - 3 - stuffed


def refusal(delivery: Delivery, offers: Offers) -> Reply | None:
    """Say why a peer can't take the message at all, else None. What is in ASCII needs no extension, whatever it says.

    The controls in an address are looked for here too, though the edge lets none in: they would be commands.
    """
    addresses = delivery.reverse_path + "".join([rcpt.address for rcpt in delivery.recipients])
    # an address that is not printable fails here for each peer; one in quotes may have spaces
    if not addresses.isprintable():
        return Reply(553, "5.1.3", "an address has control characters")
    body = delivery.body
    if not offers.smtputf8:
        if not addresses.isascii():
            return Reply(550, "5.6.7", "the peer does not offer SMTPUTF8, and an address needs it")
        if delivery.smtputf8 and not body.isascii():
            return Reply(550, "5.6.7", "the peer does not offer SMTPUTF8, and the message needs it")
    if delivery.eight_bit and not offers.eight_bit and not body.isascii():
        return Reply(554, "5.6.3", "the peer does not offer 8BITMIME, and the message needs it")
    # the length is never below the size, so most messages are not searched for dots
    if offers.size and len(body) - 3 > offers.size and (size := message_size(body)) > offers.size:
        return Reply(552, "5.3.4", f"the message has {size} octets, the peer takes {offers.size}")
    return None


def mail_command(delivery: Delivery, offers: Offers) -> bytes:
    """Give MAIL FROM with the parameters that the peer knows. Raises ValueError if the message is not in wire form."""
    if not delivery.body.endswith(_ENDS[0]) and delivery.body != _ENDS[1]:
        raise ValueError("a message that does not end in CRLF.CRLF would never be answered")
    command = f"MAIL FROM:<{delivery.reverse_path}>"
    if offers.size is not None:
        command += f" SIZE={len(delivery.body) - 3}"  # an estimate, as RFC 1870 §6 has it: dots are not taken off
    if delivery.eight_bit and offers.eight_bit:
        command += " BODY=8BITMIME"
    if delivery.smtputf8 and offers.smtputf8:
        command += " SMTPUTF8"
    if offers.dsn:
        if delivery.ret:
            command += f" RET={delivery.ret}"
        if delivery.envid:
            command += f" ENVID={delivery.envid}"
    return f"{command}\r\n".encode()


def rcpt_command(rcpt: Rcpt, offers: Offers) -> bytes:
    """Give RCPT TO with the parameters that the peer knows."""
    command = f"RCPT TO:<{rcpt.address}>"
    if offers.dsn:
        if rcpt.notify:
            command += f" NOTIFY={rcpt.notify}"
        if rcpt.orcpt:
            command += f" ORCPT={rcpt.orcpt}"
    return f"{command}\r\n".encode()
