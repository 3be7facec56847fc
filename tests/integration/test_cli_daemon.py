"""The real client and a real mtactld, each in a process of its own."""

import asyncio
import smtplib

from tests.world.daemon import daemon, free_port
from tests.world.terminal import run, terminal

MAIL = b"From: news@example.com\r\nX-Campaign-ID: sale\r\nSubject: s\r\n\r\nbody\r\n"


def inject(port: int, *recipients: str) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as server:
        server.sendmail("news@example.com", recipients, MAIL)


async def test_a_campaign_from_its_mail_to_its_halt(tmp_path):
    """Broken: client and daemon each pass their own tests, and don't work together."""
    with daemon(tmp_path / "node", route=free_port()) as node:
        await asyncio.to_thread(inject, node.smtp_port, "a@example.org", "b@example.net")
        status = (await run(node.socket, "status", "--json")).json
        assert (status["node"], status["totals"]["queued"]) == ("mx1", 2)
        held = await run(node.socket, "hold", "sale")
        assert held.out == "sale is held: 2 queued, 0 in flight.\n"
        rows = (await run(node.socket, "queue", "ls", "--json")).json["recipients"]
        assert {row["recipient"] for row in rows} == {"a@example.org", "b@example.net"}
        message = rows[0]["message"]
        shown = await run(node.socket, "queue", "show", message)
        assert "2 recipients waiting" in shown.out
        dropped = await run(node.socket, "queue", "drop", "--id", message, "--domain", "example.net", "--confirm")
        assert dropped.out == "1 recipient dropped.\n"
        async with terminal(node.socket, "halt", "sale", "--reason", "wrong prices") as screen:
            await screen.expect("sale on mx1: held, 1 queued, 0 in flight, 0 delivered")
            screen.type("sale\n")
            assert await screen.end() == 0
            assert "halted (" in screen.text
            assert "1 of 1" in screen.text
        report = (await run(node.socket, "--json", "show", "sale")).json
        assert (report["state"], report["counts"]["dropped"]) == ("halted", 2)
        assert len((await run(node.socket, "--json", "recipients", "sale", "--outcome", "dropped")).rows) == 2
        kinds = [event["kind"] for event in (await run(node.socket, "--json", "events")).rows]
        assert {"hold", "drop", "halt", "halt_step"} <= set(kinds)
        for verb in (["lanes"], ["campaigns"], ["queue", "retry"]):
            assert (await run(node.socket, *verb)).code == 0
    gone = await run(node.socket, "status")
    assert gone.code == 3
