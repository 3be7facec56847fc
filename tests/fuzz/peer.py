"""What a peer says, to the relay's replies and its dialogue: any octets, in any pieces, at any moment.

Each recipient gets exactly one result, and is delivered only if the peer said 2yz to it and to the final dot, after
the final dot was handed to the transport.
"""

from __future__ import annotations

from mtactl.relay.commands import Offers
from mtactl.relay.replies import MAX_LINE, MAX_LINES, MAX_REPLY, ReplyReader
from mtactl.relay.transaction import Dialogue, Finished, Left
from mtactl.schedule.ports import Delivery, Ending, Rcpt
from tests.fuzz import reference
from tests.fuzz.pieces import cut

BODY = b"Subject: x\r\n\r\n..body\r\n.\r\n"
_TAKEN = b"250 ok\r\n250 2.1.5 ok\r\n354 go\r\n250 2.0.0 taken\r\n"
SEEDS = tuple(
    bytes([flags, 3]) + octets
    for flags in (0x00, 0x09, 0x16, 0x2F, 0x31, 0x0C, 0x3C)
    for octets in (
        _TAKEN * 3,
        b"250 ok\n" * 3 + b"354-a\r\n354 b\r\n" + _TAKEN,
        b"250 ok\r\n550 5.1.1 no\r\n450-4.2.1 a\r\n450 4.2.1 b\r\n354 go\r\n451 later\r\n",
        b"550 no\r\n503 no\r\n503 no\r\n250 RSET\r\n" + _TAKEN,
        b"250 ok\r\n250 ok\r\n354 go\r\n421 4.3.2 bye\r\n",
        b"250 ok\r\n550 no\r\n550 no\r\n354 go\r\n250 empty\r\n" + _TAKEN,
        b"250 ok\r\n552 too many\r\n250 ok\r\n452 full\r\n250 ok\r\n",
        b"250-\r\n250-\r\n250\r\n" + b"250-x\r\n" * 520 + b"250 x\r\n",
        b"x" * 2050 + b"\r\n250 ok\r\n",
    )
)
WORDS = (
    *(
        b"250 ",
        b"250-",
        b"354 ",
        b"421 ",
        b"450 ",
        b"550 ",
        b"552 ",
        b"554-",
        b"220 ",
        b"100 ",
        b"999 ",
        b"\r\n",
        b"\n",
    ),
    *(b"2.0.0 ", b"5.1.1 ", b"4.2.1 ", b"250 ok\r\n", b"354 go\r\n", b"\r\r\n", b"\x00", b"\xff", b"\x1b[2J", _TAKEN),
)


