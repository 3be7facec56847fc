"""The listener for monitoring, over real connections."""

import asyncio
import socket
import time

import aiohttp
import pytest

from mtactl.observe.health import Health
from mtactl.observe.http import MonitoringServer
from mtactl.observe.loop_lag import sample_loop_lag
from mtactl.observe.metrics import Metrics, Snapshot


@pytest.fixture
def problems():
    """Give the list of problems that the server's health is asked from."""
    return []


@pytest.fixture
async def server(problems):
    """Give a server that was not started."""
    metrics = Metrics(lambda: Snapshot(totals={"accepted": 42}), version="1")
    server = MonitoringServer(metrics, Health(lambda: problems))
    yield server
    await server.close()


@pytest.fixture
async def get(server):
    """Give a function that makes a request and gives status, headers and text."""
    host, port = await server.start(("127.0.0.1", 0))
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:

        async def ask(path, method="GET", **headers):
            async with session.request(method, path, headers=headers) as response:
                return response.status, response.headers, await response.text()

        yield ask


async def test_a_scrape(get):
    """What Prometheus gets, in the format that it asks for."""
    status, headers, text = await get("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert "mtactl_recipients_accepted_total 42.0\n" in text
    status, headers, text = await get("/metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


async def test_health(get, problems):
    """A load balancer must stop sending mail to a node that takes none, and nobody should restart it for that."""
    assert (await get("/readyz"))[::2] == (200, "ready\n")
    problems += ["the disk is full", "no listener is open"]
    assert (await get("/readyz"))[::2] == (503, "the disk is full\nno listener is open\n")
    assert (await get("/healthz"))[::2] == (200, "alive\n")


async def test_other_requests(get):
    """HEAD is what some checks send; nothing else is here, and nothing can be changed."""
    status, headers, text = await get("/metrics", "HEAD")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) > 1000
    assert (await get("/readyz", "HEAD"))[0] == 200
    assert (await get("/"))[0] == 404
    assert (await get("/metrics/x"))[0] == 404
    assert (await get("/metrics", "POST"))[0] == 405


async def test_a_port_that_is_taken(server):
    """The start must fail with the reason, not go on without monitoring."""
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="address already in use"):
        await server.start(other.getsockname())
    await server.close()


async def test_a_socket_from_systemd(server):
    """A socket that systemd holds open must be used, not opened again."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        held.setblocking(False)
        assert await server.start(held) == held.getsockname()
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{held.getsockname()[1]}/healthz") as response,
        ):
            assert response.status == 200
        await server.close()


async def test_loop_lag():
    """A loop that is held up must be seen, or nobody knows why halts are slow."""
    seen = []
    sampler = asyncio.ensure_future(sample_loop_lag(seen.append, interval=0.01))
    await asyncio.sleep(0.03)
    time.sleep(0.1)  # in the loop's own thread
    await asyncio.sleep(0.03)
    sampler.cancel()
    assert max(seen) > 0.05
    assert min(seen) >= 0
