"""The control API over a real Unix socket: what is asked, what is answered, and what the node was told."""

import asyncio
import json

import pytest
from structlog.testing import capture_logs

from mtactl.control.router import ROUTES
from mtactl.control.types import RequestedBy
from mtactl.errors import ConfigError
from queue_store.errors import StoreFailed, StoreFull
from tests.world.control import curl, serving
from tests.world.memory_node import MemoryNode, fill

ODD_IDS = [
    "a/halt",
    "2026/11/x",
    "a+b=c@d:e",
    "halt",
    "recipients",
    "x/hold/release",
    "a//b",
    "A" * 128,
    "x/../y",
    "a%2Fb",
]
CAMPAIGN_IDS = ODD_IDS[:-1]


def encoded(campaign: str) -> str:
    return "".join(c if c.isalnum() else f"%{ord(c):02X}" for c in campaign)


async def test_halt_closes_the_gate_and_answers_with_the_report():
    """Broken: an administrator can't stop a campaign, or is not told what the stop met."""
    node = MemoryNode()
    node.accept("c1", [f"r{n}@example.com" for n in range(10)])
    node.begin("c1", 3)
    async with serving(node) as api:
        answer = await api.post("/v1/campaigns/c1/halt", {"confirm": "c1", "reason": "wrong price"})
    assert answer.status == 200
    report = answer.json
    assert report["state"] == "halting"
    assert report["stop"]["kind"] == "stop"
    assert report["stop"]["reason"] == "wrong price"
    assert (report["stop"]["queued_at_stop"], report["stop"]["in_flight_at_stop"]) == (7, 3)
    assert report["stop"]["requested_by"]["uid"] is not None
    assert [step["name"] for step in report["steps"]][:2] == ["gate_closed", "recorded"]
    assert "done" not in report["steps"][0]
    assert report["steps"][3] == {"name": "in_flight_finished", "at": None, "done": 0, "total": 3}
    assert node.begin("c1", 1) == 0


async def test_halting_again_gives_the_first_halts_facts():
    """Broken: a second halt would rewrite who stopped it and when (CONTRACT.md §2.8)."""
    async with serving() as api:
        first = await api.post("/v1/campaigns/new/halt", {"confirm": "new", "reason": "one"})
        api.node.work()
        second = await api.post("/v1/campaigns/new/halt", {"confirm": "new", "reason": "two"})
    assert first.status == second.status == 200
    assert second.json["state"] == "halted"
    for fact in ("kind", "reason", "requested_at", "requested_by", "queued_at_stop"):
        assert first.json["stop"][fact] == second.json["stop"][fact]
    assert first.json["stop"]["kind"] == "cancel"


@pytest.mark.parametrize(
    ("body", "status", "problem", "names"),
    [
        (None, 422, "not-confirmed", "confirm"),
        (b"", 422, "not-confirmed", "confirm"),
        ({}, 422, "not-confirmed", "confirm"),
        ({"confirm": None}, 422, "not-confirmed", "confirm"),
        ({"confirm": ""}, 422, "not-confirmed", "confirm"),
        ({"confirm": "C1"}, 422, "not-confirmed", "C1"),
        ({"confirm": "c1 "}, 422, "not-confirmed", "c1 "),
        ({"confirm": 1}, 422, "bad-body", "confirm"),
        ({"confirm": "c1", "reason": 5}, 422, "bad-body", "reason"),
        ({"confirm": "c1", "reason": "two\nlines"}, 422, "bad-body", "reason"),
        ({"confirm": "c1", "reason": "x" * 501}, 422, "bad-body", "reason"),
        ({"confirm": "c1", "raeson": "typo"}, 422, "bad-body", "raeson"),
        (b"confirm=c1", 400, "bad-request", "JSON"),
        (b'{"confirm": "c1"', 400, "bad-request", "JSON"),
        (b'{"confirm": "c1\xff"}', 400, "bad-request", "JSON"),
        (b'["c1"]', 422, "bad-body", "object"),
        (b"null", 422, "bad-body", "object"),
    ],
)
async def test_a_halt_that_is_not_confirmed_halts_nothing(body, status, problem, names):
    """Broken: a slip of the pen would stop a campaign for ever, or a refused one would not say what was wrong."""
    node = MemoryNode()
    node.accept("c1", ["r@example.com"])
    async with serving(node) as api:
        answer = await api.post("/v1/campaigns/c1/halt", body)
    assert (answer.status, answer.problem) == (status, problem)
    assert names in answer.json["detail"]
    assert node.asked == []
    assert node.begin("c1", 1) == 1


