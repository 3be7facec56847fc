"""Reads the record of peer_world: what the world saw, from outside the daemon."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Transaction:
    """One mail transaction as the peer saw it; stamps are ns of CLOCK_MONOTONIC."""

    campaign: str
    began: int
    connection: int = 0
    key: int = -1  # the message's number within its campaign
    recipients: dict[str, int] = field(default_factory=dict)  # address: the code of its RCPT; 0: hung up
    mail_code: int = 250
    dot: int | None = None  # when the end of the message was read
    size: int = 0
    crc: int = 0  # of the body in wire form
    ended: int | None = None
    code: int | None = None  # of the message (or of DATA, when that was refused); 0: hung up; None: there was none
    lost: bool = False
    refused: int | None = None  # when the last of its recipients was refused, if none was taken

    def open_at(self, stamp: int) -> bool:
        """Whether it had begun and not ended then. With all its recipients refused it has ended."""
        if self.began > stamp or (self.refused is not None and self.refused <= stamp):
            return False
        return self.ended is None or self.ended > stamp

    @property
    def taken(self) -> list[str]:
        """The recipients for whom the world answered that it has the message."""
        return [address for address, code in self.recipients.items() if code == 250] if self.code == 250 else []


class Record:
    """All transactions of a record file, in the order of their begin. `refresh` reads what was written since."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._by_number: dict[int, Transaction] = {}
        self.transactions: list[Transaction] = []
        self.connections: Counter[str] = Counter()  # open now, by port
        self.most_connections: Counter[str] = Counter()
        self.refresh()

    def refresh(self) -> None:
        """Read on. A line that is still being written is left for the next time."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            octets = file.read()
        whole = octets[: octets.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))

    def _take(self, event: dict) -> None:
        kind, stamp = event["k"], event["t"]
        match kind:
            case "open" | "close":
                port = event["port"]
                self.connections[port] += 1 if kind == "open" else -1
                self.most_connections[port] = max(self.most_connections[port], self.connections[port])
                return
            case "mail":
                new = Transaction(event["campaign"], stamp, event["c"], event["key"], mail_code=event["code"])
                self._by_number[event["n"]] = new
                self.transactions.append(new)
                return
        transaction = self._by_number[event["n"]]
        match kind:
            case "rcpt":
                transaction.recipients[event["to"]] = event["code"]
                none = not any(code == 250 for code in transaction.recipients.values())
                transaction.refused = stamp if none else None
            case "dot":
                transaction.dot, transaction.size, transaction.crc = stamp, event["size"], event["crc"]
                transaction.campaign = event.get("campaign", transaction.campaign)
                transaction.key = event.get("key", transaction.key)
            case "end":
                transaction.code, transaction.ended = event["code"], stamp
            case "rset":
                transaction.ended = stamp
            case "lost":
                transaction.lost, transaction.ended = True, stamp

    def of(self, campaign: str) -> list[Transaction]:
        """Give a campaign's transactions."""
        return [each for each in self.transactions if each.campaign == campaign]

    def begun_after(self, campaign: str, stamp: int) -> list[Transaction]:
        """Give those whose MAIL FROM was read after a stamp."""
        return [each for each in self.of(campaign) if each.began > stamp]

    def open_at(self, campaign: str, stamp: int) -> list[Transaction]:
        """Give those that were open at a stamp."""
        return [each for each in self.of(campaign) if each.open_at(stamp)]

    def open_transactions(self, campaign: str) -> list[Transaction]:
        """Give those that are open at the end of the record."""
        return [each for each in self.of(campaign) if each.ended is None and each.refused is None]

    def lost(self, campaign: str) -> list[Transaction]:
        """Give those whose connection ended before the last reply."""
        return [each for each in self.of(campaign) if each.lost and each.refused is None]

    def delivered(self, campaign: str) -> Counter[str]:
        """Give how often each recipient's message was taken with 250 at its end."""
        return Counter(address for each in self.of(campaign) for address in each.taken)

    def duplicates(self, campaign: str) -> dict[str, int]:
        """Give the recipients who got a message more than once, and how often."""
        return {address: times for address, times in self.delivered(campaign).items() if times > 1}

    def rejected(self, campaign: str) -> set[str]:
        """Give the recipients whom the world refused for good: at RCPT TO, at DATA, or at the end of the message."""
        refused = set()
        for each in self.of(campaign):
            whole = (each.code or 0) >= 500 or each.mail_code >= 500
            refused.update(a for a, code in each.recipients.items() if code >= 500 or (whole and code == 250))
        return refused

    def broken_off(self, campaign: str) -> set[str]:
        """Give the recipients of whose message the end was read, but of whom nobody was told how it ended."""
        ends = [each for each in self.of(campaign) if each.dot is not None and (each.lost or not each.code)]
        return {address for each in ends for address, code in each.recipients.items() if code == 250}

    def attempts(self, campaign: str) -> Counter[str]:
        """Give how often each recipient was named in a RCPT TO."""
        return Counter(address for each in self.of(campaign) for address in each.recipients)

    def campaigns(self) -> Iterator[str]:
        """Give the campaigns that were seen, in the order of their first transaction."""
        yield from dict.fromkeys(each.campaign for each in self.transactions)
