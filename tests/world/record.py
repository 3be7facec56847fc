"""Reads the record of peer_world: what the world saw, from outside the daemon."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Transaction:
    """One mail transaction as the peer saw it; stamps are ns of CLOCK_MONOTONIC."""

    campaign: str
    began: int
    recipients: dict[str, int] = field(default_factory=dict)  # address: the code of its RCPT
    ended: int | None = None
    code: int | None = None  # of the end of data; 0: hung up instead of a reply; None: there was no data
    lost: bool = False

    def open_at(self, stamp: int) -> bool:
        """Whether it had begun and not ended then."""
        return self.began <= stamp and (self.ended is None or self.ended > stamp)


class Record:
    """All transactions of a record file, in the order of their begin."""

    def __init__(self, path: Path) -> None:
        found: dict[int, Transaction] = {}
        for line in path.read_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue  # the last line, being written
            if event["k"] == "mail":
                found[event["n"]] = Transaction(event["campaign"], event["t"])
                continue
            transaction = found[event["n"]]
            if event["k"] == "rcpt":
                transaction.recipients[event["to"]] = event["code"]
            elif event["k"] == "end":
                transaction.code, transaction.ended = event["code"], event["t"]
            elif event["k"] == "reset":
                transaction.ended = event["t"]
            elif event["k"] == "lost":
                transaction.lost, transaction.ended = True, event["t"]
        self.transactions = list(found.values())

    def of(self, campaign: str) -> list[Transaction]:
        """Give a campaign's transactions."""
        return [each for each in self.transactions if each.campaign == campaign]

    def begun_after(self, campaign: str, stamp: int) -> list[Transaction]:
        """Give those that began after a stamp."""
        return [each for each in self.of(campaign) if each.began > stamp]

    def open_at(self, campaign: str, stamp: int) -> list[Transaction]:
        """Give those that were open at a stamp."""
        return [each for each in self.of(campaign) if each.open_at(stamp)]

    def delivered(self, campaign: str) -> Counter[str]:
        """Give how often each recipient's message was taken with 250 at its end."""
        taken: Counter[str] = Counter()
        for each in self.of(campaign):
            if each.code == 250:
                taken.update(address for address, code in each.recipients.items() if code == 250)
        return taken