async def test_a_halt_that_could_not_be_made_durable_says_so_and_that_the_gate_is_closed():
    """Broken: the administrator believes in a halt that a restart forgets."""
    node = MemoryNode()
    node.accept("c1", ["r@example.com"])
    for error in (StoreFailed("fsync: EIO"), StoreFull("/var/lib/mtactl", 0)):
        node.failures["halt"] = error
        async with serving(node) as api:
            answer = await api.post("/v1/campaigns/c1/halt", {"confirm": "c1"})
        assert (answer.status, answer.problem) == (503, "not-durable")
        assert "gate is closed" in answer.json["detail"]
        assert "until the daemon stops" in answer.json["detail"]
        assert str(error) in answer.json["detail"]
    assert node.begin("c1", 1) == 0


async def test_a_client_that_goes_away_does_not_undo_its_halt():
    """Broken: Ctrl-C at the wrong moment leaves a halt half done."""
    node = MemoryNode()
    node.halt_gate = asyncio.Event()
    async with serving(node) as api:
        _, writer = await asyncio.open_unix_connection(str(api.path))
        body = b'{"confirm":"c1"}'
        writer.write(b"POST /v1/campaigns/c1/halt HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        async with asyncio.timeout(10):
            while not node.asked:
                await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
        node.halt_gate.set()
        async with asyncio.timeout(10):
            while (await api.get("/v1/campaigns/c1")).json["steps"][1]["at"] is None:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("campaign", CAMPAIGN_IDS)
async def test_a_percent_encoded_id_is_understood_whatever_is_in_it(campaign):
    """Broken: a campaign named `a/halt` can't be stopped, or another one is stopped in its place."""
    node = MemoryNode()
    node.accept(campaign, ["r@example.com"])
    path = f"/v1/campaigns/{encoded(campaign)}"
    async with serving(node) as api:
        assert (await api.get(path)).json["campaign"] == campaign
        assert (await api.post(f"{path}/hold")).json["state"] == "held"
        assert (await api.post(f"{path}/release")).json["state"] == "active"
        assert (await api.get(f"{path}/recipients")).status == 200
        assert (await api.get(f"/v1/queue?campaign={encoded(campaign)}")).json["recipients"][0]["campaign"] == campaign
        halted = await api.post(f"{path}/halt", {"confirm": campaign})
        assert (halted.json["campaign"], halted.json["state"]) == (campaign, "halting")
        assert [report["campaign"] for report in (await api.get("/v1/campaigns")).json["campaigns"]] == [campaign]


async def test_an_id_with_a_slash_may_be_written_as_it_is():
    """Broken: what a person types into curl is refused though it can mean one thing only."""
    node = MemoryNode()
    node.accept("2026/11/sale+x=y@z:1", ["r@example.com"])
    node.accept("2026", ["r@example.com"])
    async with serving(node) as api:
        path = "/v1/campaigns/2026/11/sale+x=y@z:1"
        assert (await api.get(path)).json["campaign"] == "2026/11/sale+x=y@z:1"
        assert (await api.get(f"{path}/recipients")).status == 200
        halted = await api.post(f"{path}/halt", {"confirm": "2026/11/sale+x=y@z:1"})
        assert halted.json["state"] == "halting"
        assert (await api.get("/v1/campaigns/2026")).json["state"] == "active"
        assert (await api.get("/v1/queue?campaign=2026/11/sale+x=y@z:1")).status == 200


async def test_the_verb_wins_over_an_id_that_is_written_as_it_is():
    """Broken: `POST …/a/halt` means the campaign `a/halt` at one time and `a` at another."""
    node = MemoryNode()
    node.accept("a", ["r@example.com"])
    node.accept("a/halt", ["r@example.com"])
    async with serving(node) as api:
        wrong = await api.post("/v1/campaigns/a/halt", {"confirm": "a/halt"})
        assert (wrong.status, wrong.problem) == (422, "not-confirmed")
        seen = await api.get("/v1/campaigns/a/halt")
        assert (seen.status, seen.headers["Allow"]) == (405, "POST")
        assert (await api.post("/v1/campaigns/a/halt/halt", {"confirm": "a/halt"})).json["campaign"] == "a/halt"
        assert (await api.get("/v1/campaigns/a")).json["state"] == "active"


@pytest.mark.parametrize("raw", ["-a", "%2Fa", "a%20b", "%FF", "a%00", "a%0A", "%C3%A4", "A" * 129, "a%ZZ", "/halt"])
async def test_what_is_not_a_campaign_id_is_refused_in_every_place(raw):
    """Broken: ids that no message can have are held and halted, and show up in reports and logs."""
    async with serving() as api:
        for answer in (
            await api.get(f"/v1/campaigns/{raw}"),
            await api.get(f"/v1/campaigns/{raw}/recipients"),
            await api.post(f"/v1/campaigns/{raw}/hold"),
            await api.post(f"/v1/campaigns/{raw}/halt", {"confirm": raw}),
            await api.get(f"/v1/queue?campaign={raw}"),
        ):
            assert answer.status == 400
            assert answer.problem in {"bad-campaign-id", "bad-request", "bad-parameter"}
        assert api.node.asked == []


async def test_reads_of_an_unknown_campaign_are_404_and_commands_are_not():
    """Broken: a typing error looks like a campaign without mail, or a hold can't come before the mail."""
    async with serving() as api:
        for path in ("/v1/campaigns/none", "/v1/campaigns/none/recipients"):
            answer = await api.get(path)
            assert (answer.status, answer.problem) == (404, "unknown-campaign")
            assert "none" in answer.json["detail"]
        assert (await api.post("/v1/campaigns/none/release")).problem == "unknown-campaign"
        assert (await api.post("/v1/campaigns/none/hold")).json["state"] == "held"
        assert (await api.get("/v1/campaigns/none")).status == 200


async def test_a_halted_campaign_can_be_neither_held_nor_released():
    """Broken: a halt could be undone."""
    async with serving() as api:
        await api.post("/v1/campaigns/c1/halt", {"confirm": "c1"})
        for verb in ("hold", "release"):
            answer = await api.post(f"/v1/campaigns/c1/{verb}")
            assert (answer.status, answer.problem) == (409, "illegal-move")
            assert "c1" in answer.json["detail"]


async def test_campaigns_are_listed_by_state():
    """Broken: the list of held campaigns has others in it."""
    async with serving(fill(MemoryNode(), recipients=20)) as api:
        everything = (await api.get("/v1/campaigns")).json["campaigns"]
        assert [report["campaign"] for report in everything] == ["2026/11/newsletter", "autumn-sale", "welcome@shop"]
        held = (await api.get("/v1/campaigns?state=held")).json["campaigns"]
        assert [report["campaign"] for report in held] == ["welcome@shop"]
        assert (await api.get("/v1/campaigns?state=halted")).json == {"campaigns": [], "total": 0}


async def test_a_long_list_is_one_valid_document():
    """Broken: a node with many campaigns answers with JSON that does not parse, or leaves rows out."""
    node = MemoryNode()
    for number in range(1203):
        node.accept(f"c{number:04}", ["r@example.com"])
    async with serving(node) as api:
        answer = await api.get("/v1/campaigns")
        assert [row["campaign"] for row in answer.json["campaigns"]] == [f"c{number:04}" for number in range(1203)]
        queue = (await api.get("/v1/queue?limit=1202")).json
        assert (len(queue["recipients"]), queue["truncated"]) == (1202, True)
        queue = (await api.get("/v1/queue?limit=1203")).json
        assert (len(queue["recipients"]), queue["truncated"]) == (1203, False)
        assert len((await api.get("/v1/queue")).json["recipients"]) == 1000


async def test_the_queue_is_filtered():
    """Broken: an administrator looks at, and acts on, the wrong mail."""
    node = MemoryNode()
    node.accept("c1", ["a@example.com", "b@example.net"])
    later = node.accept("", ["c@example.com"], sender="", state="deferred")
    node.accept("c2", ["d@example.org"])
    node.begin("c2")
    async with serving(node) as api:
        await api.post("/v1/campaigns/c1/hold")

        async def seen(query: str) -> list[str]:
            return [row["recipient"] for row in (await api.get(f"/v1/queue{query}")).json["recipients"]]

        assert await seen("") == ["a@example.com", "b@example.net", "c@example.com", "d@example.org"]
        assert await seen("?campaign=c1") == ["a@example.com", "b@example.net"]
        assert await seen("?domain=EXAMPLE.com") == ["a@example.com", "c@example.com"]
        assert await seen("?domain=example.com&state=held") == ["a@example.com"]
        assert await seen("?state=in_flight") == ["d@example.org"]
        assert await seen("?state=deferred") == ["c@example.com"]
        row = (await api.get("/v1/queue?state=deferred")).json["recipients"][0]
        assert (row["campaign"], row["sender"], row["message"], row["attempts"]) == (None, "", later, 1)


async def test_one_message_is_shown_by_its_queue_id():
    """Broken: the id of a log line leads nowhere."""
    node = MemoryNode()
    message = node.accept("c1", ["a@example.com", "b@example.com"])
    node.begin("c1")
    node.finish("c1")
    async with serving(node) as api:
        for spelt in (message, message.lower(), message.lstrip("0")):
            shown = (await api.get(f"/v1/queue/{spelt}")).json
            assert shown["message"] == message
            assert [row["recipient"] for row in shown["waiting"]] == ["b@example.com"]
            assert [row["outcome"] for row in shown["settled"]] == ["delivered"]
        for missing in ("ZZZZZZZZZZ", "not-an-id!", "a%2Fb", "%C3%A4"):
            answer = await api.get(f"/v1/queue/{missing}")
            assert (answer.status, answer.problem) == (404, "unknown-message")


async def test_drop_takes_what_fits_and_nothing_else():
    """Broken: mail is lost that no one meant."""
    node = MemoryNode()
    node.accept("c1", ["a@example.com", "b@example.net"])
    bounce = node.accept("", ["c@example.com"], sender="")
    async with serving(node) as api:
        assert (await api.post("/v1/queue/drop", {"domain": "Example.NET"})).json == {"recipients": 1}
        assert (await api.post("/v1/queue/drop", {"domain": "example.com", "campaign": "c2"})).json == {"recipients": 0}
        assert (await api.post("/v1/queue/drop", {"id": bounce.lower(), "sender": "x@y"})).json == {"recipients": 0}
        assert (await api.post("/v1/queue/drop", {"sender": "<>"})).json == {"recipients": 1}
    assert node.ledger.total.dropped == 2
    assert node.ledger.total.queued == 1
    assert node.ledger.total.balanced


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"domain": None},
        {"domain": ""},
        {"campaign": ""},
        {"campaign": "-x"},
        {"id": ""},
        {"id": "!"},
        {"id": 5},
        {"domian": "example.com"},
        {"domain": ["example.com"]},
    ],
)
async def test_a_drop_that_names_nothing_is_refused(body):
    """Broken: an empty value or a typing error drops the whole queue."""
    node = fill(MemoryNode(), recipients=20)
    async with serving(node) as api:
        answer = await api.post("/v1/queue/drop", body)
    assert (answer.status, answer.problem) == (422, "bad-body")
    assert node.asked == []
    assert node.ledger.total.dropped == 0


