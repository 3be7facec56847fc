"""Sessions and transactions over real sockets, with peers that misbehave at each stage; on both event loops."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from mtactl.errors import TransientFailure
from mtactl.relay.relay import SmtpRelay
from mtactl.relay.transaction import OutOfTurn
from mtactl.schedule.ports import Delivery, Ending, Rcpt
from mtactl.settings import DeliverySettings, LaneSettings, NodeSettings, Settings, TimeoutSettings
from tests.world.loops import on_both_loops
from tests.world.smtp_peer import EHLO, EHLO_PLAIN, run_smtp_peer

BODY = b"Subject: x\r\n\r\nbody\r\n.\r\n"
DELIVERED, PERMANENT, TRANSIENT = Ending.DELIVERED, Ending.PERMANENT, Ending.TRANSIENT
LOST, LOST_AFTER_END = Ending.LOST, Ending.LOST_AFTER_END


def make_settings(*ports, timeouts=(), pipelining=True, **delivery) -> Settings:
    return Settings(
        node=NodeSettings(name="test", hostname="client.test"),
        delivery=DeliverySettings(timeouts=TimeoutSettings(**{"quit": 0.5, **dict(timeouts)}), **delivery),
        lane={"*": LaneSettings(route=tuple(("127.0.0.1", port) for port in ports), pipelining=pipelining)},
    )


def make_delivery(recipients=1, body=BODY, on_ending=lambda: None) -> Delivery:
    return Delivery(
        reverse_path="a@example.com",
        recipients=tuple(Rcpt(address=f"r{number}@example.net") for number in range(recipients)),
        body=body,
        eight_bit=False,
        smtputf8=False,
        ret=None,
        envid=None,
        on_ending=on_ending,
    )


@asynccontextmanager
async def run_relay(*scripts, **settings):
    """Give a peer and a relay whose only route it is; the connections are gone at the end."""
    async with run_smtp_peer(*scripts) as peer:
        configured = make_settings(peer.port, **settings)
        relay = SmtpRelay(lambda: configured)
        try:
            yield peer, relay
        finally:
            await relay.close()


@asynccontextmanager
async def run_session(*scripts, **settings):
    """Give a peer and an open session with it."""
    async with run_relay(*scripts, **settings) as (peer, relay):
        session = await relay.connect("x.example", "x.example")
        try:
            yield peer, session
        finally:
            session.abort()


async def deliver(session, recipients=1, body=BODY, on_ending=lambda: None):
    session.begin(make_delivery(recipients, body, on_ending))
    return await session.finish()


@on_both_loops
async def test_reused_session_delivers_and_says_good_bye():
    """If it failed, nothing would be delivered, or each message would need a connection of its own."""

    async def script(talk):
        await talk.open()
        for _ in range(3):
            await talk.take(2)
        await talk.hear(b"QUIT")
        talk.say(b"221 bye\r\n")

    async with run_session(script) as (peer, session):
        assert session.peer == f"127.0.0.1[127.0.0.1]:{peer.port}"
        for _ in range(3):
            assert session.usable
            results = await deliver(session, 2)
            assert [result.ending for result in results] == [DELIVERED, DELIVERED]
            assert str(results[0].reply) == "250 2.0.0 queued"
        await session.quit()
        assert not session.usable
        assert peer.conversations[0].messages == [BODY] * 3
        assert peer.conversations[0].heard[0] == b"EHLO client.test\r\n"
        assert peer.conversations[0].heard[-1] == b"QUIT\r\n"


@on_both_loops
async def test_mail_is_written_before_begin_returns():
    """If it failed, a gate could close between its check and MAIL FROM, and the mail would still go."""

    async def script(talk):
        await talk.open()
        await talk.take()

    async with run_session(script) as (_peer, session):
        written = []
        transport = session._transport

        class Spy:
            def write(self, octets):
                written.append(bytes(octets))
                transport.write(octets)

            def __getattr__(self, name):
                return getattr(transport, name)

        session._transport = Spy()
        session.begin(make_delivery())
        assert written == [b"MAIL FROM:<a@example.com>\r\nRCPT TO:<r0@example.net>\r\nDATA\r\n"]
        assert (await session.finish())[0].ending is DELIVERED


@on_both_loops
async def test_peer_without_pipelining():
    """If it failed, an old peer would lose commands that it was not ready for."""

    async def script(talk):
        await talk.open(EHLO_PLAIN)
        for verb, reply in [(b"MAIL ", b"250 a\r\n"), (b"RCPT ", b"550 b\r\n"), (b"RCPT ", b"250 c\r\n")]:
            await talk.hear(verb)
            talk.say(reply)
        await talk.hear(b"DATA")
        talk.say(b"354 go\r\n")
        await talk.hear_message()
        talk.say(b"250 ok\r\n")
        await talk.hear(b"MAIL ")
        talk.say(b"450 not now\r\n")
        await talk.hear(b"RSET")
        talk.say(b"250 ok\r\n")
        await talk.hang()

    async with run_session(script) as (_peer, session):
        assert [result.ending for result in await deliver(session, 2)] == [PERMANENT, DELIVERED]
        assert [result.ending for result in await deliver(session, 2)] == [TRANSIENT, TRANSIENT]
        assert session.usable


@on_both_loops
async def test_pipelining_can_be_switched_off():
    """If it failed, an administrator could not deal with a peer whose PIPELINING is broken."""

    async def script(talk):
        await talk.open()
        await talk.hear(b"MAIL ")
        await asyncio.sleep(0.02)
        assert not talk.reader._buffer
        talk.say(b"550 no\r\n")
        await talk.hear(b"RSET")
        talk.say(b"250 ok\r\n")

    async with run_session(script, pipelining=False) as (_peer, session):
        assert [result.ending for result in await deliver(session)] == [PERMANENT]


@on_both_loops
async def test_replies_in_single_octets():
    """If it failed, a peer behind a slow link would be misread."""

    async def script(talk):
        await talk.say_slowly(b"220 peer.test\r\n")
        await talk.hear(b"EHLO ")
        await talk.say_slowly(EHLO)
        await talk.hear(b"MAIL ", b"RCPT ", b"DATA")
        await talk.say_slowly(b"250-a\r\n250 b\r\n250 ok\r\n354 go\r\n")
        await talk.hear_message()
        await talk.say_slowly(b"250 2.0.0 ok\r\n")
        await talk.hang()

    async with run_session(script) as (_peer, session):
        assert [result.ending for result in await deliver(session)] == [DELIVERED]
        assert session.usable


def answer_and_then(replies, then):
    """A script that answers a pipelined envelope with `replies`, reads the message if it is wanted, and ends so."""

    async def script(talk):
        await talk.open()
        await talk.hear(b"MAIL ", b"RCPT ", b"RCPT ", b"DATA")
        talk.say(replies)
        if b"354" in replies:
            await talk.hear_message()
        if then == "hang":
            await talk.hang()
        elif then == "reset":
            talk.writer.transport.abort()
        elif then == "close":
            await talk.writer.drain()
        else:
            talk.say(then)
            await talk.hang()

    return script


GO = b"250 a\r\n550 b\r\n250 c\r\n354 go\r\n"
LATE = {"mail": 0.1, "rcpt": 0.1, "data": 0.1, "data_block": 0.1, "data_end": 0.1}


@pytest.mark.parametrize(
    ("replies", "then", "endings", "why"),
    [
        (b"", "hang", [LOST, LOST], "no reply to MAIL within 0.1 s"),
        (b"", "reset", [LOST, LOST], "connection"),
        (b"", "close", [LOST, LOST], "the peer closed the connection"),
        (b"250 a\r\n", "hang", [LOST, LOST], "no reply to RCPT within 0.1 s"),
        (b"250 a\r\n550 b\r\n", "close", [PERMANENT, LOST], "the peer closed the connection"),
        (b"250 a\r\n550 b\r\n250 c\r\n", "hang", [PERMANENT, LOST], "no reply to DATA within 0.1 s"),
        (b"250 a\r\n550 b\r\n", b"421 4.3.2 bye\r\n", [PERMANENT, TRANSIENT], ""),
        (b"250 a\r\n550 b\r\n", b"250 " + b"x" * 5000, [PERMANENT, LOST], "the peer sent a reply line of over"),
        (b"250 a\r\n550 b\r\n", b"250-x\r\n" * 20000, [PERMANENT, LOST], "the peer sent a reply of over"),
        (b"250 a\r\n550 b\r\n", b"HTTP/1.1 400 Bad Request\r\n", [PERMANENT, LOST], "the peer sent a line"),
        (
            b"250 a\r\n550 b\r\n250 c\r\n",
            b"250 d\r\n",
            [LOST, LOST],
            "the peer said 250 d where the reply to DATA",
        ),
        (GO, "hang", [PERMANENT, LOST_AFTER_END], "no reply to the end of the message within 0.1 s"),
        (GO, "reset", [PERMANENT, LOST_AFTER_END], "connection"),
        (GO, "close", [PERMANENT, LOST_AFTER_END], "the peer closed the connection"),
        (GO, b"25", [PERMANENT, LOST_AFTER_END], "no reply to the end of the message within 0.1 s"),
        (GO, b"nonsense\r\n", [PERMANENT, LOST_AFTER_END], "the peer sent a line that is no reply"),
        (GO, b"421 4.3.2 bye\r\n", [PERMANENT, TRANSIENT], ""),
        (GO, b"250 d\r\n250 e\r\n", [PERMANENT, DELIVERED], ""),
    ],
)
@on_both_loops
async def test_misbehaviour_in_a_transaction(replies, then, endings, why):
    """If it failed, a bad peer could cause a duplicate, a false bounce, or a session that never ends."""
    noted = []
    async with run_session(answer_and_then(replies, then), timeouts=LATE) as (_peer, session):
        results = await deliver(session, 2, on_ending=lambda: noted.append(True))
        assert [result.ending for result in results] == endings
        assert all(why in result.why for result in results if result.reply is None)
        assert len(noted) == (1 if replies == GO else 0)
        await asyncio.wait_for(session.wait_unusable(), 5)
        assert not session.usable
        session.begin(make_delivery(2))
        assert [result.ending for result in await session.finish()] == [LOST, LOST]
        await session.quit()


@pytest.mark.parametrize("good_bye", [b"421 4.3.2 shutting down\r\n", b"", b"250 unasked\r\n"])
@on_both_loops
async def test_idle_session_that_ends_is_noticed(good_bye):
    """If it failed, the next message would be begun on a dead session."""

    async def script(talk):
        await talk.open()
        await talk.take()
        talk.say(good_bye)
        if good_bye.startswith(b"250"):
            await talk.hang()

    async with run_session(script) as (_peer, session):
        assert [result.ending for result in await deliver(session)] == [DELIVERED]
        await asyncio.wait_for(session.wait_unusable(), 5)
        assert not session.usable


@on_both_loops
async def test_large_body_is_bounded_in_memory_and_ends_late():
    """If it failed, large messages to slow peers would fill the memory, or count as ended long before they are."""
    body = (b"x" * 76 + b"\r\n") * 300_000 + b".\r\n"
    may_read = asyncio.Event()

    async def script(talk):
        await talk.open()
        await talk.hear(b"MAIL ", b"RCPT ", b"DATA")
        talk.say(b"250 a\r\n250 b\r\n354 go\r\n")
        await may_read.wait()
        await talk.hear_message()
        talk.say(b"250 ok\r\n")

    noted = []
    async with run_session(script) as (peer, session):
        session.begin(make_delivery(body=body, on_ending=lambda: noted.append(True)))
        await asyncio.sleep(0.2)
        assert session._transport.get_write_buffer_size() < 1 << 20
        assert noted == []
        may_read.set()
        assert [result.ending for result in await session.finish()] == [DELIVERED]
        assert noted == [True]
        assert peer.conversations[0].messages == [body]


@on_both_loops
async def test_peer_that_stops_reading_times_out_before_the_end():
    """If it failed, a stuck peer would hold a connection for ever, or leave outcomes unknown that are known."""
    body = (b"x" * 76 + b"\r\n") * 200_000 + b".\r\n"

    async def script(talk):
        await talk.open()
        await talk.hear(b"MAIL ", b"RCPT ", b"DATA")
        talk.say(b"250 a\r\n250 b\r\n354 go\r\n")
        talk.writer.transport.pause_reading()
        await asyncio.sleep(30)

    async with run_session(script, timeouts={"data_block": 0.2}) as (_peer, session):
        (result,) = await deliver(session, body=body)
        assert result.ending is LOST
        assert result.why == "the peer took no part of the message within 0.2 s"


@on_both_loops
async def test_peer_that_stops_a_large_message_early():
    """If it failed, a peer's clear word on a message that is too large would be lost."""
    body = (b"x" * 76 + b"\r\n") * 200_000 + b".\r\n"

    async def script(talk):
        await talk.open()
        await talk.hear(b"MAIL ", b"RCPT ", b"DATA")
        talk.say(b"250 a\r\n250 b\r\n354 go\r\n")
        await talk.reader.readexactly(100_000)
        talk.say(b"552 5.3.4 too large\r\n")
        await talk.hang()

    async with run_session(script) as (_peer, session):
        (result,) = await deliver(session, body=body)
        assert (result.ending, str(result.reply)) == (PERMANENT, "552 5.3.4 too large")
        assert not session.usable