class Witness:
    """One transaction, seen from outside: what was written, what was heard, in which order."""

    def __init__(self, recipients: int, *, freshened: bool) -> None:
        self.recipients = recipients
        self.freshened = freshened  # RSET goes first, and its reply comes first
        self.written = b""
        self.heard = b""
        self.heard_at_end: int | None = None  # octets of the peer, when the last of the message was taken
        self.endings = 0
        self.results: tuple | None = None

    def delivery(self) -> Delivery:
        return Delivery(
            reverse_path="a@example.com",
            recipients=tuple(Rcpt(address=f"r{number}@example.net") for number in range(self.recipients)),
            body=BODY,
            eight_bit=False,
            smtputf8=False,
            ret=None,
            envid=None,
            on_ending=self.note_ending,
        )

    def note_ending(self) -> None:
        self.endings += 1
        self.heard_at_end = len(self.heard)

    def check(self, pipelining: bool) -> None:
        """Compare the results with what was said and heard."""
        assert self.results is not None and len(self.results) == self.recipients
        assert self.endings <= 1
        assert self.written.count(BODY) == self.endings
        replies, _ = reference.read_replies(self.heard, max_line=MAX_LINE, max_lines=MAX_LINES, max_reply=MAX_REPLY)
        digits = [code // 100 for code, _ in replies]
        codes = [code for code, _ in replies]
        start = 1 if self.freshened else 0
        mail, rcpts = digits[start : start + 1], digits[start + 1 : start + 1 + self.recipients]
        data, end = (digits[start + 1 + self.recipients + at :][:1] for at in (0, 1))
        if self.endings:
            assert mail == [2] and 2 in rcpts and data == [3], digits
        for number, result in enumerate(self.results):
            assert result is not None
            if result.reply is not None:
                assert f"{result.reply}".isprintable()
                assert result.reply.code in codes
            match result.ending:
                case Ending.DELIVERED:
                    assert self.endings == 1 and rcpts[number] == 2 and end == [2], digits
                    assert result.reply.code // 100 == 2
                    whole = reference.read_replies(
                        self.heard[: self.heard_at_end], max_line=MAX_LINE, max_lines=MAX_LINES, max_reply=MAX_REPLY
                    )[0]
                    assert len(whole) == start + self.recipients + 2, "the end was answered before it was written"
                case Ending.PERMANENT:
                    assert result.reply.code // 100 == 5
                case Ending.TRANSIENT:
                    assert result.reply.code // 100 == 4 or result.reply.code == 552
                case Ending.LOST:
                    assert result.reply is None and result.why and self.endings == 0
                case Ending.LOST_AFTER_END:
                    assert result.reply is None and result.why and self.endings == 1
        if self.endings and len(digits) > start + self.recipients + 2 - 1 and end and end[0] in {2, 4, 5}:
            # Who was taken at RCPT shares the fate of the message; nobody is left without an answer that came.
            taken = {result.ending for number, result in enumerate(self.results) if rcpts[number] == 2}
            assert taken <= {Ending.DELIVERED, Ending.TRANSIENT, Ending.PERMANENT}, taken
            assert len(taken) == 1


def check(data: bytes) -> None:
    """Feed a peer's octets to a reader and to a dialogue. Raises AssertionError.

    The first octet says whether PIPELINING is on, how many recipients there are and how the stream is cut.
    """
    if len(data) < 2:
        return
    flags, seed, octets = data[0], data[1], data[2:]
    check_reader(octets, flags >> 4, seed)
    check_dialogue(octets, pipelining=bool(flags & 1), recipients=1 + (flags >> 1 & 3), manner=flags >> 4, seed=seed)


def check_reader(octets: bytes, manner: int, seed: int) -> None:
    """Compare the replies that are read, in any pieces, with the second opinion."""
    reader = ReplyReader()
    answers = []
    for piece in cut(octets, manner, seed):
        if reader.garbage:
            break
        answers += reader.read(piece)
        assert reader.garbage or len(reader._buffer) < MAX_LINE
        assert reader._octets <= MAX_REPLY + MAX_LINE and len(reader._lines) <= MAX_LINES + 1
    expected, garbage = reference.read_replies(octets, max_line=MAX_LINE, max_lines=MAX_LINES, max_reply=MAX_REPLY)
    assert [(answer.code, answer.lines) for answer in answers] == expected
    assert bool(reader.garbage) == garbage, reader.garbage
    assert reader.garbage.isprintable()
    for answer in answers:
        assert str(answer.to_reply()).isprintable() and str(answer.to_reply()).isascii()


def check_dialogue(octets: bytes, *, pipelining: bool, recipients: int, manner: int, seed: int) -> None:
    """Make one transaction after the other, as long as the peer has something to say."""
    dialogue = Dialogue(Offers(pipelining=pipelining))
    witness: Witness | None = None
    left = 0

    def write() -> None:
        while chunk := dialogue.data_to_send():
            assert witness is not None
            witness.written += bytes(chunk)

    def take(events: list) -> None:
        nonlocal witness, left
        for event in events:
            if isinstance(event, Finished):
                assert witness is not None and witness.results is None
                witness.results = event.results
                witness.check(pipelining)
                witness = None
            else:
                assert isinstance(event, Left) and event.why.isprintable()
                left += 1

    for piece in cut(octets, manner, seed):
        if dialogue.idle and witness is None:
            begun = Witness(recipients, freshened=False)
            dialogue.begin(begun.delivery())
            witness = begun
            write()
            witness.freshened = witness.written.startswith(b"RSET\r\n")
            assert witness.written.removeprefix(b"RSET\r\n").startswith(b"MAIL FROM:<a@example.com>\r\n")
        if witness is not None:
            witness.heard += piece
        take(dialogue.receive_data(piece))
        if dialogue.closed:
            break
        write()
    take(dialogue.lose("the end"))
    assert witness is None, "a transaction without a result"
    assert dialogue.closed and left == 1
    assert dialogue.receive_data(b"250 ok\r\n") == [] and dialogue.lose("again") == []
