"""The client's end of SMTP mail transactions (RFC 5321 §3.3), with PIPELINING (RFC 2920). No I/O, no clock.

Octets of the peer go into `receive_data`, which gives events; octets for the peer are taken from `data_to_send`, and
who takes them hands them to the transport before anything else happens. That is what `Delivery.on_ending` rests on: it
is called when the last octets of a message are taken. Everything that moves a transaction is in TABLE; a pair of phase
and reply that it does not have means that the peer does not speak SMTP with us, and breaks the session.

What a broken or lost session does to the recipients: who had a reply that decides keeps it; the others were not
delivered (LOST) if the end of the message had not been taken, else no one can know (LOST_AFTER_END).

A peer that gives a reply too many or too few to a pipelined envelope shifts all those behind it: one recipient would be
bounced for another's sake. So when a reply does not fit the command that it would answer, none of those to the envelope
is believed, and all are LOST. Where nothing else would show it (DATA refused, though somebody was accepted and somebody
refused for good) RSET is said at once: its reply shows whether the count is right.

A reply to the final dot that is neither 2yz, 4yz nor 5yz says nothing on the message, so it is LOST_AFTER_END as well.
A 4yz or 5yz that comes while the message is being written is taken as the answer to it (a peer that won't wait for
the rest), and the session ends, as it is then unknown where the peer is in the stream.

A session sees the same burst of answers to one envelope after the other. What TABLE made of a burst that took all
recipients is therefore remembered: the same answers to as many recipients lead from MAIL to BODY in one step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from msgspec import Struct

from mtactl.message.reply import Reply
from mtactl.relay.commands import Offers, mail_command, rcpt_command
from mtactl.relay.phase import KIND_OF_DIGIT, Kind, Phase
from mtactl.relay.replies import Answer, ReplyReader
from mtactl.schedule.ports import Delivery, Ending, RecipientResult

__all__ = ["PIECE", "Dialogue", "Event", "Finished", "Left", "OutOfTurn", "Phase"]

PIECE = 256 << 10  # octets of a message taken at a time


class OutOfTurn(RuntimeError):
    """Our own side asked for a step that the phase does not allow; the peer is not to blame."""


class Finished(Struct, frozen=True, gc=False):
    """The transaction is over: the results in the order of its recipients."""

    results: tuple[RecipientResult, ...]


class Left(Struct, frozen=True, gc=False):
    """The session is of no more use, and is to be closed. `why` is for people; `reply` is the peer's 421, if any."""

    why: str
    reply: Reply | None = None


Event = Finished | Left


_ENDING_OF_KIND = {Kind.TRANSIENT: Ending.TRANSIENT, Kind.PERMANENT: Ending.PERMANENT, Kind.CLOSING: Ending.TRANSIENT}


_ENVELOPE = (Phase.FRESHEN, Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.TIDY)


