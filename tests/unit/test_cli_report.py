"""A campaign's report in every width, with and without colours, and in encodings that have no ticks."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mtactl.cli import screen as screen_module
from mtactl.cli.report import draw_report, draw_steps, summarise
from mtactl.cli.screen import ASCII, UNICODE, Screen
from mtactl.control.types import CampaignReport, Counts, RequestedBy, Step, StopFacts

ASKED = "2026-11-22T10:00:00.123456Z"


def halted(*, campaign: str = "spring-sale", reason: str | None = "wrong prices", **counts: int) -> CampaignReport:
    given_counts = {"accepted": 100_000, "delivered": 51_788, "bounced": 2, "dropped": 48_210, **counts}
    return CampaignReport(
        campaign=campaign,
        node="mx1",
        state="halted",
        counts=Counts(delivered_after_stop=35, **given_counts),
        stop=StopFacts(
            kind="stop",
            reason=reason,
            requested_by=RequestedBy(uid=0, user="root"),
            requested_at=ASKED,
            queued_at_stop=48_210,
            in_flight_at_stop=37,
            completed_at="2026-11-22T10:00:02.491Z",
        ),
        steps=(
            Step(name="gate_closed", at=ASKED),
            Step(name="recorded", at="2026-11-22T10:00:00.126456Z"),
            Step(name="queue_dropped", at="2026-11-22T10:00:01.402Z", done=48_210, total=48_210),
            Step(name="in_flight_finished", at="2026-11-22T10:00:02.488Z", done=37, total=37),
            Step(name="completed", at="2026-11-22T10:00:02.491Z"),
        ),
    )


def halting(*, dropped: int = 20_000, finished: int = 5) -> CampaignReport:
    return CampaignReport(
        campaign="spring-sale",
        node="mx1",
        state="halting",
        counts=Counts(accepted=100_000, delivered=51_753, dropped=dropped, queued=48_210 - dropped, in_flight=32),
        stop=halted().stop,
        steps=(
            *halted().steps[:2],
            Step(name="queue_dropped", at=None, done=dropped, total=48_210),
            Step(name="in_flight_finished", at=None, done=finished, total=37),
            Step(name="completed", at=None),
        ),
    )


@pytest.fixture
def draw(monkeypatch):
    """Draw on a stream that is no terminal, COLUMNS wide."""

    def draw(make, *, columns: int = 80, encoding: str = "utf-8") -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        octets = io.BytesIO()
        stream = io.TextIOWrapper(octets, encoding=encoding)
        monkeypatch.setattr(screen_module.sys, "stdout", stream)
        screen = Screen()
        screen.show(make(screen))
        return octets.getvalue().decode(encoding)

    return draw


@pytest.mark.parametrize("columns", [30, 40, 60, 79, 80, 81, 100, 200])
@pytest.mark.parametrize("campaign", ["c1", "x" * 128])
def test_every_line_fits(draw, columns, campaign):
    """Broken: on a narrow terminal the report is wrapped into garbage."""
    for report in (halted(campaign=campaign, reason="a reason " * 40), halting()):
        lines = draw(lambda screen, report=report: draw_report(report, screen), columns=columns).splitlines()
        assert max(cell_len(line) for line in lines) <= columns
        assert not any("\x1b" in line for line in lines)


def test_the_report_of_a_halt(draw):
    """Broken: the administrator does not see how many got it after the stop, who asked, or when each step was done."""
    shown = draw(lambda screen: draw_report(halted(), screen))
    for expected in (
        "spring-sale on mx1  halted (stop)",
        "✔ gate closed         +0.000 s",
        "✔ recorded            +0.003 s",
        "48,210 of 48,210",
        "37 of 37",
        "asked for by root at 2026-11-22 10:00:00",
        "wrong prices",
        "accepted    100,000",
        "35 of them after the stop",
        "51.8 %",
    ):
        assert expected in shown, shown


def test_a_step_not_reached_has_no_tick(draw):
    """Broken: a halt that is still dropping looks done."""
    shown = draw(lambda screen: draw_steps(halting(), screen)).splitlines()
    marks = {line[4:22].strip(): line[2] for line in shown[1:6]}
    assert marks == {
        "gate closed": "✔",
        "recorded": "✔",
        "queue dropped": "·",
        "in flight finished": "·",
        "completed": "·",
    }
    turning = draw(lambda screen: draw_steps(halting(), screen, frame=0)).splitlines()
    assert [line[2] for line in turning[1:6]] == ["✔", "✔", "⠋", "⠋", "·"]


def test_an_encoding_without_ticks(draw):
    """Broken: with LANG=C the client ends in a traceback in the middle of a halt."""
    shown = draw(lambda screen: draw_report(halted(), screen), encoding="ascii")
    assert "x gate closed" in shown
    assert shown.isascii()
    assert UNICODE.outcomes.keys() == ASCII.outcomes.keys()


def test_control_characters_are_spelt_out(draw):
    """Broken: a reason, or a node's name, acts on the terminal."""
    report = halted(reason="\x1b[2Jgone\r\u202e")
    shown = draw(lambda screen: draw_report(report, screen))
    assert "\\x1b[2Jgone\\x0d\\u202e" in shown
    assert "[bold]" in draw(lambda screen: draw_report(halted(reason="[bold]no markup[/bold]"), screen))


def test_what_came_after_the_halt_is_told(draw):
    """Broken: mail that the injector still sends is turned away unseen."""
    shown = draw(lambda screen: draw_report(halted(refused=1234, discarded=5), screen))
    assert "1,234  injected after the halt" in shown
    assert summarise(halting()).startswith("spring-sale on mx1: halting, 28,210 queued, 32 in flight, 51,753 delivered")


@given(
    st.fixed_dictionaries(dict.fromkeys(UNICODE.outcomes, st.integers(0, 10**9))),
    st.integers(20, 120),
)
def test_the_bar_is_whole_and_shows_each_part(parts, width):
    """Broken: a single unknown recipient among millions is not to be seen in the bar, or the bar is wrapped."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    before, screen_module.sys.stdout = screen_module.sys.stdout, stream
    try:
        screen = Screen()
    finally:
        screen_module.sys.stdout = before
    screen.console.width = width
    report = CampaignReport(
        campaign="c1", node="mx1", state="active", counts=Counts(accepted=sum(parts.values()), **parts)
    )
    screen.show(draw_report(report, screen))
    bar = stream.buffer.getvalue().decode().splitlines()[-1].strip()
    some = {UNICODE.outcomes[name] for name, number in parts.items() if number}
    if some:
        assert set(bar) == some
        assert len(bar) == min(width, 100) - 4
