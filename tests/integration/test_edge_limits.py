"""Every limit of a listener, and the clients that go over it or go away."""

import asyncio
import gc
import socket
import struct
import weakref

import pytest

from mtactl.message.reply import Reply
from tests.world.edge import running_edge

MESSAGE = b"Subject: hi\r\n\r\nHello\r\n.\r\n"


@pytest.mark.parametrize(
    ("sent", "goes_on"),
    [
        (b"a\nb\r\n", True),
        (b"a\rb\r\n", True),
        (b"a\n.\nMAIL FROM:<evil@example.com>\r\n", True),
        (b"a\n.\r\nMAIL FROM:<evil@example.com>\r\n", True),
        (b"a\r\n.\nMAIL FROM:<evil@example.com>\r\n", True),
        (b"a\r.\rMAIL FROM:<evil@example.com>\r\n", True),
        (b"a\r.\r\nMAIL FROM:<evil@example.com>\r\n", True),
        (b"a\r\n.\rMAIL FROM:<evil@example.com>\r\n", True),
        (b"a\r\r\n", True),
        (b"a\n\r\n", True),
    ],
)
async def test_smuggled_end_is_no_end(sent, goes_on):
    """If this fails, one message is two to us: the second can have any sender (CVE-2023-51764 and its kin)."""
    async with running_edge() as edge, edge.client() as client:
        await client.begin()
        await client.ask(b"DATA\r\n")
        client.send(b"Subject: x\r\n\r\n" + sent + b"RCPT TO:<victim@example.org>\r\nDATA\r\n.\r\nNOOP\r\n")
        assert (await client.reply())[1].startswith("5.6.0 a bare CR or LF")
        assert (await client.reply())[0] == 250
        assert not edge.intake.messages


@pytest.mark.parametrize("line", [b"NOOP\n", b"MAIL FROM:<a@example.com>\n", b"\n", b"x" * 5000 + b"\n"])
async def test_command_with_a_bare_newline_ends_the_session(line):
    """If this fails, what a server in front of us took for text is obeyed here."""
    async with running_edge() as edge, edge.client() as client:
        client.send(line + b"NOOP\r\n")
        assert await client.end() == b"500 5.5.2 a command line ended in a bare LF; closing\r\n"


async def test_message_size():
    """If this fails, the announced SIZE means nothing, or an over-size message takes memory or the session."""
    async with running_edge(max_message_size=1000) as edge, edge.client() as client:
        assert await client.refused(b"MAIL FROM:<a@example.com> SIZE=1001\r\n") == (552, "5.3.4")
        await client.begin(sender=b"<a@example.com> SIZE=1000")
        line = b"x" * 98 + b"\r\n"
        assert (await client.deliver(line * 10 + b".\r\n"))[0] == 250
        await client.begin()
        code, text = await client.deliver(line * 10 + b"y\r\n.\r\n")
        assert (code, text[:5]) == (552, "5.3.4")
        await client.begin()
        code, text = await client.deliver(line * 100_000 + b".\r\n")
        assert (code, text[:5]) == (552, "5.3.4")
        assert (await client.ask(b"NOOP\r\n"))[0] == 250
        assert len(edge.intake.messages) == 1


async def test_line_length():
    """If this fails, lines that no peer must take get into the queue."""
    async with running_edge(max_line_length=1000) as edge, edge.client() as client:
        await client.begin()
        assert (await client.deliver(b"x" * 998 + b"\r\n.\r\n"))[0] == 250
        await client.begin()
        assert await client.deliver(b"x" * 999 + b"\r\n.\r\n") == (
            550,
            "5.6.0 a line is longer than 1000 octets (RFC 5321 section 4.5.3.1.6)",
        )
        assert len(edge.intake.messages) == 1


async def test_recipients():
    """If this fails, one transaction takes memory without end; or those before the limit are lost (RFC 5321)."""
    async with running_edge(max_recipients=3) as edge, edge.client() as client:
        await client.ask(b"MAIL FROM:<a@example.com>\r\n")
        client.send(b"".join(b"RCPT TO:<b%d@example.org>\r\n" % number for number in range(30)))
        replies = [await client.reply() for _ in range(30)]
        assert [code for code, _ in replies] == [250] * 3 + [452] * 27
        assert replies[3][1].startswith("4.5.3")
        assert (await client.deliver(MESSAGE))[0] == 250
        assert [to.address for to in edge.intake.messages[0].recipients] == [
            f"b{number}@example.org" for number in range(3)
        ]


async def test_connections():
    """If this fails, too many clients bring the daemon down; or places are not given back."""
    async with running_edge(max_connections=2) as edge:
        async with edge.client(), edge.client():
            assert edge.listeners.connections == 2
            async with edge.client(ehlo=False) as third:
                assert (await third.end()).startswith(b"421 4.3.2 ")
            assert edge.listeners.connections == 2
        await edge.until(lambda: edge.listeners.connections == 0)
        async with edge.client() as client:
            assert (await client.ask(b"NOOP\r\n"))[0] == 250


