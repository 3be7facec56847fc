"""SMTP in over real sockets: commands, replies and messages."""

import pytest

from mtactl.message.reply import Reply
from tests.world.edge import QUEUED, running_edge

MESSAGE = b"X-Campaign-ID: c1\r\nSubject: hi\r\n\r\nHello\r\n.\r\n"


async def test_message_is_kept_in_wire_form():
    """If this fails, what goes out is not what came in."""
    async with running_edge() as edge, edge.client() as client:
        await client.begin(b"<b@example.org>", b"<C@Example.NET>")
        body = b"Subject: dots\r\n\r\n..\r\n...x\r\n\r\n.\r\n"
        assert await client.deliver(body) == (250, "2.0.0 Ok: queued as 0000000001")
        (message,) = edge.intake.messages
        received, _, rest = b"".join(message.body).partition(b"Subject: ")
        assert b"Subject: " + rest == body
        assert received.startswith(b"Received: from client.test ([127.0.0.1])\r\n\tby mx.test with ESMTP id ")
        assert b"for <" not in received
        assert message.reverse_path == "a@example.com"
        assert [(to.address, to.domain) for to in message.recipients] == [
            ("b@example.org", "example.org"),
            ("C@Example.NET", "example.net"),
        ]
        assert (message.campaign, message.eight_bit, message.smtputf8, message.hold_until) == ("", False, False, None)
        assert message.client.startswith("[127.0.0.1]:")


async def test_extensions_are_offered():
    """If this fails, clients do not use what CONTRACT.md §7 promises."""
    async with running_edge(max_message_size=12_345, max_hold=600) as edge, edge.client(ehlo=False) as client:
        await client.reply()
        code, text = await client.ask(b"EHLO client.test\r\n")
        assert code == 250
        lines = text.split("\n")
        assert lines[0] == "mx.test"
        assert {line.split()[0] for line in lines[1:]} == {
            "PIPELINING",
            "SIZE",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "CHUNKING",
            "DSN",
            "FUTURERELEASE",
            "HELP",
        }
        assert "SIZE 12345" in lines
        (future,) = [line for line in lines if line.startswith("FUTURERELEASE")]
        assert future.split()[1] == "600"
        assert future.split()[2].endswith("Z")
        assert await client.ask(b"HELO client.test\r\n") == (250, "mx.test")


async def test_pipelined_group_is_answered_in_order():
    """If this fails, a client that pipelines takes one command's reply for another's."""
    async with running_edge() as edge, edge.client() as client:
        group = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<bad@-x>\r\nDATA\r\n" + MESSAGE
        client.send(group * 3 + b"QUIT\r\n")
        assert await client.codes(16) == [250, 250, 553, 354, 250] * 3 + [221]
        assert await client.end() == b""
        assert [message.campaign for message in edge.intake.messages] == ["c1"] * 3


async def test_commands_behind_the_dot_wait_for_the_commit():
    """If this fails, a later command is answered before the message is durable, or gets the message's reply."""
    async with running_edge() as edge, edge.client() as client:
        edge.intake.commit.clear()
        await client.begin()
        client.send(b"DATA\r\n" + MESSAGE + b"NOOP\r\nMAIL FROM:<x@example.com>\r\n")
        await edge.until(lambda: edge.intake.begun == 1)
        edge.intake.reply = Reply(452, "4.3.1", "full")
        edge.intake.commit.set()
        assert await client.codes(4) == [354, 452, 250, 250]


async def test_dsn_and_future_release_are_kept():
    """If this fails, notifications are not asked for of the peer, or mail goes out before its time."""
    async with running_edge() as edge, edge.client() as client:
        await client.begin(
            b"<b@example.org> NOTIFY=SUCCESS,delay ORCPT=rfc822;c@example.net",
            b"<d@example.org> NOTIFY=NEVER",
            sender=b"<> RET=hdrs ENVID=e+2B1 HOLDFOR=60",
        )
        before = edge.policy.now()
        await client.deliver(MESSAGE)
        (message,) = edge.intake.messages
        assert (message.reverse_path, message.ret, message.envid) == ("", "HDRS", "e+2B1")
        assert [(to.notify, to.orcpt) for to in message.recipients] == [
            ("SUCCESS,DELAY", "rfc822;c@example.net"),
            ("NEVER", None),
        ]
        assert abs(message.hold_until - before - 60_000_000) < 60_000_000


async def test_eight_bit_is_seen_or_declared():
    """If this fails, a peer without 8BITMIME is sent octets that it can't take."""
    async with running_edge() as edge, edge.client() as client:
        await client.begin()
        await client.deliver(b"Subject: \xc3\xa4\r\n\r\n.\r\n")
        await client.begin(sender=b"<a@example.com> BODY=8BITMIME")
        await client.deliver(MESSAGE)
        await client.begin(sender=b"<a@example.com> BODY=7BIT")
        await client.deliver(MESSAGE)
        assert [message.eight_bit for message in edge.intake.messages] == [True, True, False]


