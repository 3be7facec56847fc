"""The log of outcomes: a batch of lines encoded and handed to the writer's thread."""

from __future__ import annotations

import os

import pytest

from mtactl.observe.events import EventBus
from mtactl.observe.outcomes import OutcomeLog
from mtactl.observe.writer import LineWriter
from mtactl.schedule.settler import Settled
from queue_store.records import Outcome, Settlement
from tests.bench.micro.mail import AT, make_message, make_reader

BATCH = 100


def make_settled(number: int) -> Settled:
    settlement = Settlement(
        recipient_id=number + 1,
        message_id=number,
        campaign="spring",
        outcome=Outcome.DELIVERED,
        at=AT,
        code=250,
        reply="2.0.0 Ok: queued as 4WvXyZ1234",
        peer="mx.inbox.example[192.0.2.1]:25",
    )
    return Settled(
        settlement=settlement,
        message=make_message(number, "spring"),
        recipient=make_reader(number),
        lane="inbox.example",
        stored=Outcome.DELIVERED,
    )


@pytest.mark.parametrize("form", ["json", "console"])
def test_batch(benchmark, form):
    """100 outcomes of one commit."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    writer = LineWriter(descriptor)
    try:
        log = OutcomeLog(writer, EventBus(now=lambda: AT), form=form)
        batch = [make_settled(number) for number in range(1, BATCH + 1)]
        benchmark(log.write, batch)
    finally:
        writer.close()
        os.close(descriptor)