async def test_retry_without_a_selection_means_all_that_is_deferred():
    """Broken: after an outage each domain has to be named."""
    node = MemoryNode()
    node.accept("", ["a@example.com", "b@example.net"], state="deferred")
    node.backoff["example.com"] = 1
    async with serving(node) as api:
        assert (await api.post("/v1/queue/retry", {"domain": "example.net"})).json == {"recipients": 1}
        assert [lane["state"] for lane in (await api.get("/v1/lanes?lane=example.com")).json["lanes"]] == ["backoff"]
        assert (await api.post("/v1/queue/retry")).json == {"recipients": 1}
        assert [lane["state"] for lane in (await api.get("/v1/lanes")).json["lanes"]] == ["idle", "idle"]
        assert (await api.get("/v1/lanes?lane=nowhere.example")).json == {"lanes": [], "total": 0}


async def test_a_store_that_fails_is_503():
    """Broken: a monitoring system takes a broken disk for a wrong request."""
    node = MemoryNode()
    node.failures = dict.fromkeys(("hold", "release", "retry", "drop", "queue"), StoreFailed("fsync: EIO"))
    async with serving(node) as api:
        for answer in (
            await api.post("/v1/campaigns/c1/hold"),
            await api.post("/v1/queue/retry"),
            await api.post("/v1/queue/drop", {"domain": "example.com"}),
            await api.get("/v1/queue"),
        ):
            assert (answer.status, answer.problem) == (503, "store-failed")
            assert "EIO" in answer.json["detail"]


