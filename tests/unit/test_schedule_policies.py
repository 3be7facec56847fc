"""The scheduler's rules, without a loop or a clock: window, throttle, concurrency, retry, lane."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mtactl.schedule.concurrency import Concurrency
from mtactl.schedule.lane import Lane, LaneState
from mtactl.schedule.retry import due_after, is_expired, step_of
from mtactl.schedule.throttle import Throttle
from mtactl.schedule.window import Window
from mtactl.settings import LaneSettings
from queue_store.records import Claim, Message, Recipient


def claim(number, campaign, recipients=1, lane="d"):
    message = Message(
        id=number * 100,
        campaign=campaign,
        reverse_path="s@x",
        received_at=0,
        segment=1,
        offset=0,
        size=10,
        eight_bit=False,
        smtputf8=False,
        ret=None,
        envid=None,
    )
    return Claim(
        lane=lane,
        message=message,
        recipients=tuple(
            Recipient(id=number * 100 + k + 1, address=f"r{k}@d", attempts=0, notify=None, orcpt=None)
            for k in range(recipients)
        ),
    )


def all_open(_campaign):
    return True


def test_a_large_campaign_does_not_starve_a_small_one():
    """A campaign of a thousand ahead of one of ten: the ten would wait for all of the thousand."""
    window = Window()
    for k in range(1000):
        window.push(claim(k, "large"))
    for k in range(10):
        window.push(claim(5000 + k, "small"))
    first = Counter(window.pop(all_open, most=50).message.campaign for _ in range(20))
    assert first == {"large": 10, "small": 10}


def test_mail_without_a_campaign_goes_first():
    """A password reset would wait behind a newsletter."""
    window = Window()
    for k in range(5):
        window.push(claim(k, "news"))
    window.push(claim(9, ""))
    assert window.pop(all_open, most=1).message.campaign == ""


def test_a_shut_campaign_is_passed_over_and_stays():
    """A held campaign at the front would block the lane, or leak."""
    window = Window()
    window.push(claim(1, "held"))
    window.push(claim(2, "free"))
    assert window.pop(lambda name: name != "held", most=1).message.campaign == "free"
    assert window.pop(lambda name: name != "held", most=1) is None
    assert window.recipients == 1 and window.holds("held")
    assert [each.message.campaign for each in window.evict("held")] == ["held"]
    assert not window


def test_a_claim_is_split_and_put_back_in_place():
    """Recipients beyond a transaction's limit would be lost or sent twice."""
    window = Window()
    window.push(claim(1, "a", recipients=5))
    window.push(claim(2, "a"))
    part = window.pop(all_open, most=2)
    assert [r.id for r in part.recipients] == [101, 102]
    window.put_back(part)
    again = window.pop(all_open, most=2)
    assert [r.id for r in again.recipients] == [101, 102]
    assert [r.id for r in window.pop(all_open, most=9).recipients] == [103, 104, 105]
    assert window.pop(all_open, most=9).message.id == 200
    assert window.recipients == 0


@given(
    st.lists(st.tuples(st.sampled_from(["push", "pop", "back", "evict", "remove"]), st.sampled_from("ab")), max_size=60)
)
def test_a_window_loses_nothing_and_invents_nothing(steps):
    """The window's count is what bounds memory, and each recipient in it is claimed on disk."""
    window, inside, out, number = Window(), set(), None, 0
    for step, campaign in steps:
        if step == "push":
            number += 1
            new = claim(number, "" if number % 7 == 0 else campaign, recipients=1 + number % 3)
            window.push(new)
            inside |= {r.id for r in new.recipients}
        elif step == "pop":
            out = window.pop(all_open, most=2)
            assert (out is None) == (not inside)
            inside -= {r.id for r in out.recipients} if out else set()
        elif step == "back" and out is not None:
            window.put_back(out)
            inside |= {r.id for r in out.recipients}
            out = None
        elif step == "evict":
            gone = window.evict(campaign)
            inside -= {r.id for each in gone for r in each.recipients}
            assert not window.holds(campaign)
        elif step == "remove":
            gone = window.remove(lambda each: each.message.id % 200 == 0)
            inside -= {r.id for each in gone for r in each.recipients}
        assert window.recipients == len(inside)
    assert {r.id for each in window.drain() for r in each.recipients} == inside


