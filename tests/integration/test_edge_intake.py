"""From the edge into a real store."""

import asyncio
import os
from contextlib import asynccontextmanager

import pytest

from mtactl.edge.intake import StoreIntake
from mtactl.edge.ports import ReceivedMessage, ReceivedRecipient
from mtactl.message import queue_id
from queue_store.records import HaltRequest, QueuedState, QueueFilter
from queue_store.store import QueueStore
from tests.world.edge import NOW, running_edge

BODY = (bytearray(b"Received: x\r\n"), b"Subject: hi\r\n\r\nHello\r\n.\r\n")


def make_message(*domains, campaign="c1", **values):
    recipients = [ReceivedRecipient(address=f"b{number}@{name}", domain=name) for number, name in enumerate(domains)]
    given = {
        "campaign": campaign,
        "reverse_path": "a@example.com",
        "recipients": recipients,
        "body": BODY,
        "received_at": NOW,
        "eight_bit": False,
        "smtputf8": False,
        "ret": None,
        "envid": None,
        "hold_until": None,
        "client": "[127.0.0.1]:4711",
    }
    return ReceivedMessage(**given | values)


class Watched:
    """What an intake asks and tells."""

    def __init__(self):
        self.halted = set()
        self.room = set()
        self.asked = []
        self.appended = []
        self.refused = []

    def claim_for(self, lane, campaign, recipients):
        self.asked.append((lane, campaign, recipients))
        return lane in self.room

    def on_refused(self, campaign, recipients, discarded):
        self.refused.append((campaign, recipients, discarded))

    def on_appended(self, appended, message):
        self.appended.append((appended, message))


@asynccontextmanager
async def opened(path, **options):
    store = await QueueStore.open(path, reserve=1 << 20)
    watched = Watched()
    intake = StoreIntake(
        store,
        is_halted=lambda campaign: campaign in watched.halted,
        claim_for=watched.claim_for,
        on_appended=watched.on_appended,
        on_refused=watched.on_refused,
        **options,
    )
    try:
        yield store, intake, watched
    finally:
        await store.close()


async def test_message_is_stored_before_it_is_acknowledged(tmp_path):
    """If this fails, 250 does not mean durable."""
    async with opened(tmp_path) as (store, intake, watched):
        watched.room.add("one.example")
        assert intake.ready() is None
        reply = await intake.accept(
            make_message("one.example", "two.example", "one.example", envid="e1", eight_bit=True)
        )
        ((appended, new),) = watched.appended
        assert str(reply) == f"250 2.0.0 Ok: queued as {queue_id.encode(appended.message_id)}"
        assert watched.asked == [("one.example", "c1", 2), ("two.example", "c1", 1)]
        assert [recipient.claimed for recipient in new.recipients] == [True, False, True]
        (claim,) = appended.claims
        assert [to.address for to in claim.recipients] == ["b0@one.example", "b2@one.example"]
        assert (claim.message.envid, claim.message.eight_bit, claim.message.campaign) == ("e1", True, "c1")
        assert await store.load_body(claim.message) == b"".join(BODY)


async def test_held_message_is_scheduled(tmp_path):
    """If this fails, FUTURERELEASE mail goes out at once; or mail whose time has come waits for nothing."""
    async with opened(tmp_path) as (store, intake, watched):
        watched.room.add("one.example")
        await intake.accept(make_message("one.example", hold_until=NOW + 60_000_000))
        await intake.accept(make_message("one.example", hold_until=NOW - 1))
        assert watched.asked == [("one.example", "c1", 1)]
        rows = await store.queue(QueueFilter(), limit=10)
        assert [row.state for row in rows] == [QueuedState.SCHEDULED, QueuedState.CLAIMED]
        assert rows[0].due == NOW + 60_000_000


@pytest.mark.parametrize("discard", [False, True])
async def test_halted_campaign_is_refused_or_discarded(tmp_path, discard):
    """If this fails, mail of a halted campaign is queued, or is in no count (CONTRACT.md §2.5)."""
    async with opened(tmp_path, after_halt="discard" if discard else "reject") as (_, intake, watched):
        watched.halted.add("c1")
        reply = await intake.accept(make_message("one.example", "two.example"))
        if discard:
            assert reply.code == 250
        else:
            assert (reply.code, reply.enhanced) == (550, "5.7.1")
            assert "campaign c1 is halted" in reply.text
        assert watched.refused == [("c1", 2, discard)]
        assert not watched.appended
        assert (await intake.accept(make_message("one.example", campaign=""))).code == 250
        assert (await intake.accept(make_message("one.example", campaign="c2"))).code == 250