class Dialogue:
    """One session, past EHLO: a transaction after the other. Our mistakes raise OutOfTurn; the peer's never raise."""

    def __init__(self, offers: Offers) -> None:
        self.offers = offers
        self.phase = Phase.IDLE
        self.steps = 0  # grows with each command, piece of a message and reply, not with a part of a reply
        self._reader = ReplyReader()
        self._outgoing = b""
        self._unclean = False  # the peer may still hold an envelope: RSET goes first
        self._delivery: Delivery | None = None
        self._results: list[RecipientResult | None] = []
        self._answered = 0  # RCPT commands
        self._accepted: list[int] = []
        self._mail_failed = False
        self._taken = 0  # octets of the message
        self._end_taken = False
        self._events: list[Event] = []
        self._smooth: Sequence[Answer] | None = None  # the burst that took all recipients

    # -- our side ---------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether a transaction may begin."""
        return self.phase is Phase.IDLE

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self.phase is Phase.CLOSED

    @property
    def stage(self) -> str:
        """Say how far the transaction is, to be put behind what went wrong; "" when none is open."""
        if self.phase in (Phase.IDLE, Phase.CLOSED):
            return ""
        if self.phase is Phase.BODY:
            return " while the message was being written"
        return f" where the reply to {self.phase.value} was awaited"

    def begin(self, delivery: Delivery) -> None:
        """Start a transaction; MAIL FROM and what may follow it (RFC 2920) is in `data_to_send` then."""
        if self.phase is not Phase.IDLE:
            raise OutOfTurn(f"a transaction was begun while {self.phase.name}")
        mail = mail_command(delivery, self.offers)
        self.steps += 1
        self._delivery = delivery
        self._results = [None] * len(delivery.recipients)
        self._answered = 0
        self._accepted = []
        self._mail_failed = False
        self._taken = 0
        self._end_taken = False
        if not self.offers.pipelining:
            self.phase = Phase.MAIL
            self._outgoing = mail
            return
        commands = [mail, *[rcpt_command(rcpt, self.offers) for rcpt in delivery.recipients], b"DATA\r\n"]
        self.phase = Phase.MAIL
        if self._unclean:
            self._unclean = False
            self.phase = Phase.FRESHEN
            commands.insert(0, b"RSET\r\n")
        self._outgoing = b"".join(commands)

    def quit(self) -> None:
        """Say QUIT; `data_to_send` has it then. Its reply, whatever it is, gives Left."""
        if self.phase is not Phase.IDLE:
            raise OutOfTurn(f"QUIT was to be said while {self.phase.name}")
        self.phase = Phase.QUIT
        self._outgoing = b"QUIT\r\n"

    def data_to_send(self) -> bytes | memoryview:
        """Take the octets that the transport is to be given now; empty when there are none.

        Call again until then, or until the transport asks for a pause.
        """
        if self._outgoing:
            outgoing, self._outgoing = self._outgoing, b""
            return outgoing
        if self.phase is not Phase.BODY or self._delivery is None:
            return b""
        self.steps += 1
        body = self._delivery.body
        taken = self._taken
        if len(body) - taken > PIECE:
            self._taken += PIECE
            return memoryview(body)[taken : self._taken]
        self._delivery.on_ending()
        self._end_taken = True
        self.phase = Phase.END
        return memoryview(body)[taken:] if taken else body

    # -- the peer's side --------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[Event]:
        """Take octets from the peer; give what came of them."""
        if self.phase is Phase.CLOSED:
            return []
        reader = self._reader
        answers = reader.read(data)
        if self.phase is Phase.MAIL and answers:
            self._take_burst(answers)
        else:
            self._take_answers(answers)
        if not self.closed:
            if reader.garbage:
                self._break(f"the peer sent {reader.garbage}{self.stage}")
            elif self.phase is Phase.IDLE and not reader.empty:
                self._break("the peer spoke out of turn", astray=True)
        return self._take_events() if self._events else []

    def lose(self, why: str) -> list[Event]:
        """Take note that no more will come from the peer, or that we won't wait for it; give what comes of that."""
        if not self.closed:
            self._break(why)
        return self._take_events()

    # -- the moves --------------------------------------------------------------------------------------------------

    def _take_burst(self, answers: Sequence[Answer]) -> None:
        """Take answers from MAIL on; in one step, if just these have led to BODY from just here."""
        assert self._delivery is not None
        whole = self.offers.pipelining and not self._outgoing and len(answers) == len(self._delivery.recipients) + 2
        if whole and answers is self._smooth:
            self.steps += len(answers)
            self.phase = Phase.BODY
            return
        self._take_answers(answers)
        if whole and self.phase is Phase.BODY and len(self._accepted) == len(self._delivery.recipients):
            self._smooth = answers

    def _take_answers(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            if self._outgoing:  # without PIPELINING: the last answer has led to a command that is not written yet
                self._break(f"the peer spoke out of turn{self.stage}", astray=True)
                return
            self._take_answer(answer)
            if self.closed:
                return

    def _take_answer(self, answer: Answer) -> None:
        self.steps += 1
        kind = Kind.CLOSING if answer.code == 421 else KIND_OF_DIGIT.get(answer.code // 100)
        move = self.TABLE.get((self.phase, kind)) if kind is not None else None
        if move is not None and kind is not None:
            move(self, answer, kind)
        elif self.phase is Phase.IDLE:
            self._break(f"the peer said {answer.to_reply()}, which answers no command", astray=True)
        else:
            self._break(f"the peer said {answer.to_reply()}{self.stage}", astray=self.phase in _ENVELOPE)

    def _freshened(self, _answer: Answer, _kind: Kind) -> None:
        self.phase = Phase.MAIL

    def _mail_accepted(self, _answer: Answer, _kind: Kind) -> None:
        self._next_rcpt()

    def _mail_refused(self, answer: Answer, kind: Kind) -> None:
        """Give all recipients the reply to MAIL. What was pipelined behind it is answered too, to be passed over."""
        self._settle_open(_result(answer, kind))
        self._mail_failed = True
        self._unclean = True
        if self.offers.pipelining:
            self.phase = Phase.RCPT
        else:
            self._tidy()

    def _rcpt_accepted(self, _answer: Answer, _kind: Kind) -> None:
        self._accepted.append(self._answered)
        self._answered += 1
        self._next_rcpt()

    def _rcpt_refused(self, answer: Answer, kind: Kind) -> None:
        """Give one recipient its reply. 552 means 'too many recipients' here (RFC 5321 §4.5.3.1.10)."""
        if not self._mail_failed:
            self._results[self._answered] = _result(answer, Kind.TRANSIENT if answer.code == 552 else kind)
        self._answered += 1
        self._next_rcpt()

    def _next_rcpt(self) -> None:
        """Await the next RCPT's reply, or DATA's after the last; without PIPELINING, send the command for it."""
        assert self._delivery is not None
        recipients = self._delivery.recipients
        if self._answered < len(recipients):
            self.phase = Phase.RCPT
            if not self.offers.pipelining:
                self._outgoing = rcpt_command(recipients[self._answered], self.offers)
        elif self.offers.pipelining:
            self.phase = Phase.DATA
        elif self._accepted:
            self.phase = Phase.DATA
            self._outgoing = b"DATA\r\n"
        else:
            self._unclean = True
            self._tidy()

    def _data_accepted(self, answer: Answer, _kind: Kind) -> None:
        if self._mail_failed and self._accepted:
            # it has recipients, for a sender that it refused: even an empty message might be delivered
            self._break(f"the peer refused MAIL, but accepted RCPT and said {answer.to_reply()} to DATA")
        elif self._accepted:
            self.phase = Phase.BODY
        else:
            self.phase = Phase.DISCARD
            self._outgoing = b".\r\n"

    def _data_refused(self, answer: Answer, kind: Kind) -> None:
        refused = any(each is not None and each.ending is Ending.PERMANENT for each in self._results)
        doubtful = bool(self._accepted) and refused and not self._mail_failed
        self._unclean = True
        self._settle_open(_result(answer, kind))
        self._tidy(now=doubtful)

    def _body_refused(self, answer: Answer, kind: Kind) -> None:
        self._settle_open(_result(answer, kind))
        self._leave(Left(f"the peer said {answer.to_reply()} before the message was written"))

    def _delivered(self, answer: Answer, _kind: Kind) -> None:
        self._settle_open(RecipientResult(Ending.DELIVERED, answer.to_reply()))
        self._conclude()

    def _end_refused(self, answer: Answer, kind: Kind) -> None:
        self._settle_open(_result(answer, kind))
        self._conclude()

    def _discarded(self, _answer: Answer, _kind: Kind) -> None:
        self._conclude()

    def _tidied(self, _answer: Answer, _kind: Kind) -> None:
        self._unclean = False
        self._conclude()

    def _reset_refused(self, answer: Answer, _kind: Kind) -> None:
        """Part with a peer that may still hold an envelope: the next MAIL would be refused for no fault of its own."""
        self._break(f"the peer said {answer.to_reply()} to RSET", astray=self.offers.pipelining)

    def _peer_leaves(self, answer: Answer, kind: Kind) -> None:
        self._settle_open(_result(answer, kind))
        reply = answer.to_reply()
        self._leave(Left(f"the peer said {reply}", reply))

    def _quit_answered(self, answer: Answer, _kind: Kind) -> None:
        self._leave(Left(f"the peer said {answer.to_reply()} to QUIT"))

    # -- what the moves share ---------------------------------------------------------------------------------------

    def _tidy(self, *, now: bool = False) -> None:
        """End a transaction that left an envelope with the peer.

        With PIPELINING the RSET travels in front of the next MAIL, unless it is wanted `now`. Without, it is sent now:
        `begin` may not wait for its reply, as the gate is checked in the tick in which MAIL is written.
        """
        if self.offers.pipelining and not now:
            self._conclude()
        else:
            self.phase = Phase.TIDY
            self._outgoing = b"RSET\r\n"

    def _settle_open(self, result: RecipientResult) -> None:
        self._results = [result if each is None else each for each in self._results]

    def _conclude(self) -> None:
        self.phase = Phase.IDLE
        self._finish()

    def _finish(self) -> None:
        if self._delivery is not None:
            self._delivery = None
            self._events.append(Finished(tuple([each for each in self._results if each is not None])))

    def _leave(self, left: Left) -> None:
        self.phase = Phase.CLOSED
        self._outgoing = b""
        self._finish()
        self._events.append(left)

    def _break(self, why: str, *, astray: bool = False) -> None:
        """End the session. `astray`: the replies to the envelope are not those to its commands, or one is too many."""
        result = RecipientResult(Ending.LOST_AFTER_END if self._end_taken else Ending.LOST, None, why)
        if astray and not (self._end_taken or self._mail_failed):
            none = (result,) * len(self._results)
            self._results = list(none)
            if self._events and isinstance(self._events[-1], Finished):
                self._events[-1] = Finished(none)  # it was finished by a reply of this very moment
        self._settle_open(result)
        self._leave(Left(why))

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    TABLE: ClassVar[Mapping[tuple[Phase, Kind], Callable[[Dialogue, Answer, Kind], None]]] = MappingProxyType(
        {
            (Phase.IDLE, Kind.CLOSING): _peer_leaves,
            (Phase.FRESHEN, Kind.DONE): _freshened,
            (Phase.FRESHEN, Kind.TRANSIENT): _reset_refused,
            (Phase.FRESHEN, Kind.PERMANENT): _reset_refused,
            (Phase.FRESHEN, Kind.CLOSING): _peer_leaves,
            (Phase.MAIL, Kind.DONE): _mail_accepted,
            (Phase.MAIL, Kind.TRANSIENT): _mail_refused,
            (Phase.MAIL, Kind.PERMANENT): _mail_refused,
            (Phase.MAIL, Kind.CLOSING): _peer_leaves,
            (Phase.RCPT, Kind.DONE): _rcpt_accepted,
            (Phase.RCPT, Kind.TRANSIENT): _rcpt_refused,
            (Phase.RCPT, Kind.PERMANENT): _rcpt_refused,
            (Phase.RCPT, Kind.CLOSING): _peer_leaves,
            (Phase.DATA, Kind.GO_AHEAD): _data_accepted,
            (Phase.DATA, Kind.TRANSIENT): _data_refused,
            (Phase.DATA, Kind.PERMANENT): _data_refused,
            (Phase.DATA, Kind.CLOSING): _peer_leaves,
            (Phase.BODY, Kind.TRANSIENT): _body_refused,
            (Phase.BODY, Kind.PERMANENT): _body_refused,
            (Phase.BODY, Kind.CLOSING): _peer_leaves,
            (Phase.END, Kind.DONE): _delivered,
            (Phase.END, Kind.TRANSIENT): _end_refused,
            (Phase.END, Kind.PERMANENT): _end_refused,
            (Phase.END, Kind.CLOSING): _peer_leaves,
            (Phase.DISCARD, Kind.DONE): _discarded,
            (Phase.DISCARD, Kind.TRANSIENT): _discarded,
            (Phase.DISCARD, Kind.PERMANENT): _discarded,
            (Phase.DISCARD, Kind.CLOSING): _peer_leaves,
            (Phase.TIDY, Kind.DONE): _tidied,
            (Phase.TIDY, Kind.TRANSIENT): _reset_refused,
            (Phase.TIDY, Kind.PERMANENT): _reset_refused,
            (Phase.TIDY, Kind.CLOSING): _peer_leaves,
            (Phase.QUIT, Kind.DONE): _quit_answered,
            (Phase.QUIT, Kind.TRANSIENT): _quit_answered,
            (Phase.QUIT, Kind.PERMANENT): _quit_answered,
            (Phase.QUIT, Kind.CLOSING): _quit_answered,
        }
    )


def _result(answer: Answer, kind: Kind) -> RecipientResult:
    return RecipientResult(_ENDING_OF_KIND[kind], answer.to_reply())
