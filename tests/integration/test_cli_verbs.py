"""Every verb of the real client against a real control server, for people and with --json."""

import asyncio
import csv
import io
import os
import re
import signal

from mtactl.campaign.ledger import Final
from mtactl.campaign.state import CampaignEvent
from mtactl.control.types import ReloadReport, RequestedBy
from mtactl.errors import ConfigError
from tests.world.control import serving, until
from tests.world.memory_node import MemoryNode, wall_clock
from tests.world.terminal import end, run, running, start

EVIL = "e\x1b[2Jvil\u202e\x9b31m"


async def busy() -> MemoryNode:
    """Give a node with a campaign in each state, a lane in back-off, and mail of strangers."""
    node = MemoryNode()
    node.accept("sale", [f"r{number}@example.com" for number in range(20)])
    node.begin("sale", 5)
    node.finish("sale")
    node.finish("sale", Final.BOUNCED, code=550, reply=f"5.1.1 {EVIL}")
    node.accept("2026/11/news+letter", ["n@example.net"], state="scheduled", due=wall_clock() + 3_600_000_000)
    node.accept("held", ["h@example.org"])
    node.gate.move("held", CampaignEvent.HOLD)
    node.accept("gone", ["a@example.org", "b@example.org"])
    node.begin("gone", 1)
    await node.halt("gone", reason="why not", by=RequestedBy(uid=0, user="root"))
    node.finish("gone")
    node.work()
    node.accept("", ["later@slow.example"], sender="", state="deferred")
    node.backoff["slow.example"] = wall_clock() + 60_000_000
    return node


async def test_every_verb_with_json_is_one_document_and_nothing_else():
    """Broken: a script that reads the standard output gets a second document, a human line, or none."""
    verbs = {
        ("status",): lambda found: found["node"] == "mx1",
        ("campaigns",): lambda found: len(found["campaigns"]) == 4,
        ("campaigns", "--state", "held"): lambda found: [c["campaign"] for c in found["campaigns"]] == ["held"],
        ("show", "gone"): lambda found: found["state"] == "halted" and found["counts"]["delivered_after_stop"] == 1,
        ("show", "2026/11/news+letter"): lambda found: found["campaign"] == "2026/11/news+letter",
        ("hold", "sale"): lambda found: found["state"] == "held",
        ("release", "sale"): lambda found: found["state"] == "active",
        ("queue", "ls", "--limit", "3"): lambda found: len(found["recipients"]) == 3 and found["truncated"],
        ("queue", "show", "0000000001"): lambda found: len(found["settled"]) == 2,
        ("queue", "retry", "--domain", "slow.example"): lambda found: found == {"recipients": 1},
        ("queue", "drop", "--sender", "<>", "--confirm"): lambda found: found == {"recipients": 1},
        ("lanes",): lambda found: len(found["lanes"]) == 4,
        ("lanes", "example.com"): lambda found: len(found["lanes"]) == 1,
        ("reload",): lambda found: found == {"applied": ["lane"], "needs_restart": []},
        ("halt", "held", "--confirm", "held", "--no-wait"): lambda found: found["state"] == "halting",
    }
    async with serving(await busy()) as api:
        for number, (verb, fits) in enumerate(verbs.items()):
            ended = await run(api.path, *(["--json", *verb] if number % 2 else [*verb, "--json"]))
            assert ended.code == 0, (verb, ended)
            assert fits(ended.json), (verb, ended)
            assert ended.out.rstrip("\n").isprintable()
            assert ended.err == "", verb


async def test_every_verb_for_people_is_clean_text():
    """Broken: escapes in a log file, or a stranger's escapes on the screen."""
    verbs = {
        ("status",): ["mx1", "1 lane in back-off:", "backoff 5", "1 deferred", "1 of them after a stop"],
        ("campaigns",): ["2026/11/news+letter", "halted", "sale"],
        ("show", "gone"): ["gone on mx1  halted (stop)", "1 of them after the stop", "why not"],
        ("show", "sale"): ["sale on mx1  active", "bounced"],
        ("hold", "sale"): ["sale is held: 15 queued, 3 in flight."],
        ("release", "sale"): ["sale is active: 15 queued may go out."],
        ("queue", "ls"): ["in flight", "later@slow.example", "450 4.2.0 Try again later", "<>"],
        ("queue", "show", "0000000001"): ["5.1.1 e\\x1b[2Jvil\\u202e\\x9b31m", "news@example.com"],
        ("lanes",): ["slow.example", "450 4.2.0 Try again later"],
        ("lanes", "slow.example"): ["backoff until", "no limit"],
        ("recipients", "sale"): ["r0@example.com", "delivered", "550 5.1.1 e\\x1b[2Jvil"],
        ("events",): ["halt_step", "campaign=gone", "step=completed"],
        ("reload",): ["Applied: lane"],
        ("queue", "retry"): ["1 recipient made ready."],
        ("queue", "drop", "--domain", "example.net", "--confirm"): ["1 recipient dropped."],
    }
    async with serving(await busy()) as api:
        for verb, expected in verbs.items():
            ended = await run(api.path, *verb, env={"FORCE_COLOR": "1", "TERM": "xterm-256color"})
            assert ended.code == 0, (verb, ended)
            for text in expected:
                assert text in ended.out, (verb, ended.out)
            assert all(line.isprintable() for line in ended.out.splitlines()), (verb, ended.out)


async def test_a_pipe_gets_whole_ids_and_columns_are_heeded():
    """Broken: `mtactl campaigns | grep` misses an id that was cut; or COLUMNS is not heeded."""
    node = MemoryNode()
    node.accept("x" * 128, ["r@example.com"])
    async with serving(node) as api:
        assert "x" * 128 in (await run(api.path, "campaigns")).out
        narrow = await run(api.path, "campaigns", env={"COLUMNS": "80"})
        assert "…" in narrow.out
        assert max(map(len, narrow.out.splitlines())) <= 80


