"""An application that injects single messages with Python's own smtplib, and says what it was answered."""

from __future__ import annotations

import smtplib
from collections.abc import Sequence

TEXT = b"From: a@news.example\r\nSubject: hello\r\n"


def message(campaign: str | None = None, *, body: bytes = b"one line\r\n") -> bytes:
    """Give a message with CRLF lines, of a campaign or of none."""
    named = b"" if campaign is None else b"X-Campaign-ID: " + campaign.encode() + b"\r\n"
    return TEXT + named + b"\r\n" + body


def inject(
    port: int,
    *recipients: str,
    data: bytes | None = None,
    campaign: str | None = None,
    sender: str = "a@news.example",
    mail: Sequence[str] = (),
) -> tuple[int, str]:
    """Inject one message; give the answer to it, or to the first command that was refused. `mail`: MAIL's options."""
    with smtplib.SMTP("127.0.0.1", port, local_hostname="app.example", timeout=30) as session:
        session.ehlo()
        code, text = session.mail(sender, mail)
        for recipient in recipients:
            if code == 250:
                code, text = session.rcpt(recipient)
        if code == 250:
            code, text = session.data(message(campaign) if data is None else data)
        return code, text.decode()


def queue_id(answer: tuple[int, str]) -> str:
    """Give the queue id that an answer names."""
    code, text = answer
    assert code == 250, answer
    return text.rpartition(" ")[2]
