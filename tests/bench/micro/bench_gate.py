"""Gate and window: what is asked and taken in the tick in which MAIL FROM is written."""

from __future__ import annotations

from mtactl.campaign.gate import Gate
from mtactl.campaign.state import CampaignEvent
from mtactl.schedule.window import Window
from queue_store.records import Claim
from tests.bench.micro.mail import make_message, make_reader

CAMPAIGNS = 40
CLAIMS = 1_000


def make_claim(number: int) -> Claim:
    message = make_message(number, f"campaign-{number % CAMPAIGNS}")
    return Claim(lane="inbox.example", message=message, recipients=(make_reader(number),))


def fill_window(claims: list[Claim]) -> Window:
    window = Window()
    for claim in claims:
        window.push(claim)
    return window


def test_pop(benchmark):
    """1,000 claims of 40 campaigns go into a window and out through the gate, which holds one of them back."""
    gate = Gate()
    gate.move("campaign-7", CampaignEvent.HOLD)
    claims = [make_claim(number) for number in range(CLAIMS)]
    held = sum(claim.message.campaign == "campaign-7" for claim in claims)

    def pass_through() -> None:
        window = fill_window(claims)
        popped = 0
        while window.pop(gate.lets_begin, most=100) is not None:
            popped += 1
        assert popped == CLAIMS - held

    benchmark(pass_through)


def test_evict(benchmark):
    """A campaign leaves a full window, as its halt asks for."""
    claims = [make_claim(number) for number in range(CLAIMS)]

    def prepare() -> tuple[tuple[Window], dict[str, object]]:
        return (fill_window(claims),), {}

    def evict(window: Window) -> None:
        assert len(window.evict("campaign-7")) == CLAIMS // CAMPAIGNS

    benchmark.pedantic(evict, setup=prepare, rounds=200)
