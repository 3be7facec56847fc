"""CHUNKING (RFC 3030) over real sockets."""

import pytest

from tests.world.edge import running_edge


async def bodies(edge):
    return [b"".join(message.body).partition(b"+0000\r\n")[2] for message in edge.intake.messages]


@pytest.mark.parametrize(
    ("chunks", "wire"),
    [
        ([b"Subject: x\r\n\r\nbody\r\n"], b"Subject: x\r\n\r\nbody\r\n.\r\n"),
        ([b"Subject: x\r\n", b"\r\nbody\r\n", b""], b"Subject: x\r\n\r\nbody\r\n.\r\n"),
        ([b"", b"", b"x\r\n"], b"x\r\n.\r\n"),
        ([b""], b".\r\n"),
        ([b".\r\n", b".\r\n.x"], b"..\r\n..\r\n..x\r\n.\r\n"),
        ([b"a\r", b"\n.", b"b"], b"a\r\n..b\r\n.\r\n"),
        ([b"a\r\n", b"\r\n", b".\r\nQUIT\r\n"], b"a\r\n\r\n..\r\nQUIT\r\n.\r\n"),
        ([b"no line end"], b"no line end\r\n.\r\n"),
        ([b"X" * 500, b"X" * 400], b"X" * 900 + b"\r\n.\r\n"),
    ],
)
async def test_chunks_become_wire_form(chunks, wire):
    """If this fails, a message sent in chunks goes out cut, or with dots lost or doubled."""
    async with running_edge() as edge, edge.client() as client:
        await client.begin()
        for chunk in chunks[:-1]:
            code, text = await client.ask(b"BDAT %d\r\n" % len(chunk) + chunk)
            assert (code, text) == (250, f"2.0.0 Ok: {len(chunk)} octets received")
        assert (await client.ask(b"bdat %d last\r\n" % len(chunks[-1]) + chunks[-1]))[0] == 250
        assert await bodies(edge) == [wire]


async def test_chunks_are_pipelined():
    """If this fails, a chunk's octets are taken for commands."""
    async with running_edge() as edge, edge.client() as client:
        one = (
            b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\n"
            b"BDAT 12\r\nX-Job: j\r\n\r\nBDAT 6\r\nRSET\r\nBDAT 6 LAST\r\nQUIT\r\n"
        )
        client.send(one * 5 + b"QUIT\r\n")
        assert await client.codes(26) == [250] * 25 + [221]
        assert await bodies(edge) == [b"X-Job: j\r\n\r\nRSET\r\nQUIT\r\n.\r\n"] * 5
        assert {message.campaign for message in edge.intake.messages} == {"j"}


async def test_refused_chunk_is_read_and_ends_the_transaction():
    """If this fails, what is left of a refused message is obeyed as commands, or delivered without its beginning."""
    async with running_edge() as edge, edge.client() as client:
        await client.begin()
        client.send(b"BDAT 9\r\nbare\nfeedBDAT 6\r\nNOOP\r\nBDAT 6 LAST\r\nNOOP\r\nNOOP\r\n")
        assert await client.codes(4) == [550, 503, 503, 250]
        assert not edge.intake.messages
        await client.begin()
        client.send(b"BDAT 6\r\nNOOP\r\nBDAT 4 LAST\r\na\rb\n")
        assert await client.codes(2) == [250, 550]
        assert not edge.intake.messages


async def test_chunks_without_a_transaction_are_thrown_away():
    """If this fails, the octets of a chunk that nobody wanted become commands."""
    async with running_edge() as edge, edge.client() as client:
        assert await client.refused(b"BDAT 6 LAST\r\nQUIT\r\n") == (503, "5.5.1")
        await client.ask(b"MAIL FROM:<a@example.com>\r\n")
        assert await client.refused(b"BDAT 6 LAST\r\nQUIT\r\n") == (554, "5.5.1")
        assert (await client.ask(b"NOOP\r\n"))[0] == 250
        assert not edge.intake.messages


async def test_chunks_are_limited_in_sum():
    """If this fails, a message larger than the limit gets in by pieces, or by its announcement takes memory."""
    async with running_edge(max_message_size=1000) as edge, edge.client() as client:
        line = b"x" * 98 + b"\r\n"
        await client.begin()
        assert (await client.ask(b"BDAT 900\r\n" + line * 9))[0] == 250
        assert await client.refused(b"BDAT 101 LAST\r\n" + line + b"x") == (552, "5.3.4")
        await client.begin()
        assert await client.refused(b"BDAT 100000\r\n" + line * 1000) == (552, "5.3.4")
        assert edge.policy.budget.used == 0
        await client.begin()
        assert (await client.ask(b"BDAT 900\r\n" + line * 9))[0] == 250
        assert (await client.ask(b"BDAT 100 LAST\r\n" + line))[0] == 250
        assert len(edge.intake.messages) == 1


async def test_chunked_message_that_is_given_up_gives_its_memory_back():
    """If this fails, clients that begin messages and send RSET fill the memory budget for good."""
    async with running_edge() as edge, edge.client() as client:
        for end in (b"RSET\r\n", b"EHLO x\r\n", b"HELO x\r\n"):
            await client.begin()
            assert (await client.ask(b"BDAT 100\r\n" + b"x" * 100))[0] == 250
            assert edge.policy.budget.used > 100
            assert (await client.ask(end))[0] == 250
            assert edge.policy.budget.used == 0


@pytest.mark.parametrize(
    "argument", [b"", b" x", b" -1", b" 1 2", b" 1 FIRST", b" 1 LAST x", b" " + b"9" * 20, b" 0x10", b" \xd9\xa1"]
)
async def test_chunk_of_unknown_size_ends_the_session(argument):
    """If this fails, octets of a message are obeyed as commands: nobody knows where the chunk ends."""
    async with running_edge() as edge, edge.client() as client:
        await client.begin()
        client.send(b"BDAT" + argument + b"\r\nQUIT\r\nNOOP\r\n")
        said = await client.end()
        assert said[:4] in {b"501 ", b"500 "}
        assert not edge.intake.messages
