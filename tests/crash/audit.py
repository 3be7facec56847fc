"""What must be true of the store that a killed process leaves, as reader.py reads it, and of what the world saw."""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.crash.reader import GROWING, Books
from tests.world.record import Record, Transaction

# A reply may have been sent by the peer, and not been read by the daemon when it was killed: ns, on a busy machine.
UNREAD = 1_000_000_000


@dataclass
class Kill:
    """A SIGKILL: the stamp before it, and one after which the world has read all that was written before."""

    at: int
    over: int = 0
    unknown: set[str] = field(default_factory=set)  # recipients that are unknown since then

    def cut(self, transaction: Transaction) -> bool:
        """Whether the transaction may have been open for the daemon when it was killed."""
        ended = transaction.ended
        return transaction.began <= self.over and (ended is None or ended >= self.at - UNREAD)


@dataclass
class Fence:
    """Nothing of the campaign begins from one stamp until the other (None: ever)."""

    campaign: str
    since: int
    hold: bool = False
    until: int | None = None

    def passed_by(self, transaction: Transaction) -> bool:
        """Whether the transaction should not have begun."""
        return self.since < transaction.began and (self.until is None or transaction.began < self.until)


def check_growth(campaign: str, before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """Nothing that was counted as final is taken back."""
    for name, number in before.items():
        if name in GROWING:
            assert after[name] >= number, f"{campaign}: {name} went back from {number} to {after[name]}"


def audit_books(books: Books, answers: Mapping[str, int], known: Mapping[str, str]) -> None:
    """Compare the books with what injectors were answered and with the outcomes that were read before."""
    twice = [address for address, number in books.rows.items() if number > 1]
    assert not twice, f"more than once in the books: {twice[:5]}"
    lost = [address for address, code in answers.items() if code == 250 and address not in books.rows]
    assert not lost, f"answered 250, and lost: {lost[:5]} of {len(lost)}"
    refused = [address for address, code in answers.items() if code >= 400 and address in books.rows]
    assert not refused, f"refused, and taken all the same: {refused[:5]}"
    strange = books.rows.keys() - answers.keys()
    assert not strange, f"never injected: {sorted(strange)[:5]}"
    changed = [address for address, outcome in known.items() if books.outcomes.get(address) != outcome]
    assert not changed, f"an outcome that was read is gone: {changed[:5]}"
    early = {campaign for campaign in books.after_stop.values() if campaign not in books.halted}
    assert not early, f"outcomes after a stop that is not on record: {early}"
    for campaign, counts in books.counts.items():
        assert campaign in books.halted or not counts["unknown"], f"{campaign} is not halted: {counts}"
        tally = books.tallies[campaign]
        assert counts["accepted"] == sum(tally.values()) - tally["delivered_after_stop"], campaign
        assert {name: tally[name] for name in counts if name != "accepted"} == {
            name: number for name, number in counts.items() if name != "accepted"
        }, campaign


def audit_bodies(books: Books, contents: Mapping[str, tuple[int, int]]) -> int:
    """Compare the bodies with what was injected, of which size and CRC-32 are given; give how many there are."""
    number = 0
    for addresses, body in books.bodies():
        for address in addresses:
            size, checksum = contents[address]
            assert body.endswith(b".\r\n"), f"{address}: the body has no end"
            assert zlib.crc32(body[-size - 3 : -3]) == checksum, f"{address} would get another's body"
        number += 1
    return number


def audit_world(
    record: Record,
    books: Books,
    *,
    kills: Sequence[Kill],
    fences: Sequence[Fence],
    halted: Mapping[str, int],
    in_flight_at_stop: Mapping[str, int],
) -> tuple[Counter[str], float]:
    """Compare the books, when all is over, with what the world saw; give some counts, and the longest time (s) from
    a reply to the kill that must have come before it was read.
    """
    facts: Counter[str] = Counter()
    by_campaign: dict[str, list[Transaction]] = defaultdict(list)
    of: dict[str, list[Transaction]] = defaultdict(list)
    for transaction in record.transactions:
        by_campaign[transaction.campaign].append(transaction)
        for address, code in transaction.recipients.items():
            of[address].append(transaction)
            facts["rejected by a peer"] += code >= 500
    for fence in fences:
        leaked = [each for each in by_campaign[fence.campaign] if fence.passed_by(each)]
        assert not leaked, f"{len(leaked)} transactions began behind {fence}: {leaked[:3]}"
    for campaign, in_flight in in_flight_at_stop.items():
        answered = halted[campaign]
        late = {to for each in by_campaign[campaign] if each.began > answered for to in each.recipients}
        assert len(late) <= in_flight, f"{campaign}: {len(late)} began after the answer, {in_flight} were in flight"
        assert late <= books.after_stop.keys(), campaign
        facts["halts with something in flight"] += in_flight > 0
    longest = 0
    for address, outcome in books.outcomes.items():
        transactions = of[address]
        taken = [each for each in transactions if each.code == 250 and each.recipients[address] == 250]
        cut = [each for each in transactions if any(kill.cut(each) for kill in kills)]
        hung_up = [each for each in transactions if each.code == 0]  # instead of an answer to the whole message
        certain = [each for each in taken if each not in cut]
        assert len(certain) <= 1, f"{address} was delivered twice without a reason: {transactions}"
        assert bool(certain) <= (outcome == "delivered"), f"{address} is {outcome}, the world took it: {transactions}"
        if outcome == "delivered":
            assert taken, f"{address} was not delivered: {transactions}"
        elif outcome == "bounced":
            assert any(each.recipients[address] == 550 for each in transactions), f"{address} was not refused"
        elif outcome == "unknown":
            assert cut or hung_up, f"{address} is unknown without a reason: {transactions}"
        elif outcome == "dropped":
            assert not taken, f"{address} was dropped, and the world took it: {transactions}"
        facts[outcome] += 1
        facts["delivered twice"] += len(taken) > 1
        # All but the last that was taken must have been unheard of: how long before the kill were they answered?
        unheard = taken[:-1] if outcome == "delivered" else taken
        for each in unheard:
            longest = max(longest, min(kill.at - each.ended for kill in kills if kill.cut(each)))
    for number, kill in enumerate(kills):
        for address in kill.unknown:
            # It was open then; or it was at an earlier kill, waited to be tried again, and is dropped by the halt now.
            doubtful = [each for each in of[address] if each.code == 0 or any(k.cut(each) for k in kills[: number + 1])]
            assert doubtful, f"{address} was not open at the kill: {of[address]}"
            facts["unknown since a kill, open at it"] += any(kill.cut(each) for each in of[address])
    return facts, longest / 1e9