@on_both_loops
async def test_slow_stages_within_their_limits_pass():
    """If it failed, the one timer would fire for a stage that had been over long ago."""

    async def script(talk):
        await talk.open()
        for _ in range(3):
            await talk.hear(b"MAIL ", b"RCPT ", b"DATA")
            for reply in (b"250 a\r\n", b"250 b\r\n", b"354 go\r\n"):
                await asyncio.sleep(0.15)
                talk.say(reply)
            await talk.hear_message()
            await asyncio.sleep(0.4)
            talk.say(b"250 ok\r\n")
        await talk.hang()

    limits = {"mail": 2.0, "rcpt": 2.0, "data": 2.0, "data_end": 3.0, "quit": 0.2}
    async with run_session(script, timeouts=limits) as (_peer, session):
        for _ in range(3):
            assert [result.ending for result in await deliver(session)] == [DELIVERED]
        await asyncio.sleep(0.3)
        assert session.usable


@on_both_loops
async def test_a_reply_in_drops_gets_no_extra_time():
    """If it failed, a peer could hold a connection for days, an octet at a time."""

    async def script(talk):
        await talk.open()
        await talk.hear(b"MAIL ", b"RCPT ", b"DATA")
        talk.say(b"250 a\r\n250 b\r\n354 go\r\n")
        await talk.hear_message()
        while True:
            for octet in b"250-more\r\n":
                talk.say(bytes([octet]))
                await asyncio.sleep(0.02)

    async with run_session(script, timeouts={"data_end": 0.3}) as (_peer, session):
        (result,) = await asyncio.wait_for(deliver(session), 3)
        assert (result.ending, result.why) == (LOST_AFTER_END, "no reply to the end of the message within 0.3 s")


