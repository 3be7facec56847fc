"""The SMTP transaction protocol, without any I/O: bytes in, bytes out."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtactl.message.reply import Reply
from mtactl.relay.commands import Offers
from mtactl.relay.transaction import PIECE, Dialogue, Finished, Left, OutOfTurn, Phase
from mtactl.schedule.ports import Delivery, Ending, Rcpt

BODY = b"Subject: x\r\n\r\n..dot\r\n.\r\n"
PIPELINING = Offers(pipelining=True)
PLAIN = Offers()


def make_delivery(recipients=1, body=BODY, on_ending=lambda: None, **more) -> Delivery:
    values = {"eight_bit": False, "smtputf8": False, "ret": None, "envid": None, **more}
    return Delivery(
        reverse_path="sender@example.com",
        recipients=tuple(Rcpt(address=f"r{number}@example.net") for number in range(recipients)),
        body=body,
        on_ending=on_ending,
        **values,
    )


@dataclass
class Run:
    """A dialogue with a peer that answers each write by the next part of its script."""

    dialogue: Dialogue
    written: bytes = b""
    writes: list[bytes] = field(default_factory=list)
    endings: int = 0
    written_at_ending: int = -1
    results: tuple = ()
    left: Left | None = None

    def note_ending(self) -> None:
        self.endings += 1
        self.written_at_ending = len(self.written)

    def take_output(self) -> bytes:
        taken = b""
        while octets := self.dialogue.data_to_send():
            self.written += octets
            taken += octets
        if taken:
            self.writes.append(taken)
        return taken

    def take_events(self, events) -> None:
        for event in events:
            if isinstance(event, Finished):
                assert not self.results, "a transaction finished twice"
                self.results = event.results
            else:
                assert self.left is None, "the session was left twice"
                self.left = event

    def feed(self, data: bytes, cuts=()) -> None:
        edges = [0, *sorted(cuts), len(data)]
        for start, end in pairwise(edges):
            if start != end:
                self.take_events(self.dialogue.receive_data(data[start:end]))
                self.take_output()

    @property
    def endings_of(self):
        return [result.ending for result in self.results]

    @property
    def codes(self):
        return [result.reply.code if result.reply else None for result in self.results]


def converse(offers, script, recipients=1, cut=lambda part: (), body=BODY, **more) -> Run:
    """Run one transaction; each part of the script is what the peer says once we have written something."""
    run = Run(Dialogue(offers))
    run.dialogue.begin(make_delivery(recipients, body, on_ending=run.note_ending, **more))
    run.take_output()
    for part in script:
        run.feed(part, cut(part))
    return run


D, P, T, L, LE = Ending.DELIVERED, Ending.PERMANENT, Ending.TRANSIENT, Ending.LOST, Ending.LOST_AFTER_END
OK = b"250 2.1.0 Ok\r\n"
GO = b"354 go on\r\n"
END_OK = b"250 2.0.0 queued\r\n"
NONE = [None, None]

# name, recipients, script, endings, codes, phase after
PIPELINED = [
    ("delivered", 2, [OK * 3 + GO, END_OK], [D, D], [250, 250], Phase.IDLE),
    ("reply in lines", 1, [b"250-a\r\n250 b\r\n" + OK + GO, END_OK], [D], [250], Phase.IDLE),
    ("bare digits and bare LF", 1, [b"250\n250\n354\n", b"250\n"], [D], [250], Phase.IDLE),
    ("251 is a yes", 1, [OK + b"251 will forward\r\n" + GO, END_OK], [D], [250], Phase.IDLE),
    ("one of two refused", 2, [OK + b"550 no\r\n" + OK + GO, END_OK], [P, D], [550, 250], Phase.IDLE),
    ("one of two later", 2, [OK * 2 + b"450 no\r\n" + GO, END_OK], [D, T], [250, 450], Phase.IDLE),
    ("552 at RCPT means later", 2, [OK * 2 + b"552 many\r\n" + GO, END_OK], [D, T], [250, 552], Phase.IDLE),
    ("552 at the end is for good", 1, [OK * 2 + GO, b"552 too big\r\n"], [P], [552], Phase.IDLE),
    ("all refused, DATA refused", 2, [OK + b"550 a\r\n551 b\r\n554 none\r\n"], [P, P], [550, 551], Phase.IDLE),
    ("all refused, yet 354", 2, [OK + b"550 a\r\n450 b\r\n" + GO, b"554 none\r\n"], [P, T], [550, 450], Phase.IDLE),
    ("all refused, 354, accepted", 1, [OK + b"550 a\r\n" + GO, OK], [P], [550], Phase.IDLE),
    ("MAIL later", 2, [b"451 x\r\n" + b"503 y\r\n" * 3], [T, T], [451, 451], Phase.IDLE),
    ("MAIL refused", 1, [b"550 x\r\n" + b"503 y\r\n" * 2], [P], [550], Phase.IDLE),
    ("MAIL refused, yet 354", 1, [b"550 x\r\n503 y\r\n" + GO, b"554 z\r\n"], [P], [550], Phase.IDLE),
    ("MAIL refused, RCPT not, 354", 1, [b"550 x\r\n" + OK + GO], [P], [550], Phase.CLOSED),
    ("MAIL refused, RCPT not", 1, [b"550 x\r\n" + OK + b"503 y\r\n"], [P], [550], Phase.IDLE),
    ("DATA refused", 2, [OK + b"550 a\r\n" + OK + b"451 later\r\n", OK], [P, T], [550, 451], Phase.IDLE),
    ("DATA and RSET refused", 2, [OK + b"550 a\r\n" + OK + b"451 b\r\n", b"502 c\r\n"], [L] * 2, NONE, Phase.CLOSED),
    ("two replies to MAIL", 3, [OK * 3 + b"550 b\r\n450 c\r\n" + GO], [L] * 3, [None] * 3, Phase.CLOSED),
    ("two replies to MAIL, late", 3, [OK * 3 + b"550 b\r\n450 c\r\n", GO], [L] * 3, [None] * 3, Phase.CLOSED),
    ("no reply to MAIL", 3, [OK + b"550 b\r\n450 c\r\n" + GO], [L] * 3, [None] * 3, Phase.CLOSED),
    ("no reply to the last RCPT", 2, [OK + b"550 a\r\n" + GO], [L] * 2, NONE, Phase.CLOSED),
    ("the end refused", 2, [OK * 3 + GO, b"554 spam\r\n"], [P, P], [554, 554], Phase.IDLE),
    ("the end later", 1, [OK * 2 + GO, b"451 busy\r\n"], [T], [451], Phase.IDLE),
    ("421 at MAIL", 2, [b"421 bye\r\n"], [T, T], [421, 421], Phase.CLOSED),
    ("421 at RCPT", 3, [OK * 2 + b"550 a\r\n421 bye\r\n"], [T, P, T], [421, 550, 421], Phase.CLOSED),
    ("421 at DATA", 1, [OK * 2 + b"421 bye\r\n"], [T], [421], Phase.CLOSED),
    ("421 at the end", 1, [OK * 2 + GO, b"421 bye\r\n"], [T], [421], Phase.CLOSED),
    ("421 after the end's reply", 1, [OK * 2 + GO, END_OK + b"421 bye\r\n"], [D], [250], Phase.CLOSED),
    ("too many replies", 1, [OK * 2 + GO, END_OK + OK], [D], [250], Phase.CLOSED),
    ("a second reply to MAIL", 1, [OK * 3 + GO], [L], [None], Phase.CLOSED),
    ("3yz to MAIL", 1, [GO], [L], [None], Phase.CLOSED),
    ("1yz to RCPT", 2, [OK + b"550 a\r\n" + b"150 hm\r\n"], [L, L], [None, None], Phase.CLOSED),
    ("2yz to DATA", 1, [OK * 3], [L], [None], Phase.CLOSED),
    ("3yz after the end", 1, [OK * 2 + GO, GO], [LE], [None], Phase.CLOSED),
    ("1yz after the end", 1, [OK * 2 + GO, b"150 hm\r\n"], [LE], [None], Phase.CLOSED),
    ("6yz after the end", 1, [OK * 2 + GO, b"650 hm\r\n"], [LE], [None], Phase.CLOSED),
    ("garbage at MAIL", 1, [b"hello\r\n"], [L], [None], Phase.CLOSED),
    ("garbage after the end", 2, [OK + b"550 a\r\n" + OK + GO, b"\x00\xff\r\n"], [P, LE], [550, None], Phase.CLOSED),
    ("codes that change in a reply", 1, [b"250-a\r\n251 b\r\n"], [L], [None], Phase.CLOSED),
    ("a wrong separator", 1, [b"250+a\r\n"], [L], [None], Phase.CLOSED),
    ("digits of another script", 1, ["²٢2 a\r\n".encode()], [L], [None], Phase.CLOSED),
    ("an endless line", 1, [b"250 " + b"a" * 2048], [L], [None], Phase.CLOSED),
    ("too many lines", 1, [b"250-a\r\n" * 513], [L], [None], Phase.CLOSED),
    ("too long a reply", 1, [(b"250-" + b"a" * 2000 + b"\r\n") * 34], [L], [None], Phase.CLOSED),
    ("a long reply that is not too long", 1, [b"250-a\r\n" * 511 + OK + OK + GO, END_OK], [D], [250], Phase.IDLE),
]

RSET_OK = b"250 reset\r\n"
ONE_BY_ONE = [
    ("delivered", 2, [OK, OK, OK, GO, END_OK], [D, D], [250, 250], Phase.IDLE),
    ("one refused", 2, [OK, b"550 a\r\n", OK, GO, END_OK], [P, D], [550, 250], Phase.IDLE),
    ("all refused", 2, [OK, b"550 a\r\n", b"552 b\r\n", RSET_OK], [P, T], [550, 552], Phase.IDLE),
    ("MAIL refused", 2, [b"550 a\r\n", RSET_OK], [P, P], [550, 550], Phase.IDLE),
    ("DATA refused", 1, [OK, OK, b"451 a\r\n", RSET_OK], [T], [451], Phase.IDLE),
    ("RSET refused", 1, [b"550 a\r\n", b"502 what\r\n"], [P], [550], Phase.CLOSED),
    ("421 at RSET", 1, [b"550 a\r\n", b"421 bye\r\n"], [P], [550], Phase.CLOSED),
    ("421 at RCPT", 3, [OK, b"550 a\r\n", b"421 bye\r\n"], [P, T, T], [550, 421, 421], Phase.CLOSED),
    ("two replies at MAIL", 2, [OK + OK, OK, OK], [L, L], [None, None], Phase.CLOSED),
    ("garbage at DATA", 1, [OK, OK, b"25\r\n"], [L], [None], Phase.CLOSED),
    ("the end later", 1, [OK, OK, GO, b"450 a\r\n"], [T], [450], Phase.IDLE),
]

CASES = [pytest.param(PIPELINING, *case[1:], id=f"pipelined: {case[0]}") for case in PIPELINED]
CASES += [pytest.param(PLAIN, *case[1:], id=f"one by one: {case[0]}") for case in ONE_BY_ONE]


@pytest.mark.parametrize(("offers", "recipients", "script", "endings", "codes", "phase"), CASES)
def test_script_gives_results(offers, recipients, script, endings, codes, phase):
    """If it failed, a peer's replies would be booked to the wrong recipients or as the wrong outcome."""
    run = converse(offers, script, recipients)
    assert run.endings_of == endings
    assert run.codes == codes
    assert run.dialogue.phase is phase
    assert (run.left is not None) == (phase is Phase.CLOSED)