async def test_memory_over_all_messages():
    """If this fails, many large messages at once take more memory than allowed; or it is never given back."""
    async with running_edge(max_memory=100_000, max_message_size=90_000) as edge:
        async with edge.client() as one, edge.client() as other, edge.client() as third:
            line = b"x" * 98 + b"\r\n"
            await one.begin()
            await one.ask(b"DATA\r\n")
            one.send(line * 600)
            await edge.until(lambda: edge.policy.budget.used > 59_000)
            assert await other.refused(b"MAIL FROM:<a@example.com> SIZE=80000\r\n") == (452, "4.3.1")
            await other.begin()
            code, text = await other.deliver(line * 600 + b".\r\n")
            assert (code, text[:5]) == (452, "4.3.1")
            await third.begin()
            assert (await third.deliver(line * 100 + b".\r\n"))[0] == 250
            assert (await one.ask(b".\r\n"))[0] == 250
            await other.begin()
            assert (await other.deliver(line * 600 + b".\r\n"))[0] == 250
        assert len(edge.intake.messages) == 3


async def test_memory_is_held_until_the_message_is_durable():
    """If this fails, messages that wait for a slow disk are not counted, and pile up."""
    async with running_edge() as edge, edge.client() as client:
        edge.intake.commit.clear()
        await client.begin()
        client.send(b"DATA\r\n" + b"x" * 900 + b"\r\n.\r\n")
        await edge.until(lambda: edge.intake.begun)
        assert edge.policy.budget.used > 900
        edge.intake.commit.set()
        assert await client.codes(2) == [354, 250]
        assert edge.policy.budget.used == 0