@on_both_loops
async def test_cancelled_finish_aborts_the_connection():
    """If it failed, a cancelled delivery could go on behind our back."""
    gone = asyncio.Event()

    async def script(talk):
        await talk.open()
        await talk.hear(b"MAIL ", b"RCPT ", b"DATA")
        try:
            await talk.hang()
        finally:
            gone.set()

    async with run_session(script) as (_peer, session):
        session.begin(make_delivery())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.finish(), 0.1)
        await asyncio.wait_for(gone.wait(), 5)
        assert not session.usable


@on_both_loops
async def test_two_transactions_at_once_are_our_mistake():
    """If it failed, two messages could be mixed on one session."""

    async def script(talk):
        await talk.open()
        await talk.hang()

    async with run_session(script) as (_peer, session):
        session.begin(make_delivery())
        first = session.finish()
        with pytest.raises(OutOfTurn):
            session.begin(make_delivery())
        session.abort()
        assert [result.ending for result in await first] == [LOST]


@pytest.mark.parametrize("answer", [b"", b"221 bye\r\n", b"garbage\r\n", None])
@on_both_loops
async def test_quit_ends_whatever_the_peer_does(answer):
    """If it failed, the daemon's end would hang on a peer's manners."""

    async def script(talk):
        await talk.open()
        await talk.hear(b"QUIT")
        if answer is None:
            await talk.hang()
        talk.say(answer)

    async with run_session(script, timeouts={"quit": 0.1}) as (_peer, session):
        await asyncio.wait_for(session.quit(), 5)
        assert not session.usable
        await session.quit()


