"""The control socket in the file system and the connections on it."""

import asyncio
import grp
import os
import socket
import stat
import subprocess
import sys

import aiohttp
import pytest

from mtactl.control import server as server_module
from mtactl.control.listener import ControlSocketError
from mtactl.control.server import ControlServer
from mtactl.settings import ControlSettings
from tests.world.control import Api, curl, serving, short_folder, until
from tests.world.memory_node import MemoryNode, fill


def settings(path, **more):
    return ControlSettings(socket=path, operators=(), observers=(), **more)


async def status_of(path) -> int:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://mtactl/v1/status") as response,
    ):
        return response.status


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
async def test_the_socket_has_its_mode_whatever_the_umask(mode):
    """Broken: the umask of whoever started the daemon decides who can connect."""
    before = os.umask(0o077)
    try:
        async with serving(mode=mode) as api:
            assert stat.S_IMODE(api.path.stat().st_mode) == mode
    finally:
        os.umask(before)


async def test_the_folder_is_made_and_the_socket_is_removed():
    """Broken: the first start on a new machine fails, or a stopped daemon leaves a dead socket behind."""
    async with short_folder() as folder:
        path = folder / "run" / "mtactl" / "control.sock"
        server = ControlServer(MemoryNode(), settings(path))
        for _ in range(2):  # it can be started again
            await server.start()
            assert await status_of(path) == 200
            await server.stop()
            assert not path.exists()
        await server.stop()


async def test_the_socket_of_a_dead_daemon_is_replaced():
    """Broken: after kill -9 the daemon does not start until someone removes a file by hand."""
    async with short_folder() as folder:
        path = folder / "control.sock"
        dead = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()"
        subprocess.run([sys.executable, "-c", dead, str(path)], check=True)
        assert path.is_socket()
        server = ControlServer(MemoryNode(), settings(path))
        await server.start()
        assert await status_of(path) == 200
        await server.stop()


async def test_the_socket_of_a_live_daemon_is_left_alone():
    """Broken: starting a second daemon by mistake cuts the first one off from its operators."""
    async with serving() as api:
        second = ControlServer(MemoryNode(), settings(api.path))
        with pytest.raises(ControlSocketError, match=f"process {os.getpid()} is listening"):
            await second.start()
        await second.stop()
        assert (await api.get("/v1/status")).status == 200


async def test_what_is_not_a_socket_is_left_alone():
    """Broken: a typing error in the configuration removes a file."""
    async with short_folder() as folder:
        path = folder / "control.sock"
        path.write_text("mine")
        with pytest.raises(ControlSocketError, match="not a socket"):
            await ControlServer(MemoryNode(), settings(path)).start()
        assert path.read_text() == "mine"


async def test_a_path_that_can_not_be_bound_is_told_by_name():
    """Broken: the daemon dies with a traceback that does not say which setting is wrong."""
    async with short_folder() as folder:
        (folder / "file").write_text("")
        for path in (folder / ("x" * 120), folder / "file" / "control.sock"):
            given = settings(folder / "control.sock").model_copy(update={"socket": path})
            with pytest.raises(ControlSocketError, match=str(path)):
                await ControlServer(MemoryNode(), given).start()


async def test_the_socket_that_replaced_ours_is_not_removed():
    """Broken: a daemon that stops late takes away the socket of its successor."""
    async with serving() as api:
        api.path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(api.path))
            await api.server.stop()
            assert api.path.is_socket()


async def test_a_socket_from_the_service_manager_is_used_and_stays():
    """Broken: socket activation loses its socket at the first restart."""
    async with short_folder() as folder:
        path = folder / "given.sock"
        given = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        given.bind(str(path))
        given.listen()
        server = ControlServer(MemoryNode(), settings(folder / "unused.sock"), listening=given)
        await server.start()
        assert await status_of(path) == 200
        assert not (folder / "unused.sock").exists()
        await server.stop()
        assert path.is_socket()


@pytest.mark.root_only
async def test_the_socket_belongs_to_the_operators_group():
    """Broken: with mode 0660 and a daemon that runs as root no operator can connect."""
    async with serving(operators=("no-such-group", "mail")) as api:
        assert api.path.stat().st_gid == grp.getgrnam("mail").gr_gid


async def hold_connections(api: Api, number: int) -> list[asyncio.StreamWriter]:
    return [(await asyncio.open_unix_connection(str(api.path)))[1] for _ in range(number)]


async def test_too_many_connections_are_turned_away_with_a_problem(monkeypatch):
    """Broken: a client that leaks connections uses up the daemon's file descriptors."""
    monkeypatch.setattr(server_module, "_MOST_CONNECTIONS", 12)
    monkeypatch.setattr(server_module, "_FOR_OPERATORS", 4)
    async with serving() as api:
        held = await hold_connections(api, 12)
        answer = await api.get("/v1/status")
        assert (answer.status, answer.problem) == (503, "busy")
        for writer in held:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in held))
        async with asyncio.timeout(10):
            while (await api.get("/v1/status")).status != 200:
                await asyncio.sleep(0.01)