@pytest.mark.parametrize("reply", [Reply(452, "4.3.1", "full"), Reply(421, "4.3.2", "stopping")])
async def test_intake_that_is_not_ready_is_asked_at_mail(reply):
    """If this fails, a client sends whole messages to a full disk."""
    async with running_edge() as edge, edge.client() as client:
        edge.intake.refusal = reply
        client.send(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n")
        assert await client.reply() == (reply.code, reply.detail)
        if reply.code == 421:
            assert await client.end() == b""
        else:
            assert (await client.reply())[0] == 503
            edge.intake.refusal = None
            await client.begin()


async def test_only_known_networks_may_relay():
    """If this fails, the daemon is an open relay."""
    async with running_edge(relay_from=("192.0.2.0/24",)) as edge, edge.client() as client:
        assert await client.refused(b"MAIL FROM:<a@example.com>\r\n") == (554, "5.7.1")
        assert await client.refused(b"RCPT TO:<b@example.org>\r\n") == (503, "5.5.1")
        assert await client.refused(b"BDAT 2 LAST\r\nxx") == (503, "5.5.1")
        assert not edge.intake.messages


async def test_too_many_errors():
    """If this fails, a client that guesses or is broken keeps a connection busy for ever."""
    async with running_edge(max_errors=5) as edge:
        async with edge.client() as client:
            client.send(b"FOO\r\n" * 10)
            assert await client.codes(6) == [500] * 5 + [421]
            assert await client.end() == b""
        async with edge.client() as client:
            for _ in range(4):
                client.send(b"FOO\r\n" * 4)
                assert await client.codes(4) == [500] * 4
                await client.begin()
                assert (await client.deliver(MESSAGE))[0] == 250


async def test_refused_messages_are_no_errors_of_the_session():
    """If this fails, an application that goes on with a halted campaign loses its connection, and other mail too."""
    async with running_edge(max_errors=3) as edge, edge.client() as client:
        edge.intake.reply = Reply(550, "5.7.1", "campaign c1 is halted")
        for _ in range(10):
            await client.begin()
            assert await client.deliver(MESSAGE) == (550, "5.7.1 campaign c1 is halted")
        assert (await client.ask(b"NOOP\r\n"))[0] == 250


async def test_silent_client_is_sent_away():
    """If this fails, clients that say nothing take all connections there are."""
    async with running_edge(command_timeout=0.05) as edge, edge.client(ehlo=False) as client:
        assert (await client.end()).endswith(b"421 4.4.2 mx.test waited too long for you\r\n")


async def test_silent_client_is_sent_away_in_mid_message():
    """If this fails, a client that stops in the middle of a message keeps its memory."""
    async with running_edge(data_timeout=0.05) as edge:
        for start in (b"DATA\r\nSubject: x\r\n", b"BDAT 10 LAST\r\nx"):
            async with edge.client() as client:
                await client.begin()
                client.send(start)
                assert (await client.end()).endswith(b"421 4.4.2 mx.test waited too long for you\r\n")
        assert edge.policy.budget.used == 0
        assert not edge.intake.messages


async def test_timeout_is_for_each_block():
    """If this fails, a slow but steady client can't send a large message."""
    async with running_edge(data_timeout=0.4, command_timeout=0.4) as edge, edge.client() as client:
        await client.begin()
        await client.ask(b"DATA\r\n")
        for _ in range(12):
            client.send(b"slow\r\n")
            await asyncio.sleep(0.05)
        assert (await client.ask(b".\r\n"))[0] == 250
        assert edge.intake.messages


async def test_commit_has_no_timeout():
    """If this fails, a slow disk makes clients send again what is about to be durable."""
    async with running_edge(command_timeout=0.05, data_timeout=0.05) as edge, edge.client(ehlo=False) as client:
        edge.intake.commit.clear()
        client.send(b"EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" + MESSAGE)
        await edge.until(lambda: edge.intake.begun)
        await asyncio.sleep(0.2)
        edge.intake.commit.set()
        assert await client.codes(6) == [220, 250, 250, 250, 354, 250]


async def test_client_that_does_not_read_is_not_read_from():
    """If this fails, replies to a client that never reads them fill the memory."""
    async with running_edge(command_timeout=0.3) as edge:
        with socket.create_connection(edge.address) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.setblocking(False)
            sent = 0
            loop = asyncio.get_running_loop()
            with pytest.raises((TimeoutError, ConnectionError)):  # noqa: PT012
                async with asyncio.timeout(10):
                    while True:
                        await loop.sock_sendall(raw, b"HELP\r\n" * 10_000)
                        sent += 60_000
            assert sent < 50_000_000
        await edge.until(lambda: edge.listeners.connections == 0)


async def test_pipelining_without_end_starves_nobody():
    """If this fails, one client that pipelines a lot keeps the others waiting."""
    async with running_edge() as edge, edge.client() as greedy, edge.client() as modest:
        greedy.send(b"NOOP\r\n" * 20_000)
        await asyncio.sleep(0)
        assert (await modest.ask(b"NOOP\r\n"))[0] == 250
        assert not greedy.reader.at_eof()
        assert await greedy.codes(20_000) == [250] * 20_000


def reset(client):
    """Close with a reset: what is under way is lost."""
    raw = client.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


STAGES = [
    b"",
    b"MAIL FR",
    b"MAIL FROM:<a@example.com>\r\n",
    b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n",
    b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n",
    b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nSubject: x\r\n\r\nhalf a mess",
    b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nSubject: x\r\n\r\n\r\n.\r",
    b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nBDAT 10\r\n",
    b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nBDAT 10\r\n12345",
    b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nBDAT 5\r\n12345BDAT 5 LAST\r\n1234",
]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["close", "half", "reset"])
async def test_client_that_goes_away_leaves_nothing(stage, how):
    """If this fails, half a message is delivered, or what was held for it stays held."""
    async with running_edge() as edge, edge.client() as client:
        await client.send_apart(stage)
        match how:
            case "close":
                client.writer.close()
            case "half":
                client.writer.write_eof()
            case "reset":
                reset(client)
        await edge.until(lambda: edge.listeners.connections == 0)
        assert edge.policy.budget.used == 0
        assert not edge.intake.begun


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_commit_under_way_is_finished_without_the_client(how):
    """If this fails, a message that is durable is in no book, since its client was impatient."""
    async with running_edge() as edge:
        edge.intake.commit.clear()
        async with edge.client() as client:
            await client.begin()
            client.send(b"DATA\r\n" + MESSAGE)
            await edge.until(lambda: edge.intake.begun)
            if how == "reset":
                reset(client)
        await asyncio.sleep(0.02)
        assert edge.listeners.connections == 1
        edge.intake.commit.set()
        await edge.until(lambda: edge.listeners.connections == 0)
        assert edge.intake.committed == 1
        assert edge.policy.budget.used == 0


@pytest.mark.parametrize("stage", [*STAGES, b"QUIT\r\n", b"NOOP\r\n" * 1000 + b"x" * 200_000, b"BDAT x\r\n"])
@pytest.mark.parametrize("how", ["close", "reset", "turned away"])
async def test_session_that_is_over_is_gone(stage, how):
    """If this fails, what thousands of clients leave behind fills the memory until some garbage is collected."""
    async with running_edge(max_connections=1) as edge, edge.client() as client:
        made = []
        sessions = edge.listeners._listeners[0].sessions
        made += [weakref.ref(session) for session in sessions]
        gc.disable()
        try:
            if how == "turned away":
                async with edge.client(ehlo=False) as other:
                    assert (await other.end()).startswith(b"421 ")
            client.send(stage)
            await client.writer.drain()
            if how == "reset":
                reset(client)
            else:
                client.writer.close()
            await edge.until(lambda: edge.listeners.connections == 0)
            await edge.until(lambda: made[0]() is None)
        finally:
            gc.enable()


async def test_half_closed_client_still_gets_its_replies():
    """If this fails, `printf … | nc` and the like never hear that their mail was taken."""
    async with running_edge() as edge, edge.client() as client:
        client.send(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" + MESSAGE)
        client.writer.write_eof()
        assert await client.codes(4) == [250, 250, 354, 250]
        assert await client.end() == b""
        assert edge.intake.committed == 1