async def test_nothing_to_show_is_said_on_stderr():
    """Broken: an empty table looks like a client that did nothing; or it gets into a script's input."""
    async with serving() as api:
        for verb in (
            ["campaigns"],
            ["campaigns", "--state", "held"],
            ["queue", "ls"],
            ["lanes"],
            ["lanes", "x.example"],
        ):
            ended = await run(api.path, *verb)
            assert (ended.code, ended.out) == (0, "")
            assert ended.err.endswith(".\n")
        assert await run(api.path, "events") == await run(api.path, "--json", "events")


async def test_recipients_as_rows_and_as_csv():
    """Broken: the list of who got it is not what the daemon gave."""
    async with serving(await busy()) as api:
        rows = (await run(api.path, "--json", "recipients", "sale")).rows
        assert [row["outcome"] for row in rows] == ["delivered", "bounced"]
        assert (await run(api.path, "recipients", "sale", "--format", "ndjson")).rows == rows
        (late,) = (await run(api.path, "--json", "recipients", "gone", "--outcome", "delivered", "--after-stop")).rows
        assert late["after_stop"]
        both = await run(api.path, "--json", "recipients", "gone", "--outcome", "delivered", "--outcome", "dropped")
        assert len(both.rows) == 2
        table = list(csv.DictReader(io.StringIO((await run(api.path, "recipients", "sale", "--format", "csv")).out)))
        assert [row["recipient"] for row in table] == ["r0@example.com", "r1@example.com"]
        none = await run(api.path, "--json", "recipients", "held")
        assert (none.code, none.out) == (0, "")


async def test_a_reader_who_has_enough_ends_the_stream_quietly():
    """Broken: `mtactl recipients X | head` ends in a traceback."""
    node = MemoryNode()
    node.accept("big", [f"r{number}@example.com" for number in range(20_000)])
    node.begin("big", 20_000)
    for entry in list(node.entries.values()):
        entry.state, entry.at = "delivered", wall_clock()
    async with serving(node) as api:
        for form in ([], ["--format", "csv"]):
            ours, theirs = os.pipe()
            try:
                process = await start(api.path, "recipients", "big", *form, stdout=theirs)
            finally:
                os.close(theirs)
            assert await asyncio.to_thread(os.read, ours, 100)
            os.close(ours)
            ended = await end(process)
            assert (ended.code, ended.err) == (0, "")
        await until(lambda: node.streams == 0)


async def test_an_output_that_is_full_is_a_failure():
    """Broken: a list of recipients that was cut short by a full disk counts as complete."""
    async with serving(await busy()) as api:
        with open("/dev/full", "wb") as full:
            for verb in (["status"], ["--json", "status"], ["recipients", "sale", "--format", "csv"]):
                ended = await run(api.path, *verb, stdout=full)
                assert ended.code == 1
                assert "No space left on device" in ended.err


async def test_events_are_followed_until_ctrl_c():
    """Broken: a halt is not seen as it happens, or the end of a watch looks like a failure."""
    node = await busy()
    async with serving(node) as api:
        for form in ([], ["--json"]):
            async with running(api.path, *form, "events", "--follow") as process:
                await until(lambda: node.followers)
                node.emit("halt", campaign="c1", reason=EVIL)
                line = (await process.stdout.readline()).decode().rstrip("\n")
                assert "c1" in line
                assert line.isprintable()
                process.send_signal(signal.SIGINT)
                assert (await end(process)).code == 0
            await until(lambda: not node.followers)
        assert {event["kind"] for event in (await run(api.path, "--json", "events")).rows} >= {"halt", "halt_step"}


async def test_a_bad_configuration_names_each_mistake_once():
    """Broken: the reason why a reload changed nothing is not told, or only the first of many."""
    node = MemoryNode()
    node.failures["reload"] = ConfigError(["store.reserve: too small", "dns.nameserver: no such key"])
    async with serving(node) as api:
        ended = await run(api.path, "reload")
        assert ended.code == 1
        assert ended.err.count("store.reserve: too small") == 1
        assert ended.err.count("dns.nameserver: no such key") == 1
        told = await run(api.path, "reload", "--json")
        assert told.code == 1
        assert told.json["problems"] == ["store.reserve: too small", "dns.nameserver: no such key"]
        node.failures.clear()
        node.reload_report = ReloadReport(applied=(), needs_restart=("store.path",))
        assert (await run(api.path, "reload")).out == "Needs a restart of mtactld: store.path\n"


async def test_the_daemon_says_no():
    """Broken: a script takes a refusal for done."""
    async with serving(await busy()) as api:
        for verb, why in (
            (["show", "nix"], "campaign nix: not known on this node"),
            (["release", "nix"], "campaign nix: not known on this node"),
            (["release", "gone"], "release is not possible while it is halted"),
            (["hold", "gone"], "hold is not possible while it is halted"),
            (["queue", "show", "ZZZ"], "No message 'ZZZ'"),
            (["queue", "retry", "--id", "U!"], "is not a queue id"),
            (["recipients", "nix"], "campaign nix: not known on this node"),
        ):
            ended = await run(api.path, *verb)
            assert (ended.code, ended.out) == (1, ""), verb
            assert why in ended.err
            hint = r" {8}mtactl campaigns lists those that are known\.\n" if "not known on this node" in why else ""
            assert re.fullmatch(rf"mtactl: [^\n]+\n{hint}", ended.err), ended.err
        told = await run(api.path, "--json", "show", "nix")
        assert told.json["type"] == "urn:mtactl:problem:unknown-campaign"
        assert (await run(api.path, "--json", "recipients", "nix")).out == ""
