"""Real newsletters: multipart with an inline image, 10 to 60 kB, personalised, to a realistic set of domains."""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.quoprimime import body_encode

DOMAINS = {
    "gmail.example": 45,
    "yahoo.example": 12,
    "outlook.example": 11,
    "hotmail.example": 8,
    "icloud.example": 6,
    "aol.example": 4,
    "gmx.example": 3,
    "web.example": 3,
    "orange.example": 2,
    "libero.example": 2,
    "corp-one.test": 2,
    "corp-two.test": 1,
    "university.test": 1,
}
_NAMES = ("Ada", "Grace", "Zoë", "Barbara", "Søren", "Radia", "Vint", "José", "Margaret", "Łukasz")
_WORDS = (
    *("offer", "season", "garden", "kitchen", "travel", "winter", "summer", "family", "discount", "café", "weekend"),
    *(
        "member",
        "collection",
        "jardín",
        "größer",
        "€ 19.90",
        "only",
        "this",
        "and",
        "more",
        "for",
        "you",
        "with",
        "the",
    ),
)
# What is filled in for each recipient. In letters that no encoding touches, and on lines short enough not to be broken.
_FIELDS = re.compile(rb"(HEADERNAME|BODYNAME|TOADDRESS|TESTKEY)")
_STYLE = """\
body { margin: 0; font-family: Georgia, serif; color: #222; background: #f4f1ea }
table.frame { width: 600px; margin: 0 auto; background: #fff }
td { padding: 12px 24px; line-height: 1.5 }
a.button { background: #b3541e; color: #fff; padding: 10px 18px; text-decoration: none }
"""


@dataclass(frozen=True, slots=True)
class Mail:
    """One message to inject: envelope and data (CRLF lines, not dot-stuffed)."""

    campaign: str
    sender: str
    recipient: str
    data: bytes

    @property
    def wire(self) -> bytes:
        """Give the message as it goes over the wire (RFC 5321 §4.5.2)."""
        stuffed = self.data.replace(b"\r\n.", b"\r\n..")
        return stuffed + (b".\r\n" if stuffed.endswith(b"\r\n") else b"\r\n.\r\n")

    @property
    def crc(self) -> int:
        """Give the CRC-32 of the body in wire form, without the header and the final dot."""
        return zlib.crc32(self.wire.partition(b"\r\n\r\n")[2][:-3])


def sender_of(campaign: str, key: int) -> str:
    """Give the envelope sender that tells the world the campaign and the message, also when no data follows.

    A local part has 64 octets: the name of a very long campaign is cut, and known from the header alone.
    """
    odd = r"[^A-Za-z0-9_-]" if ".." in campaign or campaign.endswith(".") else r"[^A-Za-z0-9_.-]"
    escaped = re.sub(odd, lambda one: f"={ord(one[0]):02X}", campaign)
    return f"bounce+{escaped[:45]}+{key}@news.example"


def png(width: int, height: int, seed: int) -> bytes:
    """Make a PNG of noise, about width * height bytes (noise does not compress)."""
    rng = random.Random(seed)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + rng.randbytes(width) for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _paragraph(rng: random.Random) -> str:
    return " ".join(rng.choices(_WORDS, k=8)).capitalize() + "."


