"""What strangers write is only ever text: in the log, in headers, in CSV, on a terminal, in metrics.

Strangers are the clients that inject (addresses, names, headers), the peers that answer, and whoever gives a reason.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re
import smtplib
import socket
import urllib.request
from contextlib import asynccontextmanager

import pytest

from tests.world.daemon import Daemon
from tests.world.operator import eventually, log_lines, mtactl
from tests.world.smtp_peer import run_smtp_peer
from tests.world.terminal import terminal

# What moves a cursor, rings, turns text around, or ends a line where no line ends.
_ACTS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

# Local parts that RFC 5321 allows, and that a spreadsheet would compute.
_CELLS = (
    "=cmd|'/C+calc'!A0@example.org",
    "+1+1@example.org",
    "-2+3@example.org",
    "=HYPERLINK{0}@example.org",
    '"=1 1"@example.org',
    '"@SUM(A1)"@example.org',
    '"a,b"@example.org',
    "'quote@example.org",
)
_UTF8 = ("\u00fcber@example.org", "\uff1d1+1@example.org")
_NEVER = (
    "a\u202eb@example.org",
    "a\u2028b@example.org",
    "a\u0085b@example.org",
    '"a\x1b[31m"@example.org',
    '"a\r\nRCPT TO:<x@example.org>"@example.org',
    "a\x00b@example.org",
    "a\x7fb@example.org",
)
_REPLY = b"550 5.7.1 \x1b[2J\x1b]0;owned\x07\x9b31m=cmd|'/C calc'!A0 \xe2\x80\xaegnp.exe\x00 \xff\xfe\r\n"


async def _refuse(peer):
    """Refuse each recipient with what would harm a terminal."""
    await peer.open()
    while True:
        line = await peer.reader.readline()
        if not line:
            return
        verb = line[:4].upper()
        peer.say({b"MAIL": b"250 ok\r\n", b"DATA": b"554 \x1b[1mno\r\n", b"QUIT": b"221 bye\r\n"}.get(verb, _REPLY))


@asynccontextmanager
async def refusing(folder, form="json"):
    async with run_smtp_peer(_refuse) as peer:
        node = Daemon(folder, route=peer.port, extra=f'[log]\nform = "{form}"\n'.replace("form =", "format ="))
        try:
            await asyncio.to_thread(node.start)
            yield node
        finally:
            node.end()


def send(port: int, recipients, *, options=(), campaign="c1", hello="app.example", sender="=1+1@news.example"):
    data = f"X-Campaign-ID: {campaign}\r\nSubject: =cmd\r\n\r\nx\r\n".encode()
    with smtplib.SMTP("127.0.0.1", port, local_hostname=hello, timeout=30) as session:
        session.ehlo()
        session.send(f"MAIL FROM:<{sender}> {' '.join(options)}\r\n".encode())
        assert session.getreply()[0] == 250
        for recipient in recipients:
            session.send(f"RCPT TO:<{recipient}>\r\n".encode())
            code, text = session.getreply()
            assert code == 250, (recipient, code, text)
        assert session.data(data)[0] == 250


def bounced(node, count):
    eventually(lambda: node.report("c1")["counts"]["bounced"] == count, told=lambda: node.report("c1"))


async def test_nothing_that_strangers_write_acts_in_a_table_a_stream_or_the_log(tmp_path):
    """If it failed, a mail's recipient could run a command in the spreadsheet, or the terminal, of whoever looks."""
    async with refusing(tmp_path) as node:
        await asyncio.to_thread(send, node.smtp_port, _CELLS)
        await asyncio.to_thread(send, node.smtp_port, _UTF8, options=("SMTPUTF8",))
        total = len(_CELLS) + len(_UTF8)
        await asyncio.to_thread(bounced, node, total)
        _, text = await asyncio.to_thread(node.call, "GET", "/v1/campaigns/c1/recipients?format=csv")
        assert _ACTS.search(text) is None
        rows = list(csv.reader(io.StringIO(text, newline="")))
        assert len(rows) == 1 + total
        assert {len(row) for row in rows} == {len(rows[0])}
        for row in rows[1:]:
            assert not [cell for cell in row if cell.startswith((*_FORMULA, "\uff1d"))], row
        recipient = rows[0].index("recipient")
        assert {row[recipient].removeprefix("'") for row in rows[1:]} == {
            address.removeprefix("'") for address in (*_CELLS, *_UTF8)
        }
        rows = await asyncio.to_thread(node.recipients, "c1")
        assert {row["recipient"] for row in rows} == {*_CELLS, *_UTF8}  # JSON has them as they are
        for path in ("/v1/campaigns/c1", "/v1/lanes", "/v1/events?follow=false", "/v1/queue", "/v1/status"):
            _, document = await asyncio.to_thread(node.call, "GET", path)
            if isinstance(document, str):
                assert _ACTS.search(document) is None
        for verb in (["recipients", "c1"], ["show", "c1"], ["lanes"], ["campaigns"], ["events"], ["status"]):
            run = await asyncio.to_thread(mtactl, node.socket, *verb)
            assert run.returncode == 0, run
            assert _ACTS.search(run.stdout + run.stderr) is None, verb
        await asyncio.to_thread(eventually, lambda: len(log_lines(node, "outcome")) == total)
        assert _ACTS.search(node.log.read_text()) is None