@pytest.mark.root_only
@pytest.mark.needs("curl", "curl")
async def test_some_connections_are_kept_for_operators(monkeypatch):
    """Broken: whoever may connect at all can keep the operator from halting."""
    monkeypatch.setattr(server_module, "_MOST_CONNECTIONS", 12)
    monkeypatch.setattr(server_module, "_FOR_OPERATORS", 4)
    async with serving(mode=0o666) as api:
        held = await hold_connections(api, 8)
        stranger = {"user": 65534, "group": 65534, "extra_groups": []}
        assert (await curl(api.path, "http://x/v1/status", **stranger))[0] == 503
        assert (await curl(api.path, "-d", '{"confirm":"c1"}', "http://x/v1/campaigns/c1/halt"))[0] == 200
        for writer in held:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in held))


async def exchange(api: Api, octets: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(api.path))
    writer.write(octets)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_what_is_not_http_is_answered_with_a_problem():
    """Broken: a client with a defect gets an empty answer, or the daemon's log fills with tracebacks."""
    async with serving() as api:
        for octets, status in (
            (b"HALT c1\r\n\r\n", b"400"),
            (b"GET /v1/status HTTP/1.1\r\nX: " + b"x" * 10_000 + b"\r\n\r\n", b"431"),
            (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n", b"431"),
            (b"GET /v1/status HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        ):
            answer = await exchange(api, octets)
            assert answer.split()[1] == status, answer
            assert b"application/problem+json" in answer
        assert (await api.get("/v1/status")).status == 200


async def test_slow_clients_do_not_keep_others_waiting(monkeypatch):
    """Broken: a client that sends half a request, or half a body, holds up the halt or stays for ever."""
    monkeypatch.setattr(server_module, "_BODY_TIME", 0.2)
    async with serving() as api:
        _, half = await asyncio.open_unix_connection(str(api.path))
        half.write(b"GET /v1/sta")
        body = asyncio.create_task(
            exchange(api, b"POST /v1/campaigns/c2/halt HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        )
        assert (await api.post("/v1/campaigns/c1/halt", {"confirm": "c1"})).status == 200
        answer = await body
        assert answer.split()[1] == b"408"
        assert b"too-slow" in answer
        half.close()
        await half.wait_closed()


async def test_requests_one_behind_the_other_on_one_connection():
    """Broken: `mtactl halt` needs a new connection for each look at the progress."""
    async with serving() as api:
        first = b"POST /v1/campaigns/c1/hold HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        last = b"GET /v1/campaigns/c1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await exchange(api, first + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.count(b'"state":"held"') == 2


async def test_a_command_under_way_is_finished_when_the_server_stops():
    """Broken: a restart at the wrong moment leaves the operator without an answer to the halt."""
    node = MemoryNode()
    node.halt_gate = asyncio.Event()
    async with serving(node) as api, asyncio.TaskGroup() as group:
        halt = group.create_task(api.post("/v1/campaigns/c1/halt", {"confirm": "c1"}))
        await until(lambda: node.asked)
        stop = group.create_task(api.server.stop())
        await asyncio.sleep(0.05)
        node.halt_gate.set()
        assert (await halt).status == 200
        await stop


def test_all_of_it_works_on_uvloop(monkeypatch):
    """Broken: the server does well in tests and fails in the daemon, which runs on uvloop."""
    uvloop = pytest.importorskip("uvloop")
    monkeypatch.setattr(server_module, "_MOST_CONNECTIONS", 12)

    async def run() -> None:
        async with serving(fill(MemoryNode(), recipients=3000)) as api:
            assert (await api.get("/v1/status")).status == 200
            answer = await api.get("/v1/campaigns/welcome@shop/recipients")
            assert answer.body.count(b"\n") == 10
            held = await hold_connections(api, 12)
            assert b" 503 " in await exchange(api, b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
            for writer in held:
                writer.close()
                await writer.wait_closed()
            async with asyncio.timeout(10):
                while (await api.get("/v1/lanes")).status != 200:
                    await asyncio.sleep(0.01)
            async with api.open("GET", "/v1/events") as events:
                assert await events.content.readline() == b"retry: 2000\n"
                report = (await api.post("/v1/campaigns/a%2Fb/halt", {"confirm": "a/b"})).json
                assert report["stop"]["requested_by"]["uid"] == os.getuid()
                async with asyncio.timeout(4):
                    while b"halt" not in await events.content.readline():
                        pass
                    await api.server.stop()
                    await events.read()
            assert not api.path.exists()

    uvloop.run(run())
