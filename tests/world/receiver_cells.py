"""What may go wrong with a receiver, and what must come of it: one table, written from RFC 5321 and the contract.

A message has three recipients; the receiver takes `a`, refuses `b` for good (550 to RCPT) and puts `c` off (450), so
far as it comes to that before it goes wrong. `first` says what the first attempt is for each of them:

    waits    no transaction began: no attempt is counted, and it is sent when the lane's back-off is over
    lost     the end of the message was not written: it was certainly not delivered, and is tried again (§4.5.4.1)
    unsure   the end was written and not answered: it may have been delivered, and is tried again (§4.5.4.1, §6.1)
    later    a 4yz of its own, or of all: it is tried again (§4.2.1)
    never    a 5yz of its own, or of all: it is bounced, and never tried again (§4.2.1)
    taken    delivered

`halt` is what becomes of each when the campaign is halted while the receiver is at that stage (CONTRACT.md §1, §2):
what did not begin is dropped; what is in flight goes on, and its answer is taken whatever it is; a temporary failure,
and what was lost before its end, is dropped; what was lost behind its end is unknown. A halt before MAIL is a `cancel`.

A reply that can't be told from another's bounces nobody: after a wrong count of pipelined replies all are `lost`.
"""

from __future__ import annotations

from dataclasses import dataclass

Three = tuple[str, str, str]

WAITS: Three = ("waits", "waits", "waits")
LOST: Three = ("lost", "lost", "lost")
LATER: Three = ("later", "later", "later")
NEVER: Three = ("never", "never", "never")
TAKEN: Three = ("taken", "never", "later")
A_LOST: Three = ("lost", "never", "later")
A_UNSURE: Three = ("unsure", "never", "later")
A_LATER: Three = ("later", "never", "later")
A_NEVER: Three = ("never", "never", "later")

DROPPED: Three = ("dropped", "dropped", "dropped")
BOUNCED: Three = ("bounced", "bounced", "bounced")
DELIVERED: Three = ("delivered", "bounced", "dropped")
A_DROPPED: Three = ("dropped", "bounced", "dropped")
A_UNKNOWN: Three = ("unknown", "bounced", "dropped")
A_BOUNCED: Three = ("bounced", "bounced", "dropped")

BOTH = (True, False)
PIPELINED, PLAIN = (True,), (False,)

BEFORE_MAIL = ("connect", "banner", "ehlo", "starttls", "tls", "tls-ehlo")
AFTER = ("idle", "quit")  # no transaction is open