# -- opening ----------------------------------------------------------------------------------------------------------


async def _greet_late(talk):
    await talk.hang()


async def _close_at_once(_talk):
    pass


def greet(*parts):
    """A script that says the parts in turn, each after a line of the client, and then hangs."""

    async def script(talk):
        talk.say(parts[0])
        for part in parts[1:]:
            await talk.reader.readline()
            talk.say(part)
        await talk.hang()

    return script


@pytest.mark.parametrize(
    ("script", "reply"),
    [
        (_greet_late, "451 4.4.2 greeting: time-out"),
        (_close_at_once, "451 4.4.2 greeting: connection lost"),
        (greet(b"421 4.3.2 too busy\r\n"), "421 4.3.2 too busy"),
        (greet(b"554 5.7.1 go away\r\n"), "554 5.7.1 go away"),
        (greet(b"220-hello\r\n450 you\r\n"), "450 hello you"),
        (greet(b"SSH-2.0-OpenSSH_9.2\r\n"), "451 4.5.0 greeting: a reply that makes no sense: "),
        (greet(b"220 hello\r\n250 spoken too soon\r\n"), "451 4.5.0 greeting: the peer spoke out of turn"),
        (greet(b"220 " + b"x" * 100_000), "451 4.5.0 greeting: a reply that makes no sense: "),
        (greet(b"220 hello\r\n", b"421 4.3.2 no\r\n"), "421 4.3.2 no"),
        (greet(b"220 hello\r\n", b"450 4.7.1 no\r\n"), "450 4.7.1 no"),
        (greet(b"220 hello\r\n", b"500 what?\r\n", b"550 5.7.1 no HELO\r\n"), "550 5.7.1 no HELO"),
        (greet(b"220 hello\r\n", b""), "451 4.4.2 EHLO: time-out"),
        (greet(b"220 hello\r\n", EHLO + b"250 more\r\n"), "451 4.5.0 EHLO: the peer spoke out of turn"),
    ],
)
@on_both_loops
async def test_a_peer_that_can_not_be_opened_is_put_off(script, reply):
    """If it failed, a sick host would bounce mail, or a session out of step would be used."""
    async with run_relay(script, timeouts={"greeting": 0.3, "ehlo": 0.3}) as (peer, relay):
        with pytest.raises(TransientFailure) as failure:
            await relay.connect("x.example", "x.example")
        assert str(failure.value.reply).startswith(reply)
        assert failure.value.peer == f"127.0.0.1[127.0.0.1]:{peer.port}"


