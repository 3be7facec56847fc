"""What the client says when the daemon is not there, does not answer, or may not be asked: exit codes 3 and 4."""

import asyncio
import json
import socket
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest

from tests.world.control import serving, short_folder
from tests.world.memory_node import MemoryNode
from tests.world.terminal import end, environment, run, running, start

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@asynccontextmanager
async def answering(*pieces: bytes, hold: float = 0.0):
    """Serve every connection with the same octets and hang up; `hold` is how long to wait before that, in seconds."""

    async def answer(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            await asyncio.wait_for(reader.read(), hold) if hold else None
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with short_folder() as folder:
        server = await asyncio.start_unix_server(answer, folder / "s")
        try:
            yield folder / "s"
        finally:
            server.close()
            await server.wait_closed()


def refuses_in_two_lines(ended, code: int, *texts: str) -> None:
    assert ended.code == code, ended
    assert len(ended.err.splitlines()) <= 2, ended.err
    assert ended.err.startswith("mtactl: ")
    for text in texts:
        assert text in ended.err, ended.err


async def test_no_socket_and_a_dead_one():
    """Broken: the administrator isn't told which socket was tried and what to look at."""
    async with short_folder() as folder:
        ended = await run(folder / "s", "status")
        refuses_in_two_lines(ended, 3, f"there is no control socket at {folder}/s", "Is mtactld running?", "--socket")
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(folder / "dead"))
        refuses_in_two_lines(await run(folder / "dead", "status"), 3, f"nothing listens on {folder}/dead")
        (folder / "file").touch()
        refuses_in_two_lines(await run(folder / "file", "status"), 3, "nothing listens on")
        refuses_in_two_lines(await run(folder / "file" / "s", "status"), 3, "can't be opened")
        refuses_in_two_lines(await run(folder / ("x" * 120), "status"), 3, "too long")
        told = await run(folder / "s", "--json", "status")
        assert (told.code, told.json["type"]) == (3, "urn:mtactl:problem:unreachable")
        assert (await run(folder / "s", "--json", "events", "--follow")).out == ""


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"HTTP/1.1 200",),
        (OK,),
        (OK + b"Content-Length: 100\r\n\r\n{",),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",),
        (b"220 mta.example.com ESMTP\r\n",),
        (OK + b"Content-Length: 2\r\n\r\n[]",),
        (OK + b"Content-Length: 4\r\n\r\n\xff\xfe{}",),
        (OK + b"Content-Length: 16\r\n\r\n" + b'{"campaign": "c"}'[:16],),
    ],
)
async def test_half_answers_and_strange_ones_are_3(pieces):
    """Broken: a daemon that dies in the middle of an answer gives a traceback, or half a report."""
    async with answering(*pieces) as path:
        refuses_in_two_lines(await run(path, "show", "c1"), 3, str(path))


async def test_a_stream_that_breaks_off_ends_with_a_whole_row():
    """Broken: a list that is cut short looks complete, or its last row can't be read."""
    row = {"recipient": "r@example.com", "outcome": "delivered", "after_stop": False, "at": "2026-11-22T10:00:00Z"}
    row |= {"message": "0000000001", "attempts": 1, "code": 250, "reply": "Ok", "peer": "", "lane": "example.com"}
    text = json.dumps(row).encode() + b"\n"
    octets = text + text[:40]
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(octets), octets)
    async with answering(head) as path:
        ended = await run(path, "--json", "recipients", "c1")
        assert (ended.code, ended.rows) == (3, [row])
        assert "hung up" in ended.err
        shown = await run(path, "recipients", "c1")
        assert shown.code == 3
        assert "hung up" in shown.err
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + text) as path:
        ended = await run(path, "--json", "recipients", "c1")
        assert (ended.code, ended.rows) == (3, [row])


async def test_a_look_that_fails_hinders_no_confirmed_halt():
    """Broken: while reading is stuck, an emergency stop does not even reach the daemon."""
    asked = []

    async def answer(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[0])
        if asked[-1] == b"GET":
            await reader.read()
        writer.close()

    async with short_folder() as folder:
        server = await asyncio.start_unix_server(answer, folder / "s")
        ended = await run(folder / "s", "halt", "c1", "--confirm", "c1")
        server.close()
        await server.wait_closed()
        assert asked == [b"GET", b"POST"]
        assert ended.code == 3
        assert "is not known: mtactl show c1" in ended.err
        gone = await run(folder / "gone", "halt", "c1", "--confirm", "c1")
        assert gone.code == 3
        assert "not known" not in gone.err


async def test_an_error_without_a_problem_document_is_1():
    """Broken: an unforeseen answer ends the client in a traceback."""
    async with answering(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno") as path:
        refuses_in_two_lines(await run(path, "status"), 1, "HTTP status 500")


async def test_a_daemon_that_does_not_answer_is_3():
    """Broken: the client hangs for ever on a daemon that hangs."""
    async with answering(hold=40.0) as path:
        refuses_in_two_lines(await run(path, "status"), 3, "did not answer", str(path))


async def test_a_full_backlog_is_waited_for():
    """Broken: a moment of many connections makes the client say that no daemon is there."""
    async with short_folder() as folder:
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
            listening.bind(str(folder / "s"))
            listening.listen(0)
            first.setblocking(False)
            first.connect(str(folder / "s"))
            process = await start(folder / "s", "status")
            await asyncio.sleep(0.5)
            listening.setblocking(False)
            accepted = [listening.accept()[0]]
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(20):
                accepted.append((await loop.sock_accept(listening))[0])
            for each in accepted:
                each.close()
            refuses_in_two_lines(await end(process), 3, "hung up")


async def test_a_refused_caller_is_4():
    """Broken: a script can't tell 'you may not' from 'it is not possible'."""
    document = (
        b'{"type":"urn:mtactl:problem:forbidden","title":"Not permitted","status":403,"detail":"User u is in none."}'
    )
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(document) + document
    async with answering(answer) as path:
        for verb in (["status"], ["halt", "c1", "--confirm", "c1"], ["recipients", "c1"], ["events", "--follow"]):
            refuses_in_two_lines(await run(path, *verb), 4, "User u is in none.")
        assert (await run(path, "--json", "halt", "c1", "--confirm", "c1")).json["status"] == 403


@pytest.mark.root_only
async def test_a_socket_that_may_not_be_opened_is_4():
    """Broken: someone who is not in the group is told that the daemon does not run."""
    code = (
        "import os, sys, mtactl.cli.status, mtactl.cli.main as m; os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "sys.argv = ['mtactl', 'status']; m.main()"
    )
    async with serving(MemoryNode(), mode=0o660) as api:
        ended = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", code],
            env=environment(api.path),
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 4, ended.stderr
        assert str(api.path) in ended.stderr
        assert "control.operators" in ended.stderr
        assert "Traceback" not in ended.stderr


async def test_followed_events_survive_a_restart_of_the_daemon():
    """Broken: who watches a node through its restart is left with a dead stream."""
    node = MemoryNode()
    async with (
        serving(node) as api,
        running(api.path, "--json", "events", "--follow") as process,
        asyncio.timeout(30),
    ):
        while not node.followers:
            await asyncio.sleep(0.01)
        node.emit("halt", campaign="before")
        assert b'"before"' in await process.stdout.readline()
        await api.server.stop()
        node.emit("halt", campaign="meanwhile")
        await asyncio.sleep(0.7)
        await api.server.start()
        assert b'"meanwhile"' in await process.stdout.readline()