async def test_reload_says_what_was_applied_or_everything_that_is_wrong():
    """Broken: a bad file is found one mistake at a time, or seems to have been applied."""
    async with serving() as api:
        assert (await api.post("/v1/reload")).json == {"applied": ["lane"], "needs_restart": []}
        api.node.failures["reload"] = ConfigError(["lane.x: no such key", "dns.timeout: not a number"])
        answer = await api.post("/v1/reload", {})
        assert (answer.status, answer.problem) == (422, "bad-configuration")
        assert answer.json["problems"] == ["lane.x: no such key", "dns.timeout: not a number"]
        assert (await api.post("/v1/reload", {"force": True})).problem == "bad-body"


@pytest.mark.parametrize(
    "target",
    [
        "/v1/status?x=1",
        "/v1/campaigns?state=hold",
        "/v1/campaigns?state=held&state=active",
        "/v1/campaigns?State=held",
        "/v1/queue?limit=0",
        "/v1/queue?limit=100001",
        "/v1/queue?limit=-1",
        "/v1/queue?limit=1e3",
        "/v1/queue?limit=%D9%A1",
        "/v1/queue?limit=",
        "/v1/queue?domain=",
        "/v1/queue?state=delivered",
        "/v1/queue?domain=%FF",
        "/v1/lanes?domain=example.com",
        "/v1/events?follow=perhaps",
        "/v1/campaigns/c1/recipients?outcome=queued",
        "/v1/campaigns/c1/recipients?outcome=delivered,",
        "/v1/campaigns/c1/recipients?format=xml",
        "/v1/campaigns/c1/recipients?after-stop=true",
    ],
)
async def test_a_query_that_is_not_understood_is_refused_by_name(target):
    """Broken: a misspelt filter is passed over and the answer shows everything."""
    node = MemoryNode()
    node.accept("c1", ["r@example.com"])
    async with serving(node) as api:
        answer = await api.get(target)
    assert (answer.status, answer.problem) == (400, "bad-parameter")


