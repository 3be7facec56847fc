"""The streams of the control API: recipients and events, with readers that are slow, vanish, or come back."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Sequence

import aiohttp
import pytest
from structlog.testing import capture_logs

from mtactl.campaign.ledger import Final
from mtactl.control.types import RecipientRow, RequestedBy
from queue_store.errors import StoreFailed
from tests.world.control import Api, serving, until
from tests.world.memory_node import MemoryNode


def finished(node: MemoryNode, campaign: str = "c1", recipients: int = 1203) -> MemoryNode:
    """Give the campaign delivered recipients and, after a halt's gate closed, one more of each ending."""
    node.accept(campaign, [f"r{number}@example.com" for number in range(recipients)])
    node.begin(campaign, recipients)
    for _ in range(recipients):
        node.finish(campaign)
    return node


async def stopped(node: MemoryNode) -> MemoryNode:
    """Halt c1 while two of its recipients are in flight; one is delivered after the stop, one bounces."""
    node.accept("c1", ["before@example.com", "late@example.com", "no@example.com", "never@example.com"])
    node.begin("c1", 3)
    node.finish("c1")
    await node.halt("c1", reason=None, by=RequestedBy(uid=0, user="root"))
    node.finish("c1")
    node.finish("c1", Final.BOUNCED, code=550, reply="5.1.1 No such user")
    node.work()
    return node


async def rows(api: Api, query: str = "") -> list[dict]:
    answer = await api.get(f"/v1/campaigns/c1/recipients{query}")
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.body.splitlines()]


async def test_every_recipient_is_in_the_stream_once():
    """Broken: the list of who got it is short, or counts some twice, at the seams of its pages."""
    async with serving(finished(MemoryNode())) as api:
        assert [row["recipient"] for row in await rows(api)] == [f"r{number}@example.com" for number in range(1203)]


async def test_a_campaign_without_outcomes_gives_an_empty_stream():
    """Broken: an empty list looks like a failure; a CSV without rows has no header."""
    node = MemoryNode()
    node.accept("c1", ["r@example.com"])
    async with serving(node) as api:
        assert await rows(api) == []
        answer = await api.get("/v1/campaigns/c1/recipients?format=csv")
        assert answer.body == b"recipient,outcome,after_stop,at,message,attempts,code,reply,peer,lane\r\n"


async def test_outcomes_are_chosen_by_repetition_or_by_commas():
    """Broken: 'who got it although I stopped it' is answered with the wrong people."""
    async with serving(await stopped(MemoryNode())) as api:

        async def who(query: str) -> list[str]:
            return [row["recipient"].partition("@")[0] for row in await rows(api, query)]

        assert await who("") == ["before", "late", "no", "never"]
        assert await who("?outcome=delivered") == ["before", "late"]
        assert await who("?outcome=bounced&outcome=dropped") == ["no", "never"]
        assert await who("?outcome=bounced,dropped&format=ndjson") == ["no", "never"]
        assert await who("?after_stop=true") == ["late", "no", "never"]
        assert await who("?after_stop&outcome=delivered") == ["late"]
        assert await who("?after_stop=false&outcome=delivered") == ["before", "late"]
        assert await who("?outcome=unknown") == []


async def test_csv_is_read_back_by_a_csv_reader_and_computed_by_no_spreadsheet():
    """Broken: a recipient address runs a formula on the administrator's desk, or shifts the columns."""
    addresses = ["=1+1", "+x", "-x", "@x", '"a,b"', 'q"uote', "tab\there", "\tlead", "cr\rlf\n", "esc\x1b[0m", "ü"]
    node = MemoryNode()
    node.accept("c1", [f"{name}@example.com" for name in addresses])
    node.begin("c1", len(addresses))
    for _ in addresses:
        node.finish("c1", reply="=HYPERLINK(1)")
    async with serving(node) as api:
        answer = await api.get("/v1/campaigns/c1/recipients?format=csv")
        exact = [row["recipient"] for row in await rows(api)]
    assert answer.headers["Content-Type"].startswith("text/csv")
    text = answer.body.decode()
    assert not any(ord(character) < 32 or ord(character) == 127 for character in text.replace("\r\n", ""))
    header, *cells = csv.reader(io.StringIO(text, newline=""))
    table = [dict(zip(header, row, strict=True)) for row in cells]
    assert len(table) == len(addresses)
    for row in table:
        assert row["recipient"][0] not in "=+-@\t\r"
        assert row["reply"] == "'=HYPERLINK(1)"
        assert (row["code"], row["after_stop"], row["attempts"]) == ("250", "false", "1")
    assert table[0]["recipient"] == "'=1+1@example.com"
    assert table[4]["recipient"] == '"a,b"@example.com'
    assert table[6]["recipient"] == "tab\\u0009here@example.com"
    assert exact == [f"{name}@example.com" for name in addresses]