@given(st.floats(0.5, 1000.0), st.integers(1, 20), st.integers(1, 5))
def test_the_throttle_keeps_to_its_rate(rate, burst, size):
    """A provider that allows 100 a second would block us at 150."""
    throttle = Throttle(rate, burst)
    now, sent = 1000.0, 0
    while now < 1010.0:
        wait = throttle.wait(now)
        if wait <= 0.0:
            throttle.take(now, size)
            sent += size
        else:
            now += max(wait, 1e-6)
    assert sent <= rate * 10.0 + burst + size
    assert sent >= min(rate * 10.0 - size - 1, sent)


def test_no_rate_never_waits():
    """An unlimited lane must not be slowed by what it sent."""
    throttle = Throttle(None)
    throttle.take(0.0, 1_000_000)
    assert throttle.wait(0.0) == 0.0


def test_concurrency_grows_by_success_and_shrinks_by_failure():
    """Without growth a fast destination is served by five connections; without shrinking a slow one is swamped."""
    concurrency = Concurrency(20)
    for _ in range(400):
        concurrency.succeed()
    assert concurrency.allowance == 20
    for k in range(60):
        concurrency.fail() if k % 2 else concurrency.succeed()
    assert concurrency.allowance >= 19 and not concurrency.dead  # single errors among successes do not make it swing
    for _ in range(20):
        concurrency.fail()
    assert concurrency.dead and concurrency.allowance < 20
    concurrency.probe()
    assert concurrency.allowance == 1 and not concurrency.dead
    concurrency.fail()
    assert concurrency.dead


def test_the_retry_schedule_repeats_its_last_step():
    """A recipient past the end of the schedule must be tried on, not forgotten."""
    schedule = (60.0, 300.0)
    assert [step_of(schedule, k) for k in (0, 1, 2, 9)] == [60.0, 300.0, 300.0, 300.0]
    for seed in (1, 2, 12345, 2**62):
        assert 60_000_000 <= due_after(schedule, 0, 0, seed) <= 67_500_000
    assert len({due_after(schedule, 0, 0, seed) for seed in range(100)}) > 90


def test_expiry_is_by_age():
    """Mail that waits for ever is never reported as expired."""
    assert is_expired(0, 10.0, 10_000_000)
    assert not is_expired(0, 10.0, 9_999_999)


def test_a_lane_backs_off_when_its_destination_is_dead_and_probes_with_one_connection():
    """A dead destination would be knocked at without end, or never again."""
    lane = Lane("d", LaneSettings(backoff=(5.0, 60.0)), 0.0)
    lane.window.push(claim(1, "a"))
    assert lane.wants_connection(0.0)
    assert [lane.fail(0.0, 0) for _ in range(5)] == [False, False, False, False, True]
    assert lane.state(1.0) is LaneState.BACKOFF and not lane.wants_connection(1.0) and lane.backoff_until == 5.0
    assert lane.backoff_until_wall == 5_000_000
    assert not lane.fail(1.0, 0)  # late failures of other connections do not lengthen it
    assert lane.wants_connection(5.0)
    assert lane.fail(5.0, 0) and lane.backoff_until == 65.0
    lane.end_backoff()
    lane.succeed()
    assert lane.backoff_step == 0 and lane.state(6.0) is LaneState.OPEN


def test_a_lane_takes_new_mail_into_its_window_only_when_nothing_older_waits():
    """Newer mail would overtake what waits on disk, for ever on a busy lane."""
    lane = Lane("d", LaneSettings(), 0.0)
    assert lane.has_room(0.0)
    lane.backlog = True
    assert not lane.has_room(0.0) and lane.wants_page(0.0)
    lane.backlog, lane.claiming = False, True
    assert not lane.has_room(0.0)


def test_a_rated_lane_claims_only_what_it_can_send_soon():
    """A lane of one a second would hold four hundred claimed recipients in memory for minutes."""
    assert Lane("d", LaneSettings(rate=1.0), 0.0).page() == 20
    assert Lane("d", LaneSettings(rate=50.0), 0.0).page() == 250
    assert Lane("d", LaneSettings(), 0.0).page() == 400