@pytest.mark.parametrize(("offers", "recipients", "script", "endings", "codes", "phase"), CASES)
@given(data=st.data())
def test_splits_change_nothing(offers, recipients, script, endings, codes, phase, data):
    """If it failed, a result would depend on how TCP cut the peer's octets."""

    def cut(part):
        return data.draw(st.lists(st.integers(0, len(part)), max_size=4))

    run = converse(offers, script, recipients, cut)
    assert (run.endings_of, run.codes, run.dialogue.phase) == (endings, codes, phase)


@pytest.mark.parametrize(("offers", "recipients", "script", "endings", "codes", "phase"), CASES)
def test_single_octets_change_nothing(offers, recipients, script, endings, codes, phase):
    """If it failed, a peer that writes octet by octet would be misread."""
    run = converse(offers, script, recipients, cut=lambda part: range(len(part)))
    assert (run.endings_of, run.codes, run.dialogue.phase) == (endings, codes, phase)


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.builds(
                lambda code, more, text: b"%d%s%s\r\n" % (code, more, text),
                st.sampled_from([150, 220, 250, 354, 421, 450, 550, 552, 999]),
                st.sampled_from([b" ", b"-"]),
                st.binary(max_size=5).filter(lambda text: b"\n" not in text),
            ),
        ),
        max_size=12,
    ),
    st.integers(1, 4),
    st.booleans(),
)
def test_any_peer_leaves_exact_books(chunks, recipients, pipelining):
    """If it failed, some peer could make us lose a recipient, claim a delivery that was not, or raise."""
    run = converse(Offers(pipelining=pipelining), chunks, recipients)
    run.take_events(run.dialogue.lose("the connection was lost"))
    assert len(run.results) == recipients
    assert run.dialogue.phase is Phase.CLOSED
    assert run.left is not None
    for result in run.results:
        if result.ending in (D, LE):
            assert run.endings == 1
        if result.ending is L:
            assert run.endings == 0
        assert (result.reply is None) == (result.ending in (L, LE))
        assert bool(result.why) == (result.reply is None)
        if result.reply is not None:
            assert {D: 2, T: 4, P: 5}[result.ending] == result.reply.code // 100 or result.reply.code == 552


