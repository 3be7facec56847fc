"""The pure core of a halt: states, gate, books, steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtactl.campaign.gate import Gate
from mtactl.campaign.halt import Halt, HaltStep
from mtactl.campaign.ledger import Account, Final, Ledger
from mtactl.campaign.state import CampaignEvent, CampaignState, move
from mtactl.errors import CampaignError, IllegalMove

S, E = CampaignState, CampaignEvent


@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("event", E)
def test_every_pair_of_state_and_event_is_decided(state, event):
    """A halt that could be undone, or a hold that reopened a halted campaign, would show here."""
    allowed = {
        (S.ACTIVE, E.HOLD): S.HELD,
        (S.ACTIVE, E.RELEASE): S.ACTIVE,
        (S.ACTIVE, E.HALT): S.HALTING,
        (S.HELD, E.HOLD): S.HELD,
        (S.HELD, E.RELEASE): S.ACTIVE,
        (S.HELD, E.HALT): S.HALTING,
        (S.HALTING, E.HALT): S.HALTING,
        (S.HALTING, E.COMPLETE): S.HALTED,
        (S.HALTED, E.HALT): S.HALTED,
    }
    if (state, event) in allowed:
        assert move("c", state, event) is allowed[state, event]
    else:
        with pytest.raises(IllegalMove) as raised:
            move("c", state, event)
        assert "c" in str(raised.value) and state.value in str(raised.value) and event.value in str(raised.value)


@given(st.lists(st.sampled_from(list(E))))
def test_once_halted_the_gate_never_opens_again(events):
    """A campaign that begins anything after a halt is the failure this project exists to prevent."""
    gate = Gate()
    halted = False
    for event in events:
        try:
            gate.move("c", event)
        except IllegalMove:
            continue
        halted = halted or event is E.HALT
        if halted:
            assert not gate.lets_begin("c") and gate.is_closed("c")
        assert gate.lets_begin("other") and gate.lets_begin("")


def test_the_gate_knows_held_from_closed():
    """A held campaign that counted as closed would have its deferrals dropped."""
    gate = Gate()
    gate.move("h", E.HOLD)
    assert not gate.lets_begin("h") and not gate.is_closed("h") and list(gate.held()) == ["h"]
    gate.move("h", E.RELEASE)
    assert gate.lets_begin("h") and list(gate.held()) == []
    assert gate.counts()[S.HELD] == 0


def test_mail_of_no_campaign_cannot_be_halted():
    """Closing the gate of the empty name would stop all mail that has no campaign."""
    with pytest.raises(CampaignError):
        Gate().move("", E.HALT)


def test_the_ledger_refuses_transfers_that_are_not_covered():
    """A count below zero means that some recipient was counted twice: it must not go unseen."""
    ledger = Ledger()
    ledger.accept("c", 2, scheduled=1)
    ledger.begin("c", 1)
    with pytest.raises(ValueError, match="books"):
        ledger.begin("c", 1)  # the other one is scheduled
    with pytest.raises(ValueError, match="books"):
        ledger.remove("c", Final.DROPPED, ready=2, deferred=0, scheduled=0)
    with pytest.raises(ValueError, match="books"):
        ledger.restore("c", Account())
    with pytest.raises(ValueError, match="balance"):
        ledger.restore("d", Account(accepted=1))


def test_what_begins_after_the_gate_closed_is_seen():
    """The alert on leaks is this count: it must not depend on the gate, whose failure it is to show."""
    ledger = Ledger()
    ledger.restore("halted-before-the-start", Account(accepted=3, queued=3))
    ledger.accept("c", 5)
    ledger.begin("c", 2)
    ledger.close("c")
    ledger.close("halted-before-the-start")
    ledger.close("never-seen")
    assert ledger.total.begun_after_stop == 0
    ledger.finish("c", Final.DELIVERED, after_stop=True)
    assert ledger.total.begun_after_stop == 0
    ledger.begin("c", 2)
    ledger.begin("halted-before-the-start", 1)
    assert (ledger.account("c").begun_after_stop, ledger.total.begun_after_stop) == (2, 3)


@given(st.data())
def test_the_law_holds_after_any_transfers(data):
    """accepted = queued + in_flight + the five outcomes: for each campaign and in total, whatever happens."""
    ledger = Ledger()
    names = ["", "a", "b"]
    for _ in range(data.draw(st.integers(0, 40))):
        name = data.draw(st.sampled_from(names))
        account = ledger.account(name)
        ready = account.queued - account.deferred - account.scheduled
        moves = ["accept", "refuse"]
        if ready:
            moves += ["begin", "bounce", "remove"]
        if account.in_flight:
            moves += ["finish", "defer"]
        if account.deferred or account.scheduled:
            moves += ["promote", "remove"]
        step = data.draw(st.sampled_from(moves))
        match step:
            case "accept":
                ledger.accept(name, 3, scheduled=data.draw(st.integers(0, 3)))
            case "refuse":
                ledger.refuse(name, 1, discarded=data.draw(st.booleans()))
            case "begin":
                ledger.begin(name, data.draw(st.integers(1, ready)))
            case "bounce":
                ledger.finish(name, Final.BOUNCED, after_stop=False, in_flight=False)
            case "finish":
                ledger.finish(name, data.draw(st.sampled_from(list(Final))), after_stop=data.draw(st.booleans()))
            case "defer":
                ledger.defer(name)
            case "promote":
                ledger.promote(name, deferred=account.deferred, scheduled=account.scheduled)
            case "remove":
                ledger.remove(name, Final.DROPPED, ready=ready, deferred=account.deferred, scheduled=account.scheduled)
        assert ledger.total.balanced
        assert all(ledger.account(each).balanced for each in ledger)
        assert all(getattr(account, slot) >= 0 for slot in Account.__slots__)
        for slot in Account.__slots__:
            if slot not in ("began", "closed"):
                assert getattr(ledger.total, slot) == sum(getattr(ledger.account(each), slot) for each in ledger)
        assert ledger.total.delivered_after_stop <= ledger.total.delivered


def _halt():
    return Halt(
        campaign="c",
        kind="stop",
        reason=None,
        requested_uid=0,
        requested_user="root",
        requested_at=1,
        queued_at_stop=10,
        in_flight_at_stop=3,
    )


def test_steps_are_reached_in_order_and_once():
    """A report that says completed while mail is in flight would be a lie."""
    halt = _halt()
    with pytest.raises(IllegalMove):
        halt.reach(HaltStep.RECORDED, 1)
    halt.reach(HaltStep.GATE_CLOSED, 1)
    halt.reach(HaltStep.RECORDED, 2)
    with pytest.raises(IllegalMove):
        halt.reach(HaltStep.COMPLETED, 3)
    halt.reach(HaltStep.IN_FLIGHT_FINISHED, 3)
    with pytest.raises(IllegalMove):
        halt.reach(HaltStep.COMPLETED, 3)
    halt.reach(HaltStep.QUEUE_DROPPED, 4)
    assert halt.completed_at is None
    halt.reach(HaltStep.COMPLETED, 5)
    assert halt.completed_at == 5
    with pytest.raises(IllegalMove):
        halt.reach(HaltStep.COMPLETED, 6)


def test_progress_counts_down_to_the_total():
    """The bars of `mtactl halt` are drawn from these two."""
    halt = _halt()
    assert halt.queue_dropped(10) == (0, 10)
    assert halt.queue_dropped(4) == (6, 10)
    assert halt.in_flight_finished(0) == (3, 3)
