"""The live log: nothing that matters is lost in a flood."""

import time
from datetime import UTC, datetime

from mtactl.cli.top.journal import KEPT, Journal
from mtactl.control.types import Event


def event(number: int, kind: str, *, ago: float = 0.0, **data) -> Event:
    return Event(id=number, at=datetime.fromtimestamp(time.time() - ago, UTC).isoformat(), kind=kind, data=data)


def test_a_flood_of_outcomes_hides_no_halt():
    """Broken: with outcomes shown, the screen draws for seconds, or the halt in the midst of them is left out."""
    journal = Journal()
    flood = [event(number, "outcome", outcome="delivered", recipient=f"r{number}") for number in range(1000)]
    flood[10] = event(10, "halt", campaign="c1", by="root")
    lines, telling = journal.take(flood)
    assert telling
    assert len(lines) == 1 + 1 + 200
    assert "799 outcomes are not shown" in lines[0].plain
    assert "campaign=c1" in lines[1].plain
    assert "r999" in lines[-1].plain
    assert journal.take_halts() == ("c1",)
    assert journal.take_halts() == ()


def test_an_old_halt_is_history():
    """Broken: when the screen is opened, last week's halts stand on it as if they were under way."""
    journal = Journal()
    lines, _ = journal.take([event(1, "halt", ago=3600, campaign="old"), event(2, "backoff", lane="x")])
    assert len(lines) == 2
    assert journal.take_halts() == ()


def test_it_keeps_so_much_and_finds_it():
    """Broken: a screen that is left open for a week fills the memory; or the filter minds the case."""
    journal = Journal()
    for number in range(KEPT + 50):
        journal.take([event(number, "hold", campaign=f"Sale-{number}")])
    assert len(journal.matching("")) == KEPT
    assert len(journal.matching("sale-1049")) == 1
    assert [len(line.plain) for line in journal.last(3, 20)] == [20, 20, 20]
    assert journal.last(0, 20) == []