async def test_nothing_that_strangers_write_acts_on_a_terminal(tmp_path):
    """If it failed, a peer's reply could draw a report of its own over ours."""
    async with refusing(tmp_path) as node:
        await asyncio.to_thread(send, node.smtp_port, _CELLS)
        await asyncio.to_thread(bounced, node, len(_CELLS))
        for verb in (["recipients", "c1"], ["recipients", "c1", "--format", "csv"], ["--json", "recipients", "c1"]):
            async with terminal(node.socket, *verb) as screen:
                assert await screen.end() == 0
                assert "?[2J?]" in screen.text  # as text
                for octets in ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\u202e"):
                    assert octets not in screen.text, verb


async def test_the_log_for_people_has_one_line_a_record(tmp_path):
    """If it failed, a recipient could write a line into the log that never happened."""
    async with refusing(tmp_path, form="console") as node:
        await asyncio.to_thread(send, node.smtp_port, _CELLS)
        await asyncio.to_thread(bounced, node, len(_CELLS))
        await asyncio.to_thread(
            eventually, lambda: node.log.read_text().count("bounced") >= len(_CELLS), told=node.log.read_text
        )
        lines = node.log.read_text().splitlines()
        assert _ACTS.search("".join(lines)) is None
        assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} ", line) for line in lines), lines


@pytest.mark.parametrize("options", [(), ("SMTPUTF8",)])
async def test_addresses_that_act_are_refused(tmp_path, options):
    """If it failed, a control or a change of direction in an address would travel to all who read of it."""
    async with refusing(tmp_path) as node:

        def offer():
            for address in _NEVER:
                with socket.create_connection(("127.0.0.1", node.smtp_port), 10) as client:
                    stream = client.makefile("rwb")
                    stream.readline()
                    stream.write(b"EHLO a\r\n")
                    stream.flush()
                    while stream.readline()[3:4] != b" ":
                        pass
                    stream.write(f"MAIL FROM:<a@b.example> {' '.join(options)}".strip().encode() + b"\r\n")
                    stream.flush()
                    assert stream.readline().startswith(b"250 ")
                    stream.write(f"RCPT TO:<{address}>\r\n".encode())
                    stream.flush()
                    assert stream.readline()[:1] == b"5", address
                    stream.close()

        await asyncio.to_thread(offer)
        totals = (await asyncio.to_thread(node.status))["totals"]
        assert totals["accepted"] == 0
        assert _ACTS.search(node.log.read_text()) is None


async def test_a_clients_name_makes_no_header_of_its_own(tmp_path):
    """If it failed, a client could write header fields, also a campaign, into the Received: field that we vouch for."""
    seen = []

    async def take(peer):
        await peer.open()
        while True:
            await peer.take()
            seen.append(peer.messages[-1])

    names = (
        "a(b)c;d<e>\"f'g",
        "a\tX-Campaign-ID: other",
        "x" * 900,
        "a) by b with ESMTP id 1; Mon, 1 Jan 2024 00:00:00 +0000",
    )
    async with run_smtp_peer(take) as peer:
        node = Daemon(tmp_path, route=peer.port)
        try:
            await asyncio.to_thread(node.start)
            for name in names:
                try:
                    await asyncio.to_thread(send, node.smtp_port, ["r@example.org"], hello=name)
                except smtplib.SMTPHeloError:
                    continue
                except AssertionError:
                    continue  # refused, which is as good
        finally:
            await asyncio.to_thread(
                eventually, lambda: node.status()["totals"]["delivered"] == node.status()["totals"]["accepted"]
            )
            node.end()
    assert seen
    for octets in seen:
        head = octets.partition(b"\r\n\r\n")[0].decode("ascii")
        fields = re.sub(r"\r\n[ \t]+", " ", head).split("\r\n")
        assert [field.partition(":")[0] for field in fields] == ["Received", "X-Campaign-ID", "Subject"]
        assert re.fullmatch(
            r"Received: from [A-Za-z0-9.:_\[\]?-]{1,255} \(\[127\.0\.0\.1\]\) by mta\.example\.com"
            r" with ESMTP id [0-9A-F]+"
            r" for <r@example\.org>; [A-Za-z0-9 ,:+-]+",
            fields[0],
        ), fields[0]


async def test_a_reason_is_text_wherever_it_is_shown(tmp_path):
    """If it failed, whoever may halt could write to the terminal, and into the log, of whoever looks later."""
    async with refusing(tmp_path) as node:
        reason = "\x1b[31mred\x1b[0m [bold]x[/bold] \u202egnp\r\nfake line =1+1"
        answer = await asyncio.to_thread(
            node.call, "POST", "/v1/campaigns/c9/halt", {"confirm": "c9", "reason": reason}
        )
        assert answer[0] in {200, 422}, answer
        if answer[0] == 200:
            for verb in (["show", "c9"], ["campaigns"], ["events"]):
                run = await asyncio.to_thread(mtactl, node.socket, *verb)
                assert _ACTS.search(run.stdout) is None
                async with terminal(node.socket, *verb) as screen:
                    await screen.end()
                    assert "\x1b[31mred" not in screen.text
                    assert "\u202e" not in screen.text
        assert _ACTS.search(node.log.read_text()) is None
        log_lines(node)


async def test_metrics_have_no_line_that_a_stranger_wrote(tmp_path):
    """If it failed, a campaign's name could add a series, or break the scrape."""
    name = "A" + "._:+=/@-" * 15
    async with refusing(tmp_path) as node:
        await asyncio.to_thread(send, node.smtp_port, ["r@example.org"], campaign=name)
        await asyncio.to_thread(node.halt, name)
        with await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{node.metrics_port}/metrics") as answer:
            text = answer.read().decode()
        assert f'mtactl_campaign_delivered_after_stop{{campaign="{name}"}} ' in text
        assert all(line.startswith(("#", "mtactl_", "process_")) for line in text.splitlines())