def test_pipelining_writes_all_in_one_and_the_body_once():
    """If it failed, a message would cost more round trips than RFC 2920 needs."""
    run = converse(PIPELINING, [OK * 3 + GO, END_OK], 2)
    assert run.writes == [
        b"MAIL FROM:<sender@example.com>\r\nRCPT TO:<r0@example.net>\r\nRCPT TO:<r1@example.net>\r\nDATA\r\n",
        BODY,
    ]


def test_one_by_one_writes_a_command_at_a_time():
    """If it failed, a peer without PIPELINING would be sent more than it can take."""
    run = converse(PLAIN, [OK, OK, OK, GO, END_OK], 2)
    assert run.writes == [
        b"MAIL FROM:<sender@example.com>\r\n",
        b"RCPT TO:<r0@example.net>\r\n",
        b"RCPT TO:<r1@example.net>\r\n",
        b"DATA\r\n",
        BODY,
    ]


def test_an_answer_to_what_is_not_yet_said_ends_the_session():
    """If it failed, a second reply to MAIL would count for RCPT, and each reply from then on for the wrong command."""
    run = converse(PLAIN, [OK * 2 + GO, END_OK])
    assert run.endings_of == [L]
    assert run.writes == [b"MAIL FROM:<sender@example.com>\r\n"]
    assert run.endings == 0


