"""Real newsletters: multipart with an inline image, 10 to 60 kB, personalised, to a realistic set of domains."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP

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
    "corp-one.example": 2,
    "corp-two.example": 1,
    "university.example": 1,
}
_NAMES = ("Ada", "Grace", "Edsger", "Barbara", "Donald", "Radia", "Vint", "Jon", "Margaret", "Zoe")
_WORDS = [
    "offer",
    "season",
    "garden",
    "kitchen",
    "travel",
    "winter",
    "summer",
    "family",
    "discount",
    "exclusive",
    "weekend",
    "member",
    "collection",
]


@dataclass(frozen=True)
class Mail:
    """One message to inject: envelope and data (CRLF lines, not dot-stuffed)."""

    campaign: str
    sender: str
    recipient: str
    data: bytes


def png(width: int, height: int, seed: int) -> bytes:
    """Make a PNG of noise, about width * height bytes (noise does not compress)."""
    rng = random.Random(seed)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + rng.randbytes(width) for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def templates(campaign: str, seed: int, count: int = 8) -> list[bytes]:
    """Build some editions of a campaign; %NAME%, %TO% and %KEY% are filled in for each recipient."""
    rng = random.Random(seed)
    editions = []
    for number in range(count):
        side = rng.randint(62, 180)
        text = "\n".join(" ".join(rng.choices(_WORDS, k=11)) + "." for _ in range(rng.randint(20, 60)))
        message = EmailMessage(policy=SMTP)
        message["From"] = f"The {campaign} team <news@news.example>"
        message["To"] = "%NAME% <%TO%>"
        message["Subject"] = f"%NAME%, your {rng.choice(_WORDS)} is here - edition {number}"
        message["Date"] = "Sun, 22 Nov 2026 10:00:00 +0000"
        message["Message-ID"] = "<%KEY%@news.example>"
        message["X-Campaign-ID"] = campaign
        message["List-Unsubscribe"] = "<https://news.example/u/%KEY%>"
        message.set_content(f"Dear %NAME%,\n\n{text}\n\n.\nYours\n..and more\n")
        paragraphs = "".join(f"<p>{line}</p>\n" for line in text.splitlines())
        html = f'<html><body><h1>Dear %NAME%</h1><img src="cid:hero">{paragraphs}</body></html>'
        message.add_alternative(html, subtype="html")
        html_part = message.get_payload()[1]
        html_part.add_related(png(side, side, seed + number), "image", "png", cid="<hero>")
        editions.append(message.as_bytes())
    return editions


def newsletters(campaign: str, count: int, *, seed: int = 1) -> Iterator[Mail]:
    """Give a campaign's messages, a recipient each."""
    rng = random.Random(seed)
    editions = templates(campaign, seed)
    domains = rng.choices(list(DOMAINS), weights=list(DOMAINS.values()), k=count)
    for number, domain in enumerate(domains):
        name = _NAMES[number % len(_NAMES)]
        recipient = f"{campaign}-{number}@{domain}"
        data = (
            editions[number % len(editions)]
            .replace(b"%NAME%", name.encode())
            .replace(b"%TO%", recipient.encode())
            .replace(b"%KEY%", f"{campaign}.{number}".encode())
        )
        yield Mail(campaign, f"bounce+{campaign}+{number}@news.example", recipient, data)


def short_mails(
    campaign: str, count: int, *, domains: tuple[str, ...] = ("one.example",), size: int = 500
) -> Iterator[Mail]:
    """Give small messages of a campaign, over the domains in turn."""
    filler = ("x" * 70 + "\r\n") * (size // 72)
    for number in range(count):
        recipient = f"{campaign or 'none'}-{number}@{domains[number % len(domains)]}"
        head = f"X-Campaign-ID: {campaign}\r\n" if campaign else ""
        data = f"{head}From: a@news.example\r\nTo: {recipient}\r\nSubject: {number}\r\n\r\n{filler}".encode()
        yield Mail(campaign, f"bounce+{campaign}+{number}@news.example", recipient, data)
