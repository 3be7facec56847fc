"""How long a halt will still take, reckoned from what it did in the last seconds."""

import io

import pytest

from mtactl.cli import progress
from mtactl.cli import screen as screen_module
from mtactl.cli.outlook import Estimate, Outlook, describe_outlook
from mtactl.control.types import CampaignReport, Counts, LaneCounts, Step


def report(*, dropped: int = 0, total: int = 1000, at: str | None = None, **counts: int) -> CampaignReport:
    return CampaignReport(
        campaign="c1",
        node="mx1",
        state="halting",
        counts=Counts(**counts),
        steps=(
            Step(name="recorded", at="2026-11-22T10:00:00Z"),
            Step(name="queue_dropped", at=at, done=dropped, total=total),
        ),
    )


def estimate(*looks: tuple[float, int]) -> tuple[Estimate, Step]:
    made = Estimate()
    for now, dropped in looks:
        made.look(report(dropped=dropped), now)
    return made, report(dropped=looks[-1][1]).steps[1]


def test_the_pace_of_late_gives_the_time_left():
    """Broken: who watches a halt can't tell whether to wait or to go for a coffee."""
    made, step = estimate((100.0, 0), (101.0, 100), (102.0, 200))
    assert made.seconds_left(step) == pytest.approx(8.0)
    assert made.tell(step) == "~8s left"
    # A burst at the start, a minute ago, counts no more.
    made, step = estimate((0.0, 0), (1.0, 500), *((float(now), 500 + now) for now in range(40, 61)))
    assert made.seconds_left(step) == pytest.approx(440, rel=0.2)
    assert len(made.tell(step)) <= 10


@pytest.mark.parametrize("looks", [[(1.0, 5)], [(1.0, 5), (1.1, 50)], [(1.0, 5), (9.0, 5)], [(1.0, 5), (9.0, 1000)]])
def test_what_nobody_can_know_is_not_said(looks):
    """Broken: a halt that stands still is told to be done in a moment."""
    made, step = estimate(*looks)
    assert made.seconds_left(step) is None
    assert made.tell(step) == ""
    assert made.tell(report().steps[0]) == ""


def test_what_a_halt_is_about_to_do():
    """Broken: the id is typed by someone who does not know what goes on."""
    lanes = tuple(
        LaneCounts(
            lane=f"d{number}.example",
            queued=10 - number,
            in_flight=0,
            deferred=0,
            delivered=0,
            bounced=0,
            expired=0,
            dropped=0,
            unknown=0,
        )
        for number in range(3)
    )
    told = dict(
        describe_outlook(Outlook(report=report(queued=3000, in_flight=40), rate=12.54, lanes=lanes, more_lanes=7))
    )
    assert told["rate now"] == "12.5 deliveries a second; the queue would last 3 min 59 s"
    assert told["queued for"] == "d0.example 10, d1.example 9, d2.example 8, and 7 lanes more"
    assert told["a halt"].startswith("3,000 queued are dropped, 40 in flight finish, new mail of it is refused")
    told = dict(describe_outlook(Outlook(report=report(), rate=None)))
    assert told == {"a halt": "nothing is queued, nothing is in flight, new mail of it is refused, for ever"}


def test_a_pipe_is_told_how_far_a_long_halt_is(monkeypatch):
    """Broken: a script's log is silent while a halt of an hour goes on."""
    octets = io.BytesIO()
    monkeypatch.setattr(screen_module.sys, "stderr", io.TextIOWrapper(octets, encoding="utf-8"))
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.open_progress(screen_module.Screen(errors=True), wanted=True) as shown:
        for dropped in (0, 100, 200, 300):
            shown.update(report(dropped=dropped))
            now[0] += 3
        shown.update(report(dropped=1000, at="2026-11-22T10:00:09Z"))
    lines = [line.split() for line in octets.getvalue().decode().splitlines()]
    assert lines == [
        ["c1:", "recorded"],
        ["c1:", "queue", "dropped", "~24s", "left", "200", "of", "1,000"],
        ["c1:", "queue", "dropped", "1,000", "of", "1,000"],
    ]