async def test_smtputf8():
    """If this fails, internationalised addresses are lost, or get to peers without SMTPUTF8 (RFC 6531)."""
    async with running_edge() as edge, edge.client() as client:
        assert await client.refused("MAIL FROM:<ü@example.com>\r\n".encode()) == (553, "5.6.7")
        await client.begin("<ü@bücher.example>".encode(), sender="<ä@example.com> SMTPUTF8".encode())
        await client.deliver(MESSAGE)
        (message,) = edge.intake.messages
        assert message.smtputf8
        assert message.reverse_path == "ä@example.com"
        (to,) = message.recipients
        assert (to.address, to.domain) == ("ü@xn--bcher-kva.example", "xn--bcher-kva.example")
        assert "with UTF8SMTP id" in b"".join(message.body).decode()
        await client.begin()
        assert await client.refused("RCPT TO:<ü@example.com>\r\n".encode()) == (553, "5.6.7")
        assert await client.refused("NOOP ü\r\n".encode()) == (500, "5.5.2")


@pytest.mark.parametrize(
    ("argument", "address"),
    [
        (b"TO:<b@example.org>", "b@example.org"),
        (b"to: <b@example.org>", "b@example.org"),
        (b"TO:b@example.org", "b@example.org"),
        (b"TO:<@relay.example,@other.example:b@example.org>", "b@example.org"),
        (b'TO:<"b c"@example.org>', '"b c"@example.org'),
        (b'TO:<"b>c"@example.org> NOTIFY=NEVER', '"b>c"@example.org'),
        (b"TO:<postmaster>", "postmaster@mx.test"),
        (b"TO:<b@[IPv6:::1]>", "b@[IPv6:::1]"),
    ],
)
async def test_recipients_are_read_as_clients_write_them(argument, address):
    """If this fails, a client that is not quite by the book can't send, or sends to someone else."""
    async with running_edge() as edge, edge.client() as client:
        await client.ask(b"MAIL FROM:<a@example.com>\r\n")
        assert (await client.ask(b"RCPT " + argument + b"\r\n"))[0] == 250
        await client.deliver(MESSAGE)
        assert [to.address for to in edge.intake.messages[0].recipients] == [address]


BEGUN = b"MAIL FROM:<a@example.com>\r\n"
ADDED = BEGUN + b"RCPT TO:<b@example.org>\r\n"


@pytest.mark.parametrize(
    ("before", "command", "answer"),
    [
        (b"", b"RCPT TO:<b@example.org>", (503, "5.5.1")),
        (b"", b"DATA", (503, "5.5.1")),
        (b"", b"BDAT 0", (503, "5.5.1")),
        (BEGUN, b"MAIL FROM:<a@example.com>", (503, "5.5.1")),
        (BEGUN, b"DATA", (554, "5.5.1")),
        (BEGUN, b"BDAT 0 LAST", (554, "5.5.1")),
        (ADDED, b"DATA now", (501, "5.5.4")),
        (ADDED + b"BDAT 0\r\n", b"DATA", (503, "5.5.1")),
        (ADDED + b"BDAT 0\r\n", b"RCPT TO:<c@example.org>", (503, "5.5.1")),
        (ADDED + b"RSET\r\n", b"DATA", (503, "5.5.1")),
        (ADDED + b"EHLO x\r\n", b"DATA", (503, "5.5.1")),
        (b"HELO x\r\n", b"MAIL FROM:<a@example.com> SIZE=1", (555, "5.5.4")),
        (b"HELO x\r\n" + BEGUN, b"RCPT TO:<b@example.org> NOTIFY=NEVER", (555, "5.5.4")),
        (b"", b"MAIL", (501, "5.5.4")),
        (b"", b"MAIL TO:<a@example.com>", (501, "5.5.4")),
        (b"", b"MAIL FROM:", (501, "5.5.4")),
        (b"", b"MAIL FROM:<a@example.com", (501, "5.5.4")),
        (b"", b"MAIL FROM:<a@example.com>SIZE=1", (501, "5.5.4")),
        (b"", b"MAIL FROM:<a>", (553, "5.1.7")),
        (b"", b"MAIL FROM:<a@x..y>", (553, "5.1.8")),
        (b"", b"MAIL FROM:<" + b"a" * 65 + b"@example.com>", (553, "5.1.7")),
        (b"", b"MAIL FROM:<a@example.com> SIZE=99999999999", (552, "5.3.4")),
        (b"", b"MAIL FROM:<a@example.com> FOO=1", (555, "5.5.4")),
        (BEGUN, b"RCPT TO:<>", (553, "5.1.3")),
        (BEGUN, b"RCPT TO:<b>", (553, "5.1.3")),
        (BEGUN, b"RCPT TO:<b@-x>", (553, "5.1.2")),
        (BEGUN, b"RCPT TO:<b@example.org> FOO=1", (555, "5.5.4")),
        (b"", b"EHLO", (501, "5.5.4")),
        (b"", b"HELO ", (501, "5.5.4")),
        (b"", b"RSET x", (501, "5.5.4")),
        (b"", b"QUIT x", (501, "5.5.4")),
        (b"", b"NOOP anything", (250, "2.0.0")),
        (b"", b"noop", (250, "2.0.0")),
        (b"", b"HELP", (214, "2.0.0")),
        (b"", b"VRFY b", (252, "2.5.2")),
        (b"", "VRFY ü".encode(), (252, "2.5.2")),
        (b"", b"VRFY", (501, "5.5.4")),
        (b"", b"EXPN list", (502, "5.5.1")),
        (b"", b"STARTTLS", (502, "5.5.1")),
        (b"", b"AUTH PLAIN x", (502, "5.5.1")),
        (b"", b"FOO", (500, "5.5.2")),
        (b"", b"", (500, "5.5.2")),
        (b"", b"NOOP \x00", (500, "5.5.2")),
        (b"", b"NO\rOP", (500, "5.5.2")),
        (b"", b"NOOP\r", (500, "5.5.2")),
        (b"", b"NOOP \x1b[2J", (500, "5.5.2")),
        (b"", b"NOOP \xff", (500, "5.5.2")),
        (b"", b"NOOP \xc2\x9b", (500, "5.5.2")),
        (b"", b"NOOP " + b"x" * 2042, (500, "5.5.2")),
        (b"", b"NOOP " + b"x" * 2041, (250, "2.0.0")),
        (b"", b"x" * 100_000, (500, "5.5.2")),
    ],
)
async def test_command_is_answered_and_the_session_goes_on(before, command, answer):
    """If this fails, a mistake of a client is misunderstood, or costs it the connection."""
    async with running_edge() as edge, edge.client() as client:
        if before:
            client.send(before)
            assert set(await client.codes(before.count(b"\r\n"))) == {250}
        assert await client.refused(command + b"\r\n") == answer
        assert (await client.ask(b"NOOP\r\n"))[0] == 250
        assert not edge.intake.messages