SAME = OK * 3 + GO


@pytest.mark.parametrize(
    ("second", "endings"),
    [
        ([SAME, END_OK], [D, D]),
        ([OK * 2 + b"550 no\r\n" + GO, END_OK], [D, P]),
        ([OK * 2 + b"450 no\r\n" + GO, b"554 no\r\n"], [P, T]),
        ([SAME, b"451 later\r\n"], [T, T]),
        ([SAME + b"451 later\r\n"], [T, T]),
        ([SAME[:-2], b"\r\n", END_OK], [D, D]),
        ([OK * 3 + b"550 no\r\n"], [P, P]),
    ],
)
def test_a_known_burst_is_taken_for_what_it_is(second, endings):
    """If it failed, the answers to one envelope would be booked to the next, which the peer answered otherwise."""
    run = converse(PIPELINING, [SAME, END_OK], 2)
    for script, expected in ((second, endings), ([SAME, END_OK], [D, D])):
        if not run.dialogue.idle:
            return  # a peer that said too much
        run.results, run.endings = (), 0
        run.dialogue.begin(make_delivery(2, on_ending=run.note_ending))
        run.take_output()
        if run.dialogue.phase is Phase.FRESHEN:
            run.feed(b"250 reset\r\n")
        for part in script:
            run.feed(part)
        assert run.endings_of == expected
        assert run.endings == run.written.endswith(BODY)


