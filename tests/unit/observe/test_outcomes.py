"""The line that each recipient's outcome gets."""

import asyncio
import json
import os

import pytest

from mtactl.observe.events import EventBus
from mtactl.observe.outcomes import OutcomeLog
from mtactl.observe.writer import LineWriter
from mtactl.schedule.settler import Settled
from queue_store.records import Message, Outcome, Recipient, Settlement

AT = 1_795_341_600_000_000


def make_settled(outcome=Outcome.DELIVERED, *, stored=None, campaign="c1", address="a@example.com", after_stop=False):
    """Make what the settler hands over; a deferral that a halt made a drop has `stored`."""
    return Settled(
        settlement=Settlement(
            recipient_id=101,
            message_id=100,
            campaign=campaign,
            outcome=outcome,
            at=AT + 1_234_567,
            due=0 if outcome else AT + 60_000_000,
            after_stop=after_stop,
            code=250 if outcome is Outcome.DELIVERED else 451,
            reply="2.0.0 OK" if outcome is Outcome.DELIVERED else "4.3.0 Later",
            peer="mx.example.com[192.0.2.1]:25",
        ),
        message=Message(
            id=100,
            campaign=campaign,
            reverse_path="s@example.org",
            received_at=AT,
            segment=1,
            offset=0,
            size=10,
            eight_bit=False,
            smtputf8=False,
            ret=None,
            envid=None,
        ),
        recipient=Recipient(id=101, address=address, attempts=2, notify=None, orcpt=None),
        lane="example.com",
        stored=stored or outcome,
    )


@pytest.fixture
def outcomes(tmp_path):
    """Give a function that makes an outcome log with an event bus, and one that gives what was written."""
    path = tmp_path / "log"
    out = os.open(path, os.O_WRONLY | os.O_CREAT)
    writer = LineWriter(out)
    bus = EventBus(now=lambda: AT)

    def make(**how):
        return OutcomeLog(writer, bus, **how)

    def written():
        writer.close()
        return path.read_text().splitlines()

    yield make, written, bus
    writer.close()
    os.close(out)


def test_json(outcomes):
    """The line is what a support desk greps for; a field that is missing is a question that can't be answered."""
    make, written, _bus = outcomes
    make().write([make_settled(), make_settled(None), make_settled(None, stored=Outcome.DROPPED, after_stop=True)])
    delivered, deferred, dropped = map(json.loads, written())
    assert delivered == {
        "at": "2026-11-22T10:00:01.234567Z",
        "level": "info",
        "event": "outcome",
        "outcome": "delivered",
        "campaign": "c1",
        "message": "0000000034",
        "recipient": "a@example.com",
        "lane": "example.com",
        "peer": "mx.example.com[192.0.2.1]:25",
        "code": 250,
        "reply": "2.0.0 OK",
        "delay_seconds": 1.235,
        "attempts": 3,
        "after_stop": False,
        "due": None,
    }
    assert (deferred["outcome"], deferred["due"]) == ("deferred", "2026-11-22T10:01:00.000000Z")
    assert (dropped["outcome"], dropped["after_stop"], dropped["due"]) == ("dropped", True, None)


def test_console(outcomes):
    """On a terminal what is empty is left out, and the outcome comes first."""
    make, written, _bus = outcomes
    make(form="console").write([make_settled(campaign="")])
    line = (
        "10:00:01.234 info    delivered message=0000000034 recipient=a@example.com lane=example.com "
        'peer=mx.example.com[192.0.2.1]:25 code=250 reply="2.0.0 OK" delay_seconds=1.235 attempts=3'
    )
    assert written() == [line]


def test_addresses_that_are_no_text(outcomes):
    """One address with odd octets must not lose the lines of the whole batch, nor break one."""
    make, written, _bus = outcomes
    make().write([make_settled(), make_settled(address="a\udcff\n\x9b@example.com")])
    assert [json.loads(line)["recipient"] for line in written()] == ["a@example.com", "a\\udcff\n\x9b@example.com"]


@pytest.mark.parametrize(("level", "lines"), [("debug", 1), ("info", 1), ("warning", 0), ("error", 0)])
def test_levels(outcomes, level, lines):
    """Who asked for warnings only does not want a line a mail."""
    make, written, _bus = outcomes
    make(level=level).write([make_settled()])
    assert len(written()) == lines


async def test_events(outcomes):
    """Followers see outcomes, whatever the log's level; without followers nothing is built for them."""
    make, written, bus = outcomes
    log = make(level="error")
    log.write([make_settled()])
    stream = bus.follow()
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    log.write([make_settled(Outcome.BOUNCED)])
    event = await asyncio.wait_for(waiting, 5)
    assert (event.id, event.kind) == (1, "outcome")
    assert event.data["outcome"] == "bounced"
    assert event.data["message"] == "0000000034"
    assert not {"at", "level", "event"} & set(event.data)
    json.dumps(event.data)
    assert written() == []
    await stream.aclose()