async def test_greeting_must_come_first():
    """If this fails, mail is taken from something that does not speak SMTP."""
    async with running_edge() as edge, edge.client(ehlo=False) as client:
        assert await client.reply() == (220, "mx.test ESMTP mtactl")
        assert await client.refused(b"MAIL FROM:<a@example.com>\r\n") == (503, "5.5.1")
        assert await client.refused(b"DATA\r\n") == (503, "5.5.1")


async def test_odd_paths_do_not_break_the_session():
    """If this fails, a path that trips the stock parser ends the session, or worse, is taken."""
    paths = [
        b"<",
        b">",
        b"<<a@b>>",
        b"(",
        b"<(>",
        b'"',
        b'<"',
        b"<@>",
        b"<@a>",
        b"<a@b>>",
        b"<,>",
        b"<a@[>",
        b"\\",
        b"<a@b>\\",
    ]
    paths += [
        b"(" * 500,
        b"(" * 2000,
        b"<" + b"(" * 400,
        b'"' * 500,
        b"<@" + b"a,@" * 100,
        b"< >",
        b"<\xc2\xa0>",
        b"=?utf-8?q?a?=",
    ]
    async with running_edge(max_errors=100) as edge, edge.client() as client:
        for path in paths:
            for command in (b"MAIL FROM:", b"VRFY "):
                code, _ = await client.ask(command + path + b"\r\n")
                assert code in {501, 553, 555, 252}, path


async def test_unexpected_failure_of_the_intake_is_a_temporary_one():
    """If this fails, a defect behind the edge loses mail, or takes the session's reply away."""
    async with running_edge() as edge, edge.client() as client:
        edge.intake.error = RuntimeError("broken")
        await client.begin()
        assert (await client.deliver(MESSAGE))[0] == 451
        edge.intake.error = None
        await client.begin()
        assert (await client.deliver(MESSAGE))[0] == QUEUED.code


async def test_message_without_text_is_taken():
    """If this fails, the shortest message there is blocks the session."""
    async with running_edge() as edge, edge.client() as client:
        await client.begin()
        assert (await client.deliver(b".\r\n"))[0] == 250
        assert b"".join(edge.intake.messages[0].body).endswith(b" +0000\r\n.\r\n")


async def test_campaign_header_decides():
    """If this fails, a message goes out that no halt can stop."""
    async with running_edge() as edge, edge.client() as client:
        await client.begin()
        code, text = await client.deliver(b"X-Job: not an id\r\n\r\n.\r\n")
        assert code == 550
        assert text.startswith("5.6.0 the header X-Job is not a campaign id")
        await client.begin()
        code, text = await client.deliver(b"X-Job: a\r\nX-Job: b\r\n\r\n.\r\n")
        assert (code, text[:5]) == (550, "5.6.0")
        assert not edge.intake.messages
        await client.begin()
        assert (await client.deliver(b".X-Job: a\r\n\r\n.\r\n"))[0] == 250
        assert edge.intake.messages[0].campaign == "a"
