"""The report as a page: whole by itself, true to the report, and deaf to what strangers have written into it."""

import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtactl.cli.page import draw_page
from mtactl.cli.plots import Span, draw_share, draw_spans
from mtactl.control.types import CampaignAnalysis, CampaignReport, Counts, LaneCounts, ReplyCount, Timeline
from tests.unit.test_cli_report import halted, halting

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x1b[2J\u202e&amp;"


def timeline(**given) -> Timeline:
    facts = {"start": "2026-11-22T09:50:00Z", "step_seconds": 60}
    facts |= dict.fromkeys(("bounced", "expired", "dropped", "unknown"), (0,) * 12)
    return Timeline(
        **{**facts, "delivered": tuple(range(12)), "delivered_after_stop": (0,) * 11 + (5,), **given},
    )


def analysis(text: str = "Ok") -> CampaignAnalysis:
    lane = LaneCounts(
        lane=text,
        queued=1,
        in_flight=2,
        deferred=0,
        delivered=51_788,
        bounced=1,
        expired=0,
        dropped=48_210,
        unknown=0,
    )
    return CampaignAnalysis(
        campaign="spring-sale",
        timeline=timeline(delivered=tuple(range(1, 13))),
        around_stop=timeline(),
        lanes=(lane,) * 12,
        other_lanes=30,
        others=lane,
        replies=(
            ReplyCount(outcome="delivered", code=250, text=text, example=text, recipients=51_788, exact=False),
            ReplyCount(outcome="unknown", code=None, text="lost", example="lost", recipients=2, exact=True),
        ),
        forgotten=17,
    )


class Strict(HTMLParser):
    """Reads a page; every element that is opened must be closed, and none may load or run anything."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            assert name not in {"src", "href", "action", "xlink:href", "style"}, (tag, name, value)
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page: str) -> Strict:
    reader = Strict()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert not reader.tags & {"script", "img", "link", "iframe", "object", "embed", "base", "form"}
    assert "url(" not in page
    assert "@import" not in page
    assert not re.search(r"https?://", page)
    assert page.isprintable() or all(line.isprintable() for line in page.splitlines())
    return reader


def test_the_page_tells_what_the_report_does():
    """Broken: the manager gets other numbers than the administrator sees."""
    page = draw_page(halted(reason="wrong prices"), analysis(), top=10, now=datetime(2026, 11, 22, 11, tzinfo=UTC))
    text = " ".join(" ".join(read(page).text).split())
    for expected in (
        "spring-sale",
        "halted",
        "wrong prices",
        "100,000",
        "35",
        "48,210 of 48,210",
        "+2.365 s",
        "Around the stop",
        "The whole campaign",
        "32 more",
        "~51,788",
        "17 outcomes older",
        "stop 10:00:00",
    ):
        assert expected in text, expected
    assert page.count("<svg") == page.count("</svg>") == 3


EMPTY = CampaignReport(campaign="c1", node="mx1", state="active", counts=Counts())


@pytest.mark.parametrize("report", [halting(), halted(), EMPTY])
def test_every_state_has_a_page(report):
    """Broken: a campaign that is not finished, or has no mail, can't be printed."""
    nothing = CampaignAnalysis(
        campaign="c1", timeline=None, around_stop=None, lanes=(), other_lanes=0, others=None, replies=(), forgotten=0
    )
    for found in (None, nothing, analysis()):
        read(draw_page(report, found, top=50))


def test_what_strangers_write_stays_text():
    """Broken: a reply of a peer, or a halt's reason, runs in the browser of whoever opens the report."""
    reader = read(draw_page(halted(reason=EVIL), analysis(EVIL), top=10))
    text = "".join(reader.text)
    assert "<script>alert(1)</script>" in text
    assert "\\x1b[2J\\u202e" in text


@given(
    st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), min_size=1, max_size=50),
    st.sampled_from([1, 30, 60, 3600]),
    st.none() | st.floats(-1, 60),
)
def test_plots_are_well_formed_and_stay_inside(columns, step, stop):
    """Broken: a bar sticks out of the picture, or the picture is no SVG at all."""
    span = Span(
        start=datetime(2026, 11, 22, tzinfo=UTC),
        step=step,
        series={"delivered": [one for one, _ in columns], "bounced": [other for _, other in columns]},
        stop=stop,
        stop_label=EVIL,
    )
    picture = ET.fromstring(draw_spans(span, EVIL))  # our own output
    assert len(picture.findall("rect")) == sum(number > 0 for column in columns for number in column)
    for rect in picture.findall("rect"):
        x, y, width, height = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + width <= 860
        assert -1 * len(columns) <= y <= y + height <= 240


@given(st.dictionaries(st.sampled_from(["delivered", "bounced", "dropped", "unknown"]), st.integers(0, 10**9)))
def test_the_bar_is_as_long_as_its_parts(parts):
    """Broken: a single recipient who may have got it is not to be seen."""
    picture = ET.fromstring(draw_share(parts, sum(parts.values())))
    some = [number for number in parts.values() if number]
    widths = [float(rect.get("width")) for rect in picture.findall("rect")]
    assert len(widths) == len(some)
    assert all(width >= 4 for width in widths)
    assert not some or sum(widths) == pytest.approx(860, abs=0.5)
