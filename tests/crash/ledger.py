"""What a process that worked with a store was told, and what must therefore be true of the store when it is gone.

The lines of store_child.py, by their first word (addresses stand for recipients):
    opening, ready, closed              the store is to be opened; it is open; it was closed in order
    a, A, R     addresses...            to be appended; appended; refused
    B, E        address                 an attempt is about to begin; the end of the message is about to be written
    o, O, S     address outcome         an outcome is about to be, and is, in the attempt log; it is settled
    h, H        campaign [kind]         a halt is asked for; answered
    l, L        campaign [held]         a hold or a release is asked for; answered
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.crash.audit import audit_books
from tests.crash.reader import Books


@dataclass
class Ledger:
    """All that was told, and what follows of it."""

    answers: dict[str, int] = field(default_factory=dict)  # of appends: 250, 550, or 0 while there is none
    final: dict[str, str] = field(default_factory=dict)
    halted: dict[str, str] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    held: dict[str, bool | None] = field(default_factory=dict)  # None: not answered
    begun: set[str] = field(default_factory=set)  # in this life, without a settlement
    ended: set[str] = field(default_factory=set)  # likewise, with the end of the message written
    logging: dict[str, str] = field(default_factory=dict)  # the attempt log may have it
    logged: dict[str, str] = field(default_factory=dict)  # it has it
    doubtful: set[str] = field(default_factory=set)  # of earlier lives, that ended with the end of the message written
    opening: bool = False
    told: Counter[str] = field(default_factory=Counter)

    def take(self, lines: Iterable[str]) -> None:
        """Read on."""
        for line in lines:
            kind, *facts = line.split()
            self.told[kind] += 1
            match kind:
                case "opening":
                    self.opening = True
                case "ready" | "closed":
                    self._begin_anew()
                case "a":
                    self.answers |= dict.fromkeys(facts, 0)
                case "A":
                    self.answers |= dict.fromkeys(facts, 250)
                case "R":
                    self.answers |= dict.fromkeys(facts, 550)
                case "B":
                    assert facts[0] not in self.final, f"{facts[0]} has an outcome, and began again"
                    self.begun.add(facts[0])
                case "E":
                    self.ended.add(facts[0])
                case "o":
                    self.logging[facts[0]] = facts[1]
                case "O":
                    self.logged[facts[0]] = facts[1]
                case "S":
                    self._settle(*facts)
                case "h":
                    self.asked.add(facts[0])
                case "H":
                    assert self.halted.setdefault(facts[0], facts[1]) == facts[1], "a halt has changed"
                    self.held.pop(facts[0], None)
                case "l":
                    self.held[facts[0]] = None
                case "L":
                    self.held[facts[0]] = facts[1] == "1"

    def _settle(self, address: str, outcome: str) -> None:
        was = self.logged.pop(address)
        assert outcome == was or (was == "none" and outcome in ("dropped", "unknown")), f"{address}: {was}, {outcome}"
        del self.logging[address]
        self.begun.discard(address)
        self.ended.discard(address)
        if outcome != "none":
            self.final[address] = outcome

    def _begin_anew(self) -> None:
        """The process before is gone, and its store was opened again under the same boot: what its log had is settled;
        or the store is closed, and what was cancelled in between waits again.
        """
        self.opening = False
        self.doubtful |= self.ended
        for each in (self.begun, self.ended, self.logging, self.logged):
            each.clear()

    def check_files(self, books: Books, *, mended: bool = False) -> None:
        """Compare what was told with what is in the files, before opening them has mended them, or after."""
        audit_books(books, self.answers, self.final)
        assert self.halted.items() <= books.halted.items(), "a halt was answered that is not on record"
        assert books.halted.keys() <= self.asked, "a halt is on record that was not asked for"
        for campaign, held in self.held.items():
            if held is not None and campaign not in books.halted:
                assert (campaign in books.held) == held, f"{campaign} held: {held}"
        if not (self.opening or mended):
            unclaimed = self.begun - self.logging.keys() - books.claimed
            assert not unclaimed, f"an attempt began that is not on record as claimed: {sorted(unclaimed)[:5]}"
        for _, body in books.bodies():
            first, _, rest = body.partition(b"\r\n")
            assert first == b"X-Sum: %08x" % zlib.crc32(rest), "a body is another's"

    def check_recovered(self, before: Books, after: Books, *, same_boot: bool) -> None:
        """Compare what was told, and what the files held before, with what opening the store has made of them."""
        self.check_files(after, mended=True)
        assert not after.claimed
        assert before.rows.keys() == after.rows.keys(), "opening brings no mail and takes none"
        assert before.outcomes.items() <= after.outcomes.items()
        assert (before.halted, before.held) == (after.halted, after.held)
        settled = {address: after.outcomes[address] for address in after.outcomes.keys() - before.outcomes.keys()}
        assert settled.keys() <= before.claimed, "only what was claimed is settled by opening"
        unknown = {address for address, outcome in settled.items() if outcome == "unknown"}
        if same_boot:
            assert unknown <= self.ended | self.doubtful, "only what was really open is unknown"
        for address in unknown:
            assert after.campaign_of[address] in after.halted
        for address in self.ended & before.claimed:
            self._check_ended(address, after, same_boot=same_boot)

    def _check_ended(self, address: str, after: Books, *, same_boot: bool) -> None:
        """Of one that was claimed still, and the end of its message was perhaps written."""
        outcome = after.outcomes.get(address)
        if same_boot and address in self.logged:
            known = self.logged[address]
            halted = after.campaign_of[address] in after.halted
            expected = {known} if known != "none" else {"dropped", "unknown"} if halted else {None}
            assert outcome in expected, f"{address} is {outcome}, the attempt log has {known}"
        elif same_boot and address in self.logging:
            pass  # the log may have had it or not
        elif outcome is None:
            assert address in after.uncertain or same_boot, f"{address} may be delivered, and is not marked so"
        else:
            allowed = {"unknown", "dropped"} if same_boot else {"unknown"}
            assert outcome in allowed, f"{address} may be delivered, and is {outcome}"

    def adopt(self, after: Books) -> None:
        """Go on from what opening the store has made of it."""
        self._begin_anew()
        self.final |= after.outcomes
        self.asked &= after.halted.keys()
        self.halted = dict(after.halted)
        self.held = dict.fromkeys(after.held, True)
        for address, code in self.answers.items():
            if code == 0:
                self.answers[address] = 250 if address in after.rows else 550