def build_edition(campaign: str, number: int, seed: int) -> bytes:
    """Build one edition of a newsletter with the email package, its fields not filled in."""
    rng = random.Random(f"{seed}/{campaign}/{number}")
    side = rng.randint(62, 183)
    paragraphs = [_paragraph(rng) for _ in range(rng.randint(25, 60))]
    message = EmailMessage(policy=SMTP)
    message["From"] = "Corner Shop <news@news.example>"
    message["To"] = "HEADERNAME <TOADDRESS>"
    message["Subject"] = f"This {rng.choice(('week', 'weekend', 'season'))} in the shop, HEADERNAME"
    message["Date"] = "Sun, 22 Nov 2026 10:00:00 +0000"
    message["Message-ID"] = f"<{re.sub('[^A-Za-z0-9]', '-', campaign)}.TESTKEY@news.example>"
    message["X-Campaign-ID"] = campaign
    message["X-Test-Key"] = "TESTKEY"
    message["List-Unsubscribe"] = "<https://news.example/u/TESTKEY>"
    message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    text = "\n".join(paragraphs)
    message.set_content(
        f"Dear BODYNAME,\n\n{text}\n\n.\nThe line above is a dot\n..and this one begins with two\n\n"
        "To leave: https://news.example/u/TESTKEY\n",
        cte="quoted-printable",
    )
    rows = "".join(f"<tr><td>\n{paragraph}\n</td></tr>\n" for paragraph in paragraphs)
    message.add_alternative(
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n'
        '<table class="frame">\n'
        f'<tr><td><img src="cid:hero" alt=""></td></tr>\n<tr><td>\n<h1>Dear BODYNAME</h1>\n</td></tr>\n{rows}'
        '<tr><td>\n<a class="button"\nhref="https://news.example/c/TESTKEY">Have a look</a>\n</td></tr>\n'
        "<tr><td>\n<small>Sent to\nTOADDRESS</small>\n</td></tr>\n</table>\n</body>\n</html>\n",
        subtype="html",
        cte="quoted-printable",
    )
    page = message.get_payload()[1]
    page.add_related(png(side, side, seed + number), "image", "png", cid="<hero>", filename="hero.png")
    for level, part in enumerate((message, page)):
        part.set_boundary(f"=_edition_{number}_{level}")
    return message.as_bytes()


def newsletters(campaign: str, count: int, *, seed: int = 1, first: int = 0, editions: int = 16) -> Iterator[Mail]:
    """Give a campaign's messages, a recipient each. What a number gives does not depend on `count` or `first`."""
    pieces = [_FIELDS.split(build_edition(campaign, number, seed)) for number in range(editions)]
    names = [
        (Header(name, "utf-8").encode().encode() if not name.isascii() else name.encode(), _quoted(name))
        for name in _NAMES
    ]
    domains, weights = list(DOMAINS), list(DOMAINS.values())
    local = re.sub("[^A-Za-z0-9-]", "-", campaign)[:40]
    for number in range(first, first + count):
        rng = random.Random(seed * 1_000_003 + number)
        recipient = f"{local}-{number}@{rng.choices(domains, weights)[0]}"
        header_name, body_name = names[number % len(names)]
        fields = {
            b"HEADERNAME": header_name,
            b"BODYNAME": body_name,
            b"TOADDRESS": recipient.encode(),
            b"TESTKEY": b"%d" % number,
        }
        filled = pieces[number % editions].copy()
        filled[1::2] = [fields[field] for field in filled[1::2]]
        yield Mail(campaign, sender_of(campaign, number), recipient, b"".join(filled))


def _quoted(name: str) -> bytes:
    return body_encode("".join(map(chr, name.encode()))).encode()


def short_mails(
    campaign: str, count: int, *, domains: tuple[str, ...] = ("one.example",), size: int = 500, first: int = 0
) -> Iterator[Mail]:
    """Give small messages of a campaign ("" for none), over the domains in turn."""
    filler = ("x" * 70 + "\r\n") * (size // 72)
    local = re.sub("[^A-Za-z0-9-]", "-", campaign)[:40] or "none"
    for number in range(first, first + count):
        recipient = f"{local}-{number}@{domains[number % len(domains)]}"
        head = f"X-Campaign-ID: {campaign}\r\nX-Test-Key: {number}\r\n" if campaign else ""
        data = f"{head}From: a@news.example\r\nTo: {recipient}\r\nSubject: {number}\r\n\r\n{filler}".encode()
        yield Mail(campaign, sender_of(campaign, number), recipient, data)