async def test_store_that_knows_of_a_halt_first_is_believed(tmp_path):
    """If this fails, a halt that the gate does not show yet is answered with a temporary error, for ever."""
    async with opened(tmp_path) as (store, intake, watched):
        halt = store.record_halt(HaltRequest(campaign="c1", closed_at=NOW, in_flight=0))
        reply = await intake.accept(make_message("one.example"))
        assert (reply.code, reply.enhanced) == (550, "5.7.1")
        assert watched.refused == [("c1", 1, False)]
        await halt


async def test_books_are_kept_also_when_nobody_waits(tmp_path):
    """If this fails, a message that became durable after its client had gone is in no book until the next start."""
    async with opened(tmp_path) as (_, intake, watched):
        answer = intake.accept(make_message("one.example"))
        answer.cancel()
        async with asyncio.timeout(10):
            while not watched.appended:
                await asyncio.sleep(0.002)
        assert not watched.refused


async def test_order_of_hand_over_is_the_order_of_the_books(tmp_path):
    """If this fails, the ledger and the store disagree about what came before a halt."""
    async with opened(tmp_path) as (_, intake, watched):
        answers = [intake.accept(make_message("one.example", campaign=f"c{number}")) for number in range(200)]
        await asyncio.gather(*answers)
        assert [new.campaign for _, new in watched.appended] == [f"c{number}" for number in range(200)]
        numbers = [appended.message_id for appended, _ in watched.appended]
        assert numbers == sorted(numbers)


async def test_closed_store_is_a_temporary_failure(tmp_path):
    """If this fails, mail that comes while the daemon stops is lost or refused for good."""
    async with opened(tmp_path) as (store, intake, watched):
        await store.close()
        reply = await intake.accept(make_message("one.example"))
        assert (reply.code, reply.enhanced) == (451, "4.3.0")
        assert intake.ready() == reply
        assert not watched.appended


async def test_no_room_is_a_temporary_failure(tmp_path, monkeypatch):
    """If this fails, a full disk loses mail, or what comes after it was emptied is still turned away."""
    statvfs = os.statvfs

    def full(path):
        figures = statvfs(path)
        return os.statvfs_result((*figures[:3], 0, 0, *figures[5:]))

    async with opened(tmp_path) as (_, intake, watched):
        monkeypatch.setattr(os, "statvfs", full)
        async with asyncio.timeout(10):
            while intake.ready() is None:  # the room is not looked at for each mail while there is plenty
                await asyncio.sleep(0.02)
        for reply in (intake.ready(), await intake.accept(make_message("one.example"))):
            assert reply is not None
            assert (reply.code, reply.enhanced) == (452, "4.3.1")
        monkeypatch.undo()
        assert intake.ready() is None
        assert (await intake.accept(make_message("one.example"))).code == 250
        assert len(watched.appended) == 1


async def test_intake_that_is_closed_takes_no_more(tmp_path):
    """If this fails, a daemon that stops goes on taking mail."""
    async with opened(tmp_path) as (_, intake, _watched):
        intake.close()
        refusal = intake.ready()
        assert refusal is not None
        assert (refusal.code, refusal.enhanced) == (421, "4.3.2")


async def test_whole_way_from_the_socket_to_the_disk(tmp_path):
    """If this fails, edge and store do not fit."""
    async with opened(tmp_path) as (store, intake, watched), running_edge() as edge:
        edge.intake.accept = intake.accept
        async with edge.client() as client:
            await client.begin()
            code, text = await client.deliver(b"X-Job: j\r\n\r\n..\r\n.\r\n")
            assert code == 250
            ((appended, new),) = watched.appended
            assert text == f"2.0.0 Ok: queued as {queue_id.encode(appended.message_id)}"
            (row,) = await store.queue(QueueFilter(), limit=10)
            assert row.message.campaign == "j"
            assert (await store.load_body(row.message)) == b"".join(new.body)