class EndlessNode(MemoryNode):
    """Has no end of recipients, and counts the pages that were taken from it."""

    pages = 0

    async def _pages(
        self, campaign: str, outcomes: set[str], after_stop: bool
    ) -> AsyncIterator[Sequence[RecipientRow]]:
        row = self._recipient_row(next(self._fitting(campaign, outcomes)))
        self.streams += 1
        try:
            while True:
                await asyncio.sleep(0)
                self._fail("recipients")
                self.pages += 1
                yield [row] * 500
        finally:
            self.streams -= 1


async def test_a_slow_reader_slows_the_node_down_and_a_vanished_one_ends_the_iteration():
    """Broken: one `curl | less` fills the memory, or keeps a snapshot of the store open for ever."""
    node = EndlessNode()
    finished(node, recipients=1)
    async with serving(node) as api:
        async with api.open("GET", "/v1/campaigns/c1/recipients") as response:
            await response.content.readany()
            before = -1
            while before != node.pages:  # until it stands still
                before = node.pages
                await asyncio.sleep(0.2)
            assert node.pages < 200  # of a hundred kilobytes each
            assert node.streams == 1
            assert (await api.get("/v1/status")).status == 200
            response.close()
        await until(lambda: node.streams == 0)


async def test_a_halt_is_answered_while_many_readers_hang():
    """Broken: monitoring that got stuck stands in the way of the stop."""
    node = EndlessNode()
    finished(node, recipients=1)
    async with serving(node) as api:
        hanging = [await api.open("GET", "/v1/campaigns/c1/recipients") for _ in range(40)]
        hanging += [await api.open("GET", "/v1/events") for _ in range(40)]
        answer = await api.post("/v1/campaigns/c1/halt", {"confirm": "c1"})
        assert answer.json["state"] == "halting"
        for response in hanging:
            response.close()
        await until(lambda: node.streams == 0 and not node.followers)


async def test_a_stream_that_breaks_is_cut_and_not_ended():
    """Broken: half a list is taken for the whole."""
    node = EndlessNode()
    finished(node, recipients=1)
    async with serving(node) as api:
        with capture_logs() as logs:
            async with api.open("GET", "/v1/campaigns/c1/recipients") as response:
                await response.content.readany()
                node.failures["recipients"] = StoreFailed("EIO")
                with pytest.raises(aiohttp.ClientError):
                    await response.read()
            await until(lambda: node.streams == 0)
        assert "control_stream_broken" in [entry["event"] for entry in logs]
        node.failures["recipients"] = StoreFailed("EIO")
        answer = await api.get("/v1/campaigns/c1/recipients")
        assert (answer.status, answer.problem) == (503, "store-failed")


async def read_event(response: aiohttp.ClientResponse) -> dict[str, str]:
    """Read the next event of a stream; comments are given under the name ""."""
    fields: dict[str, str] = {}
    while line := (await response.content.readline()).decode().rstrip("\n"):
        name, _, value = line.partition(": ")
        assert name not in fields
        fields[name] = value
    return fields