# Connections that a first attempt takes, where it is not one: TLS fails, and it is begun again in the clear (RFC 7435).
IN_THE_CLEAR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row. `said` is in what is told of the first attempt, of the lane where it `waits`, else of recipient `a`."""

    stage: str
    manner: str
    first: Three
    said: str
    halt: Three
    pipelining: bool = True
    connections: int = 1  # that the first attempt takes
    content: str = "small"

    @property
    def name(self) -> str:
        return f"{self.stage}: {self.manner}, {'pipelined' if self.pipelining else 'plain'}"


def _cells(
    stage: str, manner: str, first: Three, said: str, halt: Three, forms: tuple[bool, ...] = BOTH, **more
) -> list[Cell]:
    return [
        Cell(stage=stage, manner=manner, first=first, said=said, halt=halt, pipelining=form, **more) for form in forms
    ]


def _opening() -> list[Cell]:
    one = {"forms": PIPELINED}
    clear = {"forms": PIPELINED, "connections": IN_THE_CLEAR}
    rows = [
        ("connect", "hangs up", WAITS, "no connection: Connection refused", one),
        ("connect", "hangs", WAITS, "no connection within", one),
        ("banner", "hangs", WAITS, "greeting: time-out", one),
        ("banner", "hangs up", WAITS, "greeting: connection lost", one),
        # It meets the reset as it connects, or as it waits for the greeting.
        ("banner", "resets", WAITS, "connection", one),
        ("banner", "421 4.3.2 too busy", WAITS, "421 4.3.2 too busy", one),
        ("banner", "450 4.7.1 not you", WAITS, "450 4.7.1 not you", one),
        ("banner", "554 5.7.1 go away", WAITS, "554 5.7.1 go away", one),
        ("banner", "talks garbage", WAITS, "greeting: a reply that makes no sense", one),
        ("banner", "goes on and on", WAITS, "greeting: a reply that makes no sense", one),
        ("banner", "drips", WAITS, "greeting: time-out", one),
        ("banner", "says it twice", WAITS, "greeting: the peer spoke out of turn", one),
        ("banner", "spells", TAKEN, "2.0.0 taken", one),
        ("ehlo", "hangs", WAITS, "EHLO: time-out", one),
        ("ehlo", "hangs up", WAITS, "EHLO: connection lost", one),
        ("ehlo", "resets", WAITS, "EHLO: connection lost", one),
        ("ehlo", "421 4.3.2 too busy", WAITS, "421 4.3.2 too busy", one),
        ("ehlo", "450 4.7.1 not you", WAITS, "450 4.7.1 not you", one),
        ("ehlo", "502 5.5.1 what", TAKEN, "2.0.0 taken", one),  # HELO does (§3.2)
        ("ehlo", "talks garbage", WAITS, "EHLO: a reply that makes no sense", one),
        ("ehlo", "goes on and on", WAITS, "EHLO: a reply that makes no sense", one),
        ("ehlo", "drips", WAITS, "EHLO: time-out", one),
        ("ehlo", "says it twice", WAITS, "EHLO: the peer spoke out of turn", one),
        ("ehlo", "spells", TAKEN, "2.0.0 taken", one),
        ("ehlo", "8BITMIME", NEVER, "5.6.3 the peer does not offer 8BITMIME", {**one, "content": "8-bit"}),
        ("ehlo", "SMTPUTF8", NEVER, "5.6.7 the peer does not offer SMTPUTF8", {**one, "content": "smtputf8"}),
        ("ehlo", "SIZE 10", NEVER, "5.3.4 the message has", one),
        ("starttls", "hangs", TAKEN, "2.0.0 taken", clear),
        ("starttls", "hangs up", TAKEN, "2.0.0 taken", clear),
        ("starttls", "resets", TAKEN, "2.0.0 taken", clear),
        ("starttls", "421 4.3.2 later", WAITS, "421 4.3.2 later", one),
        ("starttls", "454 4.7.0 not now", TAKEN, "2.0.0 taken", one),
        ("starttls", "502 5.5.1 no", TAKEN, "2.0.0 taken", one),
        ("starttls", "250 2.0.0 hm", TAKEN, "2.0.0 taken", clear),
        ("starttls", "talks garbage", TAKEN, "2.0.0 taken", clear),
        ("starttls", "goes on and on", TAKEN, "2.0.0 taken", clear),
        ("starttls", "spells", TAKEN, "2.0.0 taken", one),
        ("tls", "hangs", TAKEN, "2.0.0 taken", clear),
        ("tls", "hangs up", TAKEN, "2.0.0 taken", clear),
        ("tls", "resets", TAKEN, "2.0.0 taken", clear),
        ("tls", "talks garbage", TAKEN, "2.0.0 taken", clear),
        ("tls", "alerts", TAKEN, "2.0.0 taken", clear),
        ("tls-ehlo", "hangs", TAKEN, "2.0.0 taken", clear),
        ("tls-ehlo", "hangs up", TAKEN, "2.0.0 taken", clear),
        ("tls-ehlo", "421 4.3.2 later", WAITS, "421 4.3.2 later", one),
        ("tls-ehlo", "502 5.5.1 what", TAKEN, "2.0.0 taken", one),
        ("tls-ehlo", "talks garbage", WAITS, "STARTTLS: a reply that makes no sense", one),
    ]
    return [
        cell
        for stage, manner, first, said, more in rows
        for cell in _cells(stage, manner, first, said, DROPPED, **more)
    ]


def _envelope() -> list[Cell]:
    gone = "connection where the reply to {} was awaited"
    rows = [
        ("mail", "hangs", LOST, "no reply to MAIL within", DROPPED),
        ("mail", "hangs up", LOST, gone.format("MAIL"), DROPPED),
        ("mail", "resets", LOST, " where the reply to MAIL was awaited", DROPPED),
        ("mail", "421 4.3.2 bye", LATER, "4.3.2 bye", DROPPED),
        ("mail", "450 4.1.8 later", LATER, "4.1.8 later", DROPPED),
        ("mail", "550 5.7.1 not you", NEVER, "5.7.1 not you", BOUNCED),
        ("mail", "555 5.6.3 no 8-bit", NEVER, "5.6.3 no 8-bit", BOUNCED),
        ("mail", "354 go", LOST, "354 go where the reply to MAIL", DROPPED),
        ("mail", "talks garbage", LOST, "a line that is no reply", DROPPED),
        ("mail", "goes on and on", LOST, "a reply of over", DROPPED),
        ("mail", "drips", LOST, "no reply to MAIL within", DROPPED),
        ("mail", "spells", TAKEN, "2.0.0 taken", DELIVERED),
        ("mail", "says it twice", LOST, "", DROPPED),
        ("rcpt", "hangs", LOST, "no reply to RCPT within", DROPPED),
        ("rcpt", "hangs up", LOST, gone.format("RCPT"), DROPPED),
        ("rcpt", "resets", LOST, " where the reply to RCPT was awaited", DROPPED),
        ("rcpt", "421 4.3.2 bye", LATER, "4.3.2 bye", DROPPED),
        ("rcpt", "452 4.5.3 enough", ("taken", "later", "later"), "2.0.0 taken", ("delivered", "dropped", "dropped")),
        ("rcpt", "552 5.5.3 enough", ("taken", "later", "later"), "2.0.0 taken", ("delivered", "dropped", "dropped")),
        ("rcpt", "554 5.7.1 not him", TAKEN, "2.0.0 taken", DELIVERED),
        ("rcpt", "354 go", LOST, "354 go where the reply to RCPT", DROPPED),
        ("rcpt", "talks garbage", LOST, "a line that is no reply", DROPPED),
        ("rcpt", "goes on and on", LOST, "a reply of over", DROPPED),
        ("rcpt", "spells", TAKEN, "2.0.0 taken", DELIVERED),
        ("rcpt", "says it twice", LOST, "", DROPPED),
        ("data", "hangs", A_LOST, "no reply to DATA within", A_DROPPED),
        ("data", "hangs up", A_LOST, gone.format("DATA"), A_DROPPED),
        ("data", "421 4.3.2 bye", A_LATER, "4.3.2 bye", A_DROPPED),
        ("data", "451 4.3.0 later", A_LATER, "4.3.0 later", A_DROPPED),
        ("data", "554 5.7.1 no", A_NEVER, "5.7.1 no", A_BOUNCED),
        ("data", "250 2.0.0 what", LOST, "250 2.0.0 what where the reply to DATA", DROPPED),
        ("data", "talks garbage", A_LOST, "a line that is no reply", A_DROPPED),
        ("data", "goes on and on", A_LOST, "a reply of over", A_DROPPED),
        ("data", "spells", TAKEN, "2.0.0 taken", DELIVERED),
        ("data", "says it twice", A_LOST, "354 go", A_DROPPED),
        ("data", "forgets it", A_LOST, "no reply to DATA within", A_DROPPED),
    ]
    cells = [cell for row in rows for cell in _cells(*row)]
    # A reset may take the replies with it that went before, so it is told only where each was waited for.
    cells += _cells("data", "resets", A_LOST, " where the reply to DATA was awaited", A_DROPPED, PLAIN)
    cells += _cells("mail", "forgets it", LOST, "354 go where the reply to RCPT", DROPPED, PIPELINED)
    cells += _cells("rcpt", "forgets it", LOST, "354 go where the reply to RCPT", DROPPED, PIPELINED)
    return cells


def _message() -> list[Cell]:
    end = "the end of the message"
    big = {"content": "big"}
    rows = [
        ("body", "hangs", A_LOST, "the peer took no part of the message within", A_DROPPED, big),
        ("body", "hangs up", A_LOST, " while the message was being written", A_DROPPED, big),
        ("body", "resets", A_LOST, " while the message was being written", A_DROPPED, big),
        ("body", "421 4.3.2 bye", A_LATER, "4.3.2 bye", A_DROPPED, big),
        ("body", "451 4.3.0 later", A_LATER, "4.3.0 later", A_DROPPED, big),
        ("body", "552 5.3.4 too big", A_NEVER, "5.3.4 too big", A_BOUNCED, big),
        ("body", "250 2.0.0 what", A_LOST, "250 2.0.0 what while the message was being written", A_DROPPED, big),
        ("body", "talks garbage", A_LOST, "a line that is no reply", A_DROPPED, big),
        ("dot", "hangs", A_UNSURE, f"no reply to {end} within", A_UNKNOWN, {}),
        ("dot", "hangs up", A_UNSURE, f"connection where the reply to {end} was awaited", A_UNKNOWN, {}),
        ("dot", "resets", A_UNSURE, f" where the reply to {end} was awaited", A_UNKNOWN, {}),
        ("dot", "421 4.3.2 bye", A_LATER, "4.3.2 bye", A_DROPPED, {}),
        ("dot", "451 4.3.0 later", A_LATER, "4.3.0 later", A_DROPPED, {}),
        ("dot", "554 5.7.1 spam", A_NEVER, "5.7.1 spam", A_BOUNCED, {}),
        ("dot", "354 go", A_UNSURE, f"354 go where the reply to {end}", A_UNKNOWN, {}),
        ("dot", "999 what", A_UNSURE, f"999 what where the reply to {end}", A_UNKNOWN, {}),
        ("dot", "talks garbage", A_UNSURE, "a line that is no reply", A_UNKNOWN, {}),
        ("dot", "goes on and on", A_UNSURE, "a reply of over", A_UNKNOWN, {}),
        ("dot", "drips", A_UNSURE, f"no reply to {end} within", A_UNKNOWN, {}),
        ("dot", "spells", TAKEN, "2.0.0 taken", DELIVERED, {}),
        ("dot", "says it twice", TAKEN, "2.0.0 taken", DELIVERED, {}),
        ("idle", "hangs up", TAKEN, "2.0.0 taken", DELIVERED, {}),
        ("idle", "resets", TAKEN, "2.0.0 taken", DELIVERED, {}),
        ("idle", "421 4.3.2 bye", TAKEN, "2.0.0 taken", DELIVERED, {}),
        ("idle", "250 2.0.0 what", TAKEN, "2.0.0 taken", DELIVERED, {}),
        ("idle", "talks garbage", TAKEN, "2.0.0 taken", DELIVERED, {}),
        ("quit", "hangs", TAKEN, "2.0.0 taken", DELIVERED, {}),
        ("quit", "hangs up", TAKEN, "2.0.0 taken", DELIVERED, {}),
        ("quit", "421 4.3.2 bye", TAKEN, "2.0.0 taken", DELIVERED, {}),
        ("quit", "500 5.5.1 what", TAKEN, "2.0.0 taken", DELIVERED, {}),
        ("quit", "talks garbage", TAKEN, "2.0.0 taken", DELIVERED, {}),
        ("quit", "goes on and on", TAKEN, "2.0.0 taken", DELIVERED, {}),
    ]
    return [cell for *row, more in rows for cell in _cells(*row, **more)]


CELLS = [*_opening(), *_envelope(), *_message()]
