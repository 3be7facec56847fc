"""What stands on the live screen, drawn for terminals of any width, of texts that mean harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtactl.cli.top.canvas import Canvas
from mtactl.cli.top.drawing import draw_halt, draw_head, draw_log_line, draw_problems, draw_rates, draw_totals
from mtactl.cli.top.rates import Meter, Rates
from mtactl.cli.top.snapshot import Snapshot
from mtactl.cli.top.tables import CAMPAIGN_ORDERS, LANE_ORDERS, lay_out_campaigns, lay_out_lanes
from mtactl.control.types import CampaignReport, Counts, Event, LaneRow, RequestedBy, Status, Step, StopFacts

EVIL = "[bold]x[/] \x1b[2J\x1b]0;t\x07\u202e\n[link=http://e]y"
widths = st.integers(20, 200)


def status(**facts) -> Status:
    given = {
        "node": "mx1",
        "version": "0.1.0",
        "uptime_seconds": 12_345.6,
        "health": "degraded",
        "problems": (EVIL,),
        "totals": Counts(accepted=10**9, queued=10**8, delivered=9 * 10**8, delivered_after_stop=3, unknown=1),
        "campaigns": {"active": 1, "held": 0, "halting": 1, "halted": 30_000},
        "queue": {"ready": 10**8, "deferred": 5, "scheduled": 0, "held": 0},
        "connections": 100,
        "in_flight_transactions": 99,
        "store_free_bytes": 1 << 40,
        "lanes": 500,
    }
    return Status(**{**given, **facts})


def halting(campaign: str = "spring-sale", *, completed: bool = False, done: int = 1200) -> CampaignReport:
    at = "2026-11-22T10:00:00.5Z"
    return CampaignReport(
        campaign=campaign,
        node="mx1",
        state="halted" if completed else "halting",
        counts=Counts(accepted=3040, queued=3000 - done, in_flight=3, dropped=done, delivered=37),
        stop=StopFacts(
            kind="stop",
            reason=EVIL,
            requested_by=RequestedBy(uid=0, user="root"),
            requested_at="2026-11-22T10:00:00Z",
            queued_at_stop=3000,
            in_flight_at_stop=40,
            completed_at=at if completed else None,
        ),
        steps=(
            Step(name="gate_closed", at=at),
            Step(name="recorded", at=at),
            Step(name="queue_dropped", at=at if completed else None, done=done, total=3000),
            Step(name="in_flight_finished", at=None, done=37, total=40),
            Step(name="completed", at=at if completed else None),
        ),
    )


def check(lines, width: int) -> str:
    """Assert that the lines fit and are plain; give them."""
    for line in lines:
        assert line.cell_len <= width, line.plain
        assert line.plain.isprintable()
    return "\n".join(line.plain for line in lines)


@given(width=widths)
def test_the_head_fits_and_says_what_matters(width):
    """Broken: on a narrow terminal the health is cut off, or the line wraps and all below it shifts."""
    shown = check([draw_head(status(), width, at="10:00:00")], width)
    assert "mx1" in shown
    assert width < 24 or "degraded" in shown
    check(draw_problems(status(), width), width)
    totals = check(draw_totals(status(), width), width)
    assert width < 60 or all(text in totals for text in ("queued 100M", "delivered 900M", "unknown 1"))
    meter = Meter()
    meter.take(status())
    rates = meter.take(status(uptime_seconds=12_346.6))
    check(draw_rates(meter, rates, Canvas(width)), width)


@given(width=widths, done=st.integers(0, 3000))
def test_a_halt_fits_and_shows_its_steps(width, done):
    """Broken: the bar overruns the line, or says more than is done."""
    lines = draw_halt(halting(done=done), Canvas(width), now=1_795_341_612.0, frame=done, rate=12.0)
    shown = check(lines, width)
    assert width < 60 or f"{done:,} of 3,000" in shown
    assert width < 60 or "37 of 40" in shown


def test_a_halt_says_how_long_it_takes():
    """Broken: the time since the stop goes on after the halt is completed, or is that of the last look."""
    begun = 1_795_341_600.0  # 2026-11-22T10:00:00Z
    under_way = draw_halt(halting(), Canvas(80), now=begun + 12, frame=0)
    assert "halting  12 s since the stop" in under_way[0].plain
    assert "━" in under_way[1].plain
    completed = draw_halt(halting(completed=True, done=3000), Canvas(80), now=begun + 99, frame=0)
    assert "halted  completed in 0.500 s" in completed[0].plain


def snapshot() -> Snapshot:
    lane = LaneRow(
        lane="x" * 200,
        state="backoff",
        connections=1,
        max_connections=20,
        in_flight=1,
        window=400,
        rate=None,
        delivered=1,
        deferred=2,
        bounced=3,
        last_reply=EVIL,
    )
    return Snapshot(
        at=0.0,
        status=status(),
        rates=Rates(),
        campaigns=[halting("[red]c1"), halting("c" * 128), halting(EVIL)],
        campaign_rates={"[red]c1": 5.0},
        lanes=[lane],
    )


@pytest.mark.parametrize("sort", [*CAMPAIGN_ORDERS, *LANE_ORDERS])
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_tables_fit_and_take_no_markup(sort, width):
    """Broken: an id or a reply that a stranger wrote changes the screen."""
    if sort in CAMPAIGN_ORDERS:
        rows = lay_out_campaigns(snapshot(), sort, width)
        shown = check([rows.titles, *rows.lines], width)
        assert "[red]c1" in shown
        assert rows.keys[0] == "[red]c1"
    if sort in LANE_ORDERS:
        rows = lay_out_lanes(snapshot(), sort, width)
        shown = check([rows.titles, *rows.lines], width)
        assert width < 200 or "[bold]x[/] \\x1b[2J" in shown


def test_an_outcome_in_one_line():
    """Broken: whoever asks for outcomes can't read them, or a reply draws over the screen."""
    data = {
        "outcome": "delivered",
        "campaign": "c1",
        "recipient": "a@b",
        "code": 250,
        "reply": EVIL,
        "after_stop": True,
    }
    line = draw_log_line(Event(id=1, at="2026-11-22T10:00:00Z", kind="outcome", data=data))
    assert line.plain.isprintable()
    assert "delivered   c1  a@b  250 [bold]x[/] \\x1b[2J" in line.plain
    assert line.plain.endswith("after stop")
    assert draw_log_line(Event(id=1, at="", kind="hold", data={"campaign": "c1"})).plain.split() == [
        "hold",
        "campaign=c1",
    ]