@pytest.mark.parametrize("recipients", [1, 3])
def test_a_known_burst_for_another_number_of_recipients(recipients):
    """If it failed, DATA's reply would be taken for a recipient's, or the other way round."""
    run = converse(PIPELINING, [SAME, END_OK], 2)
    run.results = ()
    run.dialogue.begin(make_delivery(recipients))
    run.take_output()
    run.feed(SAME)
    if recipients == 1:
        assert run.endings_of == [L]
    else:
        run.feed(OK)
        assert run.endings_of == [L] * 3
    assert run.left is not None


def test_all_refused_and_354_gets_an_empty_message():
    """If it failed, a message would be handed to a peer that accepted no recipient of it (RFC 2920 §3.1)."""
    run = converse(PIPELINING, [OK + b"550 a\r\n" + GO, b"554 none\r\n"])
    assert run.writes[1:] == [b".\r\n"]
    assert run.endings == 0


def test_refused_mail_with_an_accepted_recipient_gets_nothing_more():
    """If it failed, an empty message could be delivered in place of ours."""
    run = converse(PIPELINING, [b"550 x\r\n" + OK + GO])
    assert len(run.writes) == 1


@pytest.mark.parametrize(
    "script",
    [[OK + b"550 a\r\n554 none\r\n"], [b"550 x\r\n503 y\r\n503 z\r\n"], [OK * 2 + b"451 later\r\n"]],
    ids=["rcpt", "mail", "data"],
)
def test_rset_goes_in_front_of_the_next_mail(script):
    """If it failed, the next message could be refused as a nested MAIL, or join the last one's envelope."""
    run = converse(PIPELINING, script)
    run.results = ()
    run.dialogue.begin(make_delivery())
    assert run.take_output().startswith(b"RSET\r\nMAIL FROM:")
    run.feed(b"250 reset\r\n" + OK * 2 + GO)
    run.feed(END_OK)
    assert run.endings_of == [D]
    run.dialogue.begin(make_delivery())
    assert run.take_output().startswith(b"MAIL FROM:")


def test_refused_rset_loses_the_transaction_before_its_end():
    """If it failed, the 503 to the next MAIL would bounce an innocent message."""
    run = converse(PIPELINING, [b"550 x\r\n503 y\r\n503 z\r\n"])
    run.results = ()
    run.dialogue.begin(make_delivery())
    run.take_output()
    run.feed(b"502 no RSET here\r\n503 nested\r\n")
    assert run.endings_of == [L]
    assert run.left is not None


def test_no_rset_after_an_end_that_was_answered():
    """If it failed, each refused message would cost a command for nothing."""
    run = converse(PIPELINING, [OK * 2 + GO, b"554 spam\r\n"])
    run.dialogue.begin(make_delivery())
    assert run.take_output().startswith(b"MAIL FROM:")


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 17])
def test_large_body_comes_in_pieces_and_ending_before_the_last(size):
    """If it failed, memory would not be bounded, or a crash in mid-body would count as unknown."""
    body = b"x" * (size - 5) + b"\r\n.\r\n"
    run = Run(Dialogue(PIPELINING))
    run.dialogue.begin(make_delivery(body=body, on_ending=run.note_ending))
    run.take_output()
    before = len(run.written)
    run.take_events(run.dialogue.receive_data(OK * 2 + GO))
    pieces = []
    while octets := run.dialogue.data_to_send():
        assert run.endings == (1 if sum(map(len, pieces)) + len(octets) == size else 0)
        run.written += octets
        pieces.append(bytes(octets))
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= PIECE
    assert run.written_at_ending == before + size - len(pieces[-1])


