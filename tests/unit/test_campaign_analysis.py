"""What became of a campaign, gathered: bounded in size, and true in its sums."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtactl.campaign import analysis as module
from mtactl.campaign.analysis import SERIES, Analysis, normalise


def add(analysis: Analysis, **rows) -> None:
    analysis.add(**{"waiting": [], "settled": [], "times": [], "replies": [], **rows})


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ("2.0.0 Ok: queued as 4F2aB12cD", "2.0.0 Ok: queued as *"),
        ("5.1.1 <user1@x.example>: User unknown", "5.1.1 *: User unknown"),
        ("5.1.1 user@example.com unknown", "5.1.1 * unknown"),
        ("2.0.0 OK  1700000000 a1-20020a05600c - gsmtp", "2.0.0 OK * - gsmtp"),
        ("5.7.1 [192.0.2.1] blocked", "5.7.1 [*] blocked"),
        ("4.2.0 Try again later", "4.2.0 Try again later"),
        ("4.7.0 greylisted for 300 seconds", "4.7.0 greylisted for 300 seconds"),
        ("", ""),
        ("x" * 900, "x" * 200),
    ],
)
def test_replies_are_told_without_what_is_particular(reply, told):
    """Broken: the list of replies seen most has a million replies seen once, or drowns different ones in each other."""
    assert normalise(reply) == told


@given(st.text(max_size=300))
def test_normalising_comes_to_rest(reply):
    """Broken: a stranger's reply makes the analysis hang or grow."""
    once = normalise(reply)
    assert len(once) <= 200
    assert normalise(once) == once or len(once) == 200


@given(
    st.lists(
        st.tuples(st.integers(0, 10**9), st.sampled_from([name for name in SERIES if "_" not in name]), st.booleans()),
        max_size=300,
    )
)
def test_a_timeline_has_every_outcome_in_few_points(rows):
    """Broken: deliveries are missing from the picture, or a campaign of a year makes an answer without end."""
    analysis = Analysis(stop=500)
    add(analysis, times=[(second, outcome, after, 2) for second, outcome, after in rows])
    line = analysis.timeline()
    if not rows:
        assert line is None
        return
    assert {len(numbers) for numbers in line.series.values()} == {len(line.series["delivered"])}
    assert len(line.series["delivered"]) <= 241
    assert sum(sum(numbers) for name, numbers in line.series.items() if name != "delivered_after_stop") == 2 * len(rows)
    after = sum(2 for _, outcome, after in rows if after and outcome == "delivered")
    assert sum(line.series["delivered_after_stop"]) == after
    near = analysis.around_stop()
    within = [row for row in rows if abs(row[0] - 500) <= 1800]
    assert (near is None) == (not within)
    if near is not None:
        assert len(near.series["delivered"]) <= 61


def test_a_long_campaign_is_gathered_in_longer_steps(monkeypatch):
    """Broken: memory grows with the length of a campaign."""
    monkeypatch.setattr(module, "_MOST_BUCKETS", 100)
    analysis = Analysis()
    for second in range(0, 500_000, 10):
        add(analysis, times=[(second, "delivered", False, 1)])
    line = analysis.timeline()
    assert line.step == 6 * 3600
    assert sum(line.series["delivered"]) == 50_000


def test_too_many_destinations_and_replies_are_put_together(monkeypatch):
    """Broken: mail to a million domains, or a million different replies, fill the daemon's memory."""
    monkeypatch.setattr(module, "_MOST_KEYS", 10)
    analysis = Analysis()
    for number in range(200):
        add(
            analysis,
            waiting=[("big.example", True, 1)],
            settled=[(f"d{number}.example", "delivered", 1)],
            replies=[("delivered", 250, "word" + chr(0x4E00 + number), 1), ("delivered", 250, "Ok", 1)],
        )
    assert len(analysis.lanes) <= 10
    assert len(analysis.replies) <= 12
    top, others, rest = analysis.top_lanes(3)
    assert top[0][0] == "big.example"
    assert top[0][1].deferred == 200
    assert others == len(analysis.lanes) - 3
    assert sum(tally.recipients for _, tally in top) + rest.recipients == 400
    replies = list(analysis.top_replies(2))
    assert ("delivered", 250, "Ok", 200) in [(outcome, code, text, seen.seen) for outcome, code, text, seen in replies]
    assert sum(seen.seen for seen in analysis.replies.values()) == 400