async def test_a_query_on_a_command_is_refused_before_it_is_done():
    """Broken: `halt?confirm=c1` seems to have been heeded."""
    async with serving() as api:
        answer = await api.post("/v1/campaigns/c1/halt?confirm=c1", {"confirm": "c1"})
        assert (answer.status, answer.problem) == (400, "bad-parameter")
        assert "confirm" in answer.json["detail"]
        assert api.node.asked == []


async def test_a_wrong_method_is_405_and_says_which_is_right():
    """Broken: a client can't tell a wrong path from a wrong method."""
    async with serving() as api:
        for route in ROUTES:
            path = route.path.format(campaign="c1", message="0000000001")
            wrong = await api.ask("DELETE", path)
            assert (wrong.status, wrong.problem) == (405, "wrong-method")
            assert route.method in wrong.headers["Allow"]
        assert api.node.asked == []


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1/nope", "/v2/status", "/v1/status/", "/v1/campaigns/", "//v1/status"]
)
async def test_an_unknown_path_is_404_and_lists_what_there_is(path):
    """Broken: a person with curl gets no hint."""
    async with serving() as api:
        answer = await api.get(path)
    assert (answer.status, answer.problem) == (404, "unknown-path")
    assert "/v1/campaigns/{campaign}/halt" in answer.json["detail"]


async def test_a_body_that_is_too_large_is_413_and_not_read():
    """Broken: one client fills the daemon's memory."""
    async with serving() as api:
        answer = await api.post("/v1/campaigns/c1/halt", b"x" * 70_000)
        assert (answer.status, answer.problem) == (413, "too-large")

        async def endless():
            for _ in range(100):
                yield b" " * 4096

        answer = await api.ask("POST", "/v1/queue/retry", data=endless())
        assert (answer.status, answer.problem) == (413, "too-large")


async def test_a_defect_is_500_and_tells_the_log_and_not_the_client():
    """Broken: one bad request ends the connection without a word, or shows a traceback to whoever asks."""
    node = MemoryNode()
    node.failures["queue"] = RuntimeError("a secret of the daemon")
    async with serving(node) as api:
        with capture_logs() as logs:
            answer = await api.get("/v1/queue")
        assert (answer.status, answer.problem) == (500, "internal")
        assert b"secret" not in answer.body
        assert [entry["event"] for entry in logs] == ["control_request_failed"]
        assert (await api.get("/v1/status")).status == 200


