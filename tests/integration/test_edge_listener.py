"""Listeners: sockets, and the end of them."""

import asyncio
import socket

import pytest

from mtactl.edge.listener import Listeners
from tests.world.edge import Client, MemoryIntake, make_policy, running_edge
from tests.world.loops import on_both_loops

MESSAGE = b"Subject: hi\r\n\r\nHello\r\n.\r\n"


async def connect(address):
    return Client(*await asyncio.open_connection(*address))


@on_both_loops
async def test_each_loop_serves():
    """If this fails, the daemon works with uvloop or without it, but not both."""
    async with running_edge() as edge, edge.client() as client:
        await client.begin()
        assert (await client.deliver(b"x" * 900 + b"\r\n" + MESSAGE))[0] == 250
        assert (await client.ask(b"QUIT\r\n"))[0] == 221
        assert await client.end() == b""
        async with edge.client() as other:
            other.writer.write_eof()
            assert await other.end() == b""


async def test_sockets_that_are_open_already_are_used():
    """If this fails, socket activation does not work."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        intake = MemoryIntake()
        listeners = Listeners([make_policy(intake), make_policy(intake)])
        await listeners.start([[given]])
        assert listeners.addresses[0] == given.getsockname()
        assert len({port for _, port in listeners.addresses}) == 2
        for address in listeners.addresses:
            client = await connect(address)
            assert (await client.reply())[0] == 220
            client.writer.close()
        await listeners.stop(1.0)


async def test_address_in_use_is_an_error_and_leaves_nothing_open():
    """If this fails, the daemon runs without a listener that was asked for."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        intake = MemoryIntake()
        policies = [make_policy(intake), make_policy(intake)]
        second = policies[1].settings.model_copy(update={"listen": taken.getsockname()})
        object.__setattr__(policies[1], "settings", second)
        listeners = Listeners(policies)
        with pytest.raises(OSError, match="address already in use"):
            await listeners.start()
        assert not listeners.addresses


async def test_stop_sends_idle_clients_away_and_lets_messages_finish():
    """If this fails, a restart of the daemon makes clients send again what was about to be durable."""
    intake = MemoryIntake()
    listeners = Listeners([make_policy(intake)])
    await listeners.start()
    address = listeners.addresses[0]
    idle, in_mail, in_data, in_commit = [await connect(address) for _ in range(4)]
    for client in (idle, in_mail, in_data, in_commit):
        await client.reply()
        await client.ask(b"EHLO x\r\n")
    intake.commit.clear()
    for client in (in_mail, in_data, in_commit):
        await client.begin()
    await in_data.ask(b"DATA\r\n")
    in_data.send(b"Subject: x\r\n")
    in_commit.send(b"DATA\r\n" + MESSAGE + b"NOOP\r\n")
    while not intake.begun:
        await asyncio.sleep(0.002)
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(listeners.stop(10.0))
        for client in (idle, in_mail):
            assert (await client.end()).startswith(b"421 4.3.2 ")
        with pytest.raises(ConnectionError):
            await connect(address)
        assert not stopping.done()
        in_data.send(b"\r\n.\r\n")
        intake.commit.set()
        assert await in_data.codes(2) == [250, 421]
        assert await in_commit.codes(3) == [354, 250, 421]
        assert await in_data.end() + await in_commit.end() == b""
    assert len(intake.messages) == 2
    assert listeners.connections == 0


async def test_grace_has_an_end():
    """If this fails, a client that never ends its message keeps the daemon from stopping."""
    intake = MemoryIntake()
    policy = make_policy(intake)
    listeners = Listeners([policy])
    await listeners.start()
    client = await connect(listeners.addresses[0])
    await client.reply()
    await client.ask(b"EHLO x\r\n")
    await client.begin()
    await client.ask(b"DATA\r\n")
    client.send(b"Subject: x\r\n")
    await listeners.stop(0.05)
    assert (await client.end()).startswith(b"421 4.3.2 ")
    assert policy.budget.used == 0
    assert listeners.connections == 0
    await listeners.stop(0.05)