@on_both_loops
async def test_helo_is_enough():
    """If it failed, mail for the oldest of peers would never leave."""

    async def script(talk):
        talk.say(b"220 hello\r\n")
        await talk.hear(b"EHLO ")
        talk.say(b"502 what?\r\n")
        await talk.hear(b"HELO client.test")
        talk.say(b"250 hello\r\n")
        for reply in (b"250 a\r\n", b"250 b\r\n", b"354 go\r\n"):
            await talk.reader.readline()
            talk.say(reply)
        await talk.hear_message()
        talk.say(b"250 ok\r\n")

    async with run_session(script) as (_peer, session):
        assert [result.ending for result in await deliver(session)] == [DELIVERED]


@on_both_loops
async def test_cancelled_connect_leaves_nothing_open():
    """If it failed, each shutdown or reload could leak connections."""
    gone = asyncio.Event()

    async def script(talk):
        try:
            await talk.hang()
        finally:
            gone.set()

    async with run_relay(script) as (_peer, relay):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(relay.connect("x.example", "x.example"), 0.1)
        await asyncio.wait_for(gone.wait(), 5)


@on_both_loops
async def test_hosts_of_a_static_route_take_turns(free_port):
    """If it failed, one smart host would carry all the load, or a dead one would stop the lane."""

    async def script(talk):
        await talk.open()
        await talk.hang()

    async with run_smtp_peer(script) as first, run_smtp_peer(script) as second:
        settings = make_settings(first.port, free_port, second.port)
        relay = SmtpRelay(lambda: settings)
        ports = []
        for _ in range(6):
            session = await relay.connect("x.example", "x.example")
            ports.append(int(session.peer.rpartition(":")[2]))
            session.abort()
        # the dead one's turns fall to the next
        assert ports == [first.port, second.port, second.port] * 2


@on_both_loops
async def test_no_more_hosts_are_tried_than_the_settings_say(take_port):
    """If it failed, one attempt could go through dozens of dead hosts while its messages wait."""
    reached = []

    async def script(_talk):
        reached.append(True)

    async with run_smtp_peer(script) as peer:
        settings = make_settings(take_port(), take_port(), peer.port, max_connections_per_attempt=2)
        relay = SmtpRelay(lambda: settings)
        with pytest.raises(TransientFailure) as failure:
            await relay.connect("x.example", "x.example")
        assert str(failure.value.reply) == "450 4.4.1 no connection: Connection refused"
        assert not reached


@on_both_loops
async def test_addresses_without_a_way_are_not_counted_as_tries():
    """If it failed, a machine without IPv6 would use up its tries on addresses that it can't reach at all."""

    async def script(talk):
        await talk.open()
        await talk.hang()

    async with run_smtp_peer(script) as peer:
        # Linux has no route for TCP to these two: the network is unreachable, as IPv6 is where there is none
        route = (("255.255.255.255", 25), ("224.0.0.1", 25), ("127.0.0.1", peer.port))
        settings = Settings(
            delivery=DeliverySettings(max_connections_per_attempt=1), lane={"*": LaneSettings(route=route)}
        )
        session = await SmtpRelay(lambda: settings).connect("x.example", "x.example")
        assert session.usable
        session.abort()