async def test_what_changes_something_is_logged_with_who_asked():
    """Broken: no one can say afterwards who stopped the campaign."""
    async with serving() as api:
        with capture_logs() as logs:
            await api.get("/v1/status")
            await api.post("/v1/campaigns/c1/halt", {"confirm": "c1", "reason": "why not"})
            await api.post("/v1/campaigns/c1/hold")
            await api.post("/v1/queue/drop", {"domain": "example.com"})
    assert [(entry["event"], entry["command"]) for entry in logs] == [
        ("control_command_asked", "halt"),
        ("control_command_done", "halt"),
        ("control_command_asked", "hold"),
        ("control_command_refused", "hold"),
        ("control_command_asked", "drop"),
        ("control_command_done", "drop"),
    ]
    assert all(isinstance(entry["uid"], int) and entry["user"] and entry["pid"] for entry in logs)
    assert logs[0]["campaign"] == "c1"
    assert logs[0]["reason"] == "why not"
    assert logs[4]["domain"] == "example.com"


async def test_no_control_character_goes_out_raw():
    """Broken: a reply or an address that a stranger wrote drives the administrator's terminal."""
    node = MemoryNode()
    nasty = "a\x1b[2J\x7f\x9b31m\u202e\u2028b"
    node.accept("c1", [f"{nasty}@example.com"])
    async with serving(node) as api:
        answer = await api.get("/v1/queue")
    assert answer.json["recipients"][0]["recipient"] == f"{nasty}@example.com"
    assert all(character == "\n" or character.isprintable() for character in answer.body.decode())


async def test_status_has_the_books():
    """Broken: the node at a glance does not balance."""
    async with serving(fill(MemoryNode(), recipients=20)) as api:
        totals = (await api.get("/v1/status")).json["totals"]
    finals = ("delivered", "bounced", "expired", "dropped", "unknown")
    assert totals["accepted"] == totals["queued"] + totals["in_flight"] + sum(totals[name] for name in finals) > 0


@pytest.mark.needs("curl", "curl")
async def test_curl_as_people_write_it():
    """Broken: the examples of the manual don't work (curl -d says that the body is a form)."""
    node = fill(MemoryNode(), recipients=20)
    async with serving(node) as api:
        status, body = await curl(api.path, "http://mtactl/v1/status")
        assert (status, json.loads(body)["node"]) == (200, "mx1")
        status, body = await curl(api.path, "-d", '{"confirm": "c1"}', "http://mtactl/v1/campaigns/c1/halt")
        assert (status, json.loads(body)["state"]) == (200, "halting")
        status, body = await curl(api.path, "-X", "POST", "http://localhost/v1/campaigns/c2/hold")
        assert (status, json.loads(body)["state"]) == (200, "held")
        status, body = await curl(api.path, "-H", "Expect: 100-continue", "-d", "{}", "http://x/v1/queue/retry")
        assert (status, json.loads(body)) == (200, {"recipients": 1})
        status, body = await curl(api.path, "--http1.0", "http://x/v1/campaigns/welcome%40shop/recipients?format=csv")
        assert status == 200
        assert body.startswith(b"recipient,outcome,")
        status, body = await curl(api.path, "--request-target", "http://mtactl/v1/campaigns/c1", "http://x/")
        assert (status, json.loads(body)["campaign"]) == (200, "c1")


async def test_the_first_of_the_campaigns():
    """Broken: a live screen must fetch thirty thousand reports a second to show the ten longest queues."""
    node = MemoryNode()
    for number in range(20):
        node.accept(f"Sale-{number}", [f"a{each}@example.com" for each in range(number + 1)])
    node.accept("other", ["a@example.com"] * 50)
    await node.hold("Sale-3", by=RequestedBy(uid=0, user="root"))
    async with serving(node) as api:
        first = (await api.get("/v1/campaigns?sort=queued&limit=2")).json
        assert [report["campaign"] for report in first["campaigns"]] == ["other", "Sale-19"]
        assert first["total"] == 21
        found = (await api.get("/v1/campaigns?match=sale-1&sort=name&limit=3")).json
        assert [report["campaign"] for report in found["campaigns"]] == ["Sale-1", "Sale-10", "Sale-11"]
        assert found["total"] == 11
        held = (await api.get("/v1/campaigns?state=held&sort=queued")).json
        assert ([report["campaign"] for report in held["campaigns"]], held["total"]) == (["Sale-3"], 1)
        lanes = (await api.get("/v1/lanes?match=EXAMPLE&sort=window&limit=1")).json
        assert ([row["lane"] for row in lanes["lanes"]], lanes["total"]) == (["example.com"], 1)
        for query in ("sort=size", "limit=0", "limit=x", "match="):
            assert (await api.get(f"/v1/campaigns?{query}")).problem == "bad-parameter"
