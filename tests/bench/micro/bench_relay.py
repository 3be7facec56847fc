"""The relay's transaction protocol: a Dialogue that is driven without any I/O."""

from __future__ import annotations

import pytest

from mtactl.relay.commands import Offers
from mtactl.relay.transaction import Dialogue, Finished
from mtactl.schedule.ports import Delivery, Ending, Rcpt

BODY = b"Subject: hello\r\n\r\n" + (b"x" * 76 + b"\r\n") * 128 + b".\r\n"
OK, GO_AHEAD, END = b"250 2.1.0 Ok\r\n", b"354 go ahead\r\n", b"250 2.0.0 Ok: queued as 4WvXyZ1234\r\n"


def make_delivery(recipients: int) -> Delivery:
    return Delivery(
        reverse_path="bounce@news.example",
        recipients=tuple(Rcpt(address=f"reader{number}@inbox.example") for number in range(recipients)),
        body=BODY,
        eight_bit=False,
        smtputf8=False,
        ret=None,
        envid=None,
        on_ending=lambda: None,
    )


def transact(dialogue: Dialogue, delivery: Delivery, replies: list[bytes]) -> None:
    """Run one transaction: after each reply what is to be sent is taken."""
    dialogue.begin(delivery)
    dialogue.data_to_send()
    events: list = []
    for reply in replies:
        events += dialogue.receive_data(reply)
        while dialogue.data_to_send():
            pass
    (finished,) = events
    assert isinstance(finished, Finished) and finished.results[0].ending is Ending.DELIVERED


@pytest.mark.parametrize("recipients", [1, 100])
@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "one by one"])
def test_transaction(benchmark, recipients, pipelining):
    """One transaction of 10 kB with one and with a hundred recipients."""
    dialogue, delivery = Dialogue(Offers(pipelining=pipelining)), make_delivery(recipients)
    envelope = [OK] * (1 + recipients) + [GO_AHEAD]
    replies = [b"".join(envelope), END] if pipelining else [*envelope, END]
    benchmark(transact, dialogue, delivery, replies)