@pytest.mark.parametrize(
    ("reply", "ending"),
    [(b"552 too big\r\n", P), (b"452 full\r\n", T), (b"421 bye\r\n", T), (b"250 ok\r\n", L), (b"x\r\n", L)],
)
def test_reply_in_mid_body(reply, ending):
    """If it failed, a peer that stops a large message early would leave its outcome unknown."""
    run = Run(Dialogue(PIPELINING))
    run.dialogue.begin(make_delivery(body=b"x" * PIECE * 2 + b"\r\n.\r\n", on_ending=run.note_ending))
    run.take_output()
    run.take_events(run.dialogue.receive_data(OK * 2 + GO))
    assert len(run.dialogue.data_to_send()) == PIECE
    run.take_events(run.dialogue.receive_data(reply))
    assert run.dialogue.data_to_send() == b""
    assert run.endings_of == [ending]
    assert run.endings == 0
    assert run.left is not None


@pytest.mark.parametrize(
    ("script", "endings"),
    [
        ([], [L, L]),
        ([OK], [L, L]),
        ([OK + b"550 no\r\n"], [P, L]),
        ([OK * 2], [L, L]),
        ([OK + b"550 no\r\n" + OK + GO], [P, LE]),
        ([OK * 3 + GO, b"25"], [LE, LE]),
        ([b"451 later\r\n503"], [T, T]),
        ([OK + b"550 a\r\n550 b\r\n" + GO], [P, P]),
    ],
)
def test_lost_connection(script, endings):
    """If it failed, a lost connection would make a duplicate, or an unknown where it was known."""
    run = converse(PIPELINING, script, 2)
    run.take_events(run.dialogue.lose("cut"))
    assert run.endings_of == endings
    assert all(result.why == "cut" for result in run.results if result.reply is None)
    assert run.dialogue.lose("again") == []
    assert run.dialogue.receive_data(OK) == []


def test_421_while_idle_ends_the_session_and_nothing_else():
    """If it failed, a polite good-bye between messages would look like a refusal."""
    dialogue = Dialogue(PIPELINING)
    (left,) = dialogue.receive_data(b"421 4.3.2 shutting down\r\n")
    assert left == Left("the peer said 421 4.3.2 shutting down", Reply(421, "4.3.2", "shutting down"))


@pytest.mark.parametrize("unasked", [b"250 hi\r\n", b"2", b"\r\n"])
def test_words_while_idle_end_the_session(unasked):
    """If it failed, an unasked reply would be taken for the reply to the next MAIL."""
    dialogue = Dialogue(PIPELINING)
    (left,) = dialogue.receive_data(unasked)
    assert isinstance(left, Left)
    assert dialogue.closed


def test_quit():
    """If it failed, a session would not be ended in good order."""
    dialogue = Dialogue(PIPELINING)
    dialogue.quit()
    assert dialogue.data_to_send() == b"QUIT\r\n"
    (left,) = dialogue.receive_data(b"221 2.0.0 bye\r\n")
    assert isinstance(left, Left)


def test_a_reply_too_many_in_one_burst_bounces_nobody():
    """If it failed, a recipient would be bounced by a reply that may have been another's."""
    run = converse(PIPELINING, [OK + b"550 a\r\n550 b\r\n554 none\r\n" + OK], 2)
    assert run.endings_of == [L, L]
    assert run.left is not None


def test_our_own_mistakes_raise():
    """If it failed, two transactions could be mixed on one session."""
    dialogue = Dialogue(PIPELINING)
    with pytest.raises(ValueError, match="CRLF"):
        dialogue.begin(make_delivery(body=b"no end\r\n"))
    dialogue.begin(make_delivery())
    with pytest.raises(OutOfTurn):
        dialogue.begin(make_delivery())
    with pytest.raises(OutOfTurn):
        dialogue.quit()
