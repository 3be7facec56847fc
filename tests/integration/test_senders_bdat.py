"""BDAT (RFC 3030) with lengths that are wrong, in every way that a length can be."""

from __future__ import annotations

import contextlib

import pytest

from tests.world.edge import running_edge

MAX = 1000  # octets of a message
TEXT = b"Subject: x\r\n\r\nbody\r\n"  # 20
EVIL = b"MAIL FROM:<evil@example.com>\r\n"
CLOSED = None


def bdat(octets: bytes, size: object = None, last: bytes = b" LAST") -> bytes:
    return b"BDAT %s%s\r\n" % (str(len(octets) if size is None else size).encode(), last) + octets


# What is sent behind RCPT, the codes that come, and how many messages were taken. CLOSED: the server closes behind it.
CASES = {
    "right": (bdat(TEXT), [250], 1),
    "too short": (bdat(TEXT, 14), [250, 500], 1),
    "too short by the line end": (bdat(TEXT, 19) + b"NOOP\r\n", [550, 500, CLOSED], 0),
    "too long": (bdat(TEXT, 200) + b"QUIT\r\n", [], 0),
    "too long, and the rest of it is a command": (bdat(TEXT, 26) + b"QUIT\r\nNOOP\r\n", [250, 250], 1),
    "nothing": (bdat(b""), [250], 1),
    "nothing, then nothing more": (bdat(b"", last=b"") + bdat(b""), [250, 250], 1),
    "nothing a thousand times": (bdat(b"", last=b"") * 1000 + bdat(TEXT), [250] * 1001, 1),
    "octet by octet": (b"".join(bdat(bytes([octet]), last=b"") for octet in TEXT) + bdat(b""), [250] * 21, 1),
    "leading zeros": (bdat(TEXT, "0000000000000000020"), [250], 1),
    "LAST is missing": (bdat(TEXT, last=b"") + b"QUIT\r\n", [250, 221, CLOSED], 0),
    "LAST is missing, and a new transaction": (
        bdat(TEXT, last=b"") + EVIL + b"RCPT TO:<c@example.org>\r\n" + bdat(TEXT),
        [250, 503, 503, 250],
        1,
    ),
    "LAST twice": (bdat(TEXT) + bdat(TEXT), [250, 503], 1),
    "LAST is another word": (bdat(TEXT, last=b" LASTLY") + EVIL, [501, CLOSED], 0),
    "LAST and more": (bdat(TEXT, last=b" LAST LAST") + EVIL, [501, CLOSED], 0),
    "LAST before": (b"BDAT LAST 20\r\n" + TEXT, [501, CLOSED], 0),
    "no length": (b"BDAT\r\n" + EVIL, [501, CLOSED], 0),
    "no length but LAST": (b"BDAT LAST\r\n" + EVIL, [501, CLOSED], 0),
    "negative": (bdat(TEXT, "-20") + EVIL, [501, CLOSED], 0),
    "negative nothing": (bdat(TEXT, "-0") + EVIL, [501, CLOSED], 0),
    "plus": (bdat(TEXT, "+20") + EVIL, [501, CLOSED], 0),
    "hexadecimal": (bdat(TEXT, "0x14") + EVIL, [501, CLOSED], 0),
    "exponent": (bdat(TEXT, "2e1") + EVIL, [501, CLOSED], 0),
    "underscore": (bdat(TEXT, "2_0") + EVIL, [501, CLOSED], 0),
    "fraction": (bdat(TEXT, "20.0") + EVIL, [501, CLOSED], 0),
    "comma": (bdat(TEXT, "20,") + EVIL, [501, CLOSED], 0),
    "twenty digits": (bdat(TEXT, 2**64 - 1) + EVIL, [501, CLOSED], 0),
    "thousand digits": (bdat(TEXT, "9" * 1000) + EVIL, [501, CLOSED], 0),
    "digits of another script": (b"BDAT \xd9\xa2\xd9\xa0 LAST\r\n" + TEXT + EVIL, [500, CLOSED], 0),
    "NUL behind it": (b"BDAT 20\x00 LAST\r\n" + TEXT + EVIL, [500, CLOSED], 0),
    "tab": (b"BDAT\t20 LAST\r\n" + TEXT + EVIL, [500, CLOSED], 0),
    "octets that are no text": (b"BDAT 20 \xff\r\n" + TEXT + EVIL, [500, CLOSED], 0),
    "line too long": (b"bdat 20" + b" " * 3000 + b"LAST\r\n" + TEXT + EVIL, [500, CLOSED], 0),
    "bare line feed": (b"BDAT 20 LAST\n" + TEXT + EVIL, [500, CLOSED], 0),
    "huge": (bdat(TEXT, 10**19 - 1) + EVIL, [552, CLOSED], 0),
    "63 bits": (bdat(TEXT, 2**63 - 1) + EVIL, [552, CLOSED], 0),
    "32 bits": (bdat(TEXT, 2**32) + EVIL, [552, CLOSED], 0),
    "31 bits": (bdat(TEXT, 2**31) + EVIL, [552, CLOSED], 0),
    "over the limit": (bdat(b"x" * (MAX + 1)) + b"NOOP\r\n", [552, 250], 0),
    "over the limit in sum": (
        bdat(TEXT, last=b"") + bdat(b"x" * MAX, last=b"") + bdat(TEXT) + b"NOOP\r\n",
        [250, 552, 503, 250],
        0,
    ),
    "huge behind a good one": (bdat(TEXT, last=b"") + bdat(TEXT, 10**18) + EVIL, [250, 552, CLOSED], 0),
    "RSET between": (bdat(TEXT, last=b"") + b"RSET\r\n" + bdat(TEXT), [250, 250, 503], 0),
    "EHLO between": (bdat(TEXT, last=b"") + b"EHLO x\r\n" + bdat(TEXT), [250, 250, 503], 0),
    "NOOP between": (bdat(TEXT, last=b"") + b"NOOP\r\n" + bdat(b"more\r\n"), [250, 250, 250], 1),
    "garbage between": (bdat(TEXT, last=b"") + b"body\r\n" + bdat(b"more\r\n"), [250, 500, 250], 1),
    "DATA behind it": (bdat(TEXT, last=b"") + b"DATA\r\n" + bdat(b""), [250, 503, 250], 1),
    "DATA before it": (b"DATA\r\n" + TEXT + bdat(TEXT) + b".\r\n", [354, 250], 1),
    "an end inside": (bdat(TEXT + b"\r\n.\r\n" + EVIL), [250], 1),
    "an end across two": (bdat(TEXT + b"\r\n", last=b"") + bdat(b".\r\n" + EVIL), [250, 250], 1),
    "half a line end": (bdat(TEXT + b"x\r", last=b"") + bdat(b"\n"), [250, 250], 1),
    "half a line end for ever": (bdat(TEXT + b"x\r", last=b"") + bdat(b"x"), [250, 550], 0),
    "half a line end at the end": (bdat(TEXT + b"x\r"), [550], 0),
    "NUL inside": (bdat(TEXT + b"\x00\r\n"), [550], 0),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("manner", ["at once", "octet by octet"])
async def test_length_that_is_wrong(name, manner):
    """If this fails, octets of a message are obeyed as commands, or a client's mistake makes one message two."""
    sent, codes, taken = CASES[name]
    async with running_edge(max_message_size=MAX) as edge, edge.client() as client:
        await client.begin()
        if manner == "at once":
            client.send(sent)
        else:
            for at in range(len(sent)):
                client.send(sent[at : at + 1])
                if at % 16 == 0:
                    await client.writer.drain()
        expected = [code for code in codes if code is not CLOSED]
        if codes[-1:] == [CLOSED]:
            with contextlib.suppress(ConnectionError):  # it may be closed with octets on their way
                assert await client.codes(len(expected)) == expected
                assert await client.end() == b""
        else:
            assert await client.codes(len(expected)) == expected
        if codes and codes[-1] is not CLOSED:
            # What could have been smuggled has no effect on what is said next.
            client.send(b"RSET\r\n" + EVIL)
            assert await client.codes(2) == [250, 250]
        client.writer.close()
        await edge.until(lambda: edge.listeners.connections == 0)
        assert edge.policy.budget.used == 0
        assert len(edge.intake.messages) == taken
        assert all(message.reverse_path == "a@example.com" for message in edge.intake.messages)
        for message in edge.intake.messages:
            assert b"".join(message.body).count(b"\r\n.\r\n") == 1


@pytest.mark.parametrize("before", [b"", b"EHLO x\r\n", b"EHLO x\r\nMAIL FROM:<a@example.com>\r\n"])
async def test_chunk_without_recipients(before):
    """If this fails, whoever may not send mail keeps the server busy with a chunk of ten exabytes."""
    async with running_edge(max_message_size=MAX) as edge, edge.client(ehlo=False) as client:
        client.send(before + bdat(EVIL) + b"NOOP\r\n" + b"BDAT 9999999999999999999\r\n")
        replies = before.count(b"\r\n") + 1
        assert await client.codes(replies) == [220] + [250] * (replies - 1)
        codes = await client.codes(3)
        assert (codes[0], codes[1], codes[2]) in {(503, 250, 503), (554, 250, 503)}
        assert await client.end() == b""
        assert not edge.intake.messages