async def test_events_are_followed_from_the_moment_of_the_answer():
    """Broken: a client that asks for events and then halts misses the halt's first steps."""
    async with serving() as api:
        api.node.emit("outcome", n=1)
        async with api.open("GET", "/v1/events") as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            api.node.emit("halt_step", campaign="c1", text="two\nlines\u2028")
            assert (await read_event(response)).keys() == {"retry"}
            event = await read_event(response)
        assert event["event"] == "halt_step"
        assert event["id"] == "2"
        data = json.loads(event["data"])
        assert (data["id"], data["kind"]) == (2, "halt_step")
        assert data["data"] == {"campaign": "c1", "text": "two\nlines\u2028"}
        await until(lambda: not api.node.followers)


async def test_a_reader_that_comes_back_gets_what_it_missed():
    """Broken: a lost connection hides the end of a halt."""
    async with serving() as api:
        for number in range(5):
            api.node.emit("outcome", n=number)
        for last, first in (("3", "4"), ("0", "1"), ("999", "1")):  # the last one is of an earlier run
            async with api.open("GET", "/v1/events", headers={"Last-Event-ID": last}) as response:
                await read_event(response)
                assert (await read_event(response))["id"] == first
        answer = await api.get("/v1/events?follow=false", headers={"Last-Event-ID": "3"})
        assert answer.body.count(b"\nid: ") + answer.body.startswith(b"id: ") == 2
        answer = await api.get("/v1/events", headers={"Last-Event-ID": "x"})
        assert (answer.status, answer.problem) == (400, "bad-request")


async def test_without_following_the_latest_events_come_and_the_stream_ends():
    """Broken: `mtactl events` hangs."""
    async with serving() as api:
        assert b"data:" not in (await api.get("/v1/events?follow=false")).body
        for number in range(3):
            api.node.emit("outcome", n=number)
        answer = await api.get("/v1/events?follow=false")
        assert [line for line in answer.body.decode().splitlines() if line.startswith("id:")] == [
            "id: 1",
            "id: 2",
            "id: 3",
        ]


async def test_an_idle_stream_shows_that_it_is_alive():
    """Broken: a client can't tell a quiet night from a dead daemon."""
    async with serving(keep_alive=0.02) as api, api.open("GET", "/v1/events") as response:
        await read_event(response)
        for _ in range(3):
            assert await read_event(response) == {"": "alive"}
        api.node.emit("halt")
        while "event" not in (event := await read_event(response)):
            pass
        assert event["event"] == "halt"


async def test_a_reader_that_goes_away_while_nothing_happens_is_forgotten():
    """Broken: each closed `mtactl top` leaves a reader behind that collects events for ever."""
    async with serving() as api:
        response = await api.open("GET", "/v1/events")
        await read_event(response)
        assert len(api.node.followers) == 1
        response.close()
        await until(lambda: not api.node.followers)


async def test_event_streams_end_when_the_server_stops():
    """Broken: a daemon with a `top` open takes its whole time-out to stop, or the stream ends as a broken one."""
    async with serving() as api:
        async with api.open("GET", "/v1/events") as response:
            await read_event(response)
            async with asyncio.timeout(4):
                await api.server.stop()
                assert await response.read() == b""
        assert not api.node.followers


async def test_a_list_that_no_one_reads_does_not_hold_up_the_end():
    """Broken: a forgotten `curl | less` makes each stop of the daemon take ten seconds, or ends as a whole list."""
    node = EndlessNode()
    finished(node, recipients=1)
    async with serving(node) as api, api.open("GET", "/v1/campaigns/c1/recipients") as response:
        await response.content.readany()
        async with asyncio.timeout(4):
            await api.server.stop()
        with pytest.raises(aiohttp.ClientError):
            await response.read()
        assert node.streams == 0


class BrokenEvents(MemoryNode):
    """Its events fail after the first one."""

    async def _broken(self):
        yield self.emit("outcome")
        raise RuntimeError("the ring broke")

    def follow_events(self, after, *, outcomes=True):
        return self._broken()


async def test_events_that_fail_cut_the_stream():
    """Broken: a defect in the event ring leaves readers waiting on a stream that is dead."""
    async with serving(BrokenEvents()) as api:
        with capture_logs() as logs:
            async with api.open("GET", "/v1/events") as response:
                with pytest.raises(aiohttp.ClientError):
                    await response.read()
        assert "control_stream_broken" in [entry["event"] for entry in logs]
