"""One SMTP session: aiosmtpd's server with our commands, our reading and our replies (CONTRACT.md §7).

What is aiosmtpd's: the frame of the protocol, the parser for addresses that are out of the ordinary, and AUTH and
STARTTLS. What is not: octets come through a `Wire` and messages grow in a `Content`, because the stock way costs four
times as much CPU (docs/adr/0010). Only a line that ends in CRLF is a command; one that ends in a bare LF ends the
session, since a server in front of us may have taken it for something else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from aiosmtpd.smtp import SMTP

from mtactl.edge.commands import parse_chunk, parse_command
from mtactl.edge.content import Content
from mtactl.edge.driver import Driver
from mtactl.edge.policy import ListenerPolicy
from mtactl.edge.ports import ReceivedMessage
from mtactl.edge.received import Trace
from mtactl.edge.transaction import NO_RECIPIENTS, NO_TRANSACTION, Transaction
from mtactl.edge.wire import MAX_SPILL, BareNewline, ConnectionLost, EndlessMessage, LineTooLong, Wire
from mtactl.message.reply import Reply

__all__ = ["SMTPSession"]

MAX_COMMAND = 2048  # octets with CRLF: 512, and what SMTPUTF8, DSN and FUTURERELEASE add
COMMANDS_A_TURN = 64  # that a client who pipelines without end gets before the others have theirs

_log = structlog.get_logger()

_NOT_OFFERED = frozenset({"AUTH", "ETRN", "EXPN", "STARTTLS", "TURN"})

_MAIL_OK = b"250 2.1.0 Ok\r\n"
_RCPT_OK = b"250 2.1.5 Ok\r\n"
_GO_AHEAD = b"354 End data with <CR><LF>.<CR><LF>\r\n"
_OK = b"250 2.0.0 Ok\r\n"

_LOCAL_ERROR = Reply(451, "4.3.0", "local error, try again later")


class SMTPSession(SMTP):
    """A session with one client. `opened` and `closed` are told of its beginning and its end.

    `opened` may refuse it with a Reply.
    """

    def __init__(
        self,
        policy: ListenerPolicy,
        loop: asyncio.AbstractEventLoop,
        *,
        opened: Callable[[SMTPSession], Reply | None],
        closed: Callable[[SMTPSession], None],
    ) -> None:
        super().__init__(
            None,
            data_size_limit=policy.settings.max_message_size,
            enable_SMTPUTF8=True,
            hostname=policy.hostname,
            loop=loop,
        )
        self._policy = policy
        self._opened = opened
        self._closed_down = closed
        self._wire: Wire  # from connection_made on
        self._trace: Trace  # from the greeting on
        self._transaction: Transaction | None = None
        self._client = ""
        self._peer = ""
        self._may_relay = False
        self._errors = 0
        self._receiving = False  # a message's octets, or its commit
        self._stopping = False
        self._over = False
        self._finished = False  # the conversation, to its last word
        self.driver: Driver | None = None  # runs the conversation; None for a client who was turned away

    def __dir__(self) -> list[str]:
        """Name the commands only: aiosmtpd looks at all that is named here for each new connection."""
        return _COMMANDS

    # -- the protocol's side --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet a client and begin the conversation, or turn it away."""
        self.transport = transport
        self._wire = Wire(transport, self.loop)
        self.session = self._create_session()
        self.envelope = self._create_envelope()
        peername = transport.get_extra_info("peername")
        if isinstance(peername, tuple):
            self._client = str(peername[0])
            self._peer = f"[{self._client}]:{peername[1]}"
        self.session.peer = self._peer
        refusal = self._opened(self)
        if refusal is not None:
            self._over = self._finished = True
            self._say(refusal)
            self._wire.close()
            return
        self._may_relay = self._policy.may_relay(self._client)
        driver = self.driver = Driver(self._handle_client(), self.loop)
        self._wire.on_event = driver.go_on
        driver.start()

    def data_received(self, data: bytes) -> None:
        """Take octets from the transport."""
        self._wire.feed(data)

    def eof_received(self) -> bool:
        """Go on with what the client has sent; it may still read."""
        self._wire.feed_eof()
        return self.session is not None and self.session.ssl is None

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """Tell the session, which ends by itself: a message whose commit is under way is never cut short."""
        self._wire.lose()
        self.transport = None
        if self._finished:
            self._let_go()

    def pause_writing(self) -> None:
        """Stop obeying a client that does not read the replies."""
        self._wire.hold_up(True)

    def resume_writing(self) -> None:
        """Go on."""
        self._wire.hold_up(False)

    # -- the listener's side --------------------------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """The client as "[address]:port"."""
        return self._peer

    def stop(self) -> None:
        """End as soon as no message is on its way in: at once (421 4.3.2), or after the reply to it."""
        self._stopping = True
        if not self._receiving and not self._over:
            self._end(Reply(421, "4.3.2", f"{self.hostname} is shutting down"))

    def abort(self) -> None:
        """End now."""
        self._end(Reply(421, "4.3.2", f"{self.hostname} is shutting down"))
        self._wire.lose()

    # -- the conversation -----------------------------------------------------------------------------------------

    async def push(self, status: Any) -> None:
        """Write a reply of aiosmtpd's own with the next flush."""
        self._wire.write((status.encode("utf-8") if isinstance(status, str) else bytes(status)) + b"\r\n")

    async def _handle_client(self) -> None:
        self._wire.write(f"220 {self.hostname} ESMTP mtactl\r\n".encode())
        try:
            await self._converse()
        except ConnectionLost:
            if self._transaction is not None:
                _log.info("client_vanished", client=self._peer, recipients=len(self._transaction.recipients))
        except TimeoutError:
            _log.info("client_silent", client=self._peer)
            self._end(Reply(421, "4.4.2", f"{self.hostname} waited too long for you"))
        except BareNewline:
            _log.warning("bare_newline", client=self._peer)
            self._end(Reply(500, "5.5.2", "a command line ended in a bare LF; closing"))
        except Exception:  # noqa: BLE001 - a defect ends this session and no other
            _log.exception("session_failed", client=self._peer)
            self._end(Reply(421, "4.3.0", "local error, closing"))
        finally:
            self._abandon()
            self._over = self._finished = True
            self._wire.close()
            self._closed_down(self)
            if self._wire.lost:
                self._let_go()

    def _let_go(self) -> None:
        """Break the circles that aiosmtpd makes of a session and its methods.

        Otherwise what thousands of sessions held would stay until the garbage of the oldest generation is collected.
        """
        self._smtp_methods = {}
        self._auth_methods = {}
        self._client_connected_cb = None
        self._wire.forget()

    async def _converse(self) -> None:
        timeout = self._policy.settings.command_timeout
        obeyed = 0
        waiting = False  # for the rest of a command: it has one time-out, in however many pieces it comes
        while not self._over:
            try:
                line = self._wire.next_line(MAX_COMMAND)
            except LineTooLong as error:
                waiting = False
                reply = Reply(500, "5.5.2", f"a command line is longer than {MAX_COMMAND} octets")
                self._refuse_line(error.start, reply)
                continue
            if line is None:
                waiting = await self._wire.more(timeout, anew=not waiting)
                continue
            waiting = False
            parsed = parse_command(line)
            if isinstance(parsed, Reply):
                self._refuse_line(line, parsed)
            elif parsed[0] in self._smtp_methods:
                await self._smtp_methods[parsed[0]](parsed[1])
            elif parsed[0] in _NOT_OFFERED:
                self._refuse(Reply(502, "5.5.1", f"{parsed[0]} is not offered"))
            else:
                self._refuse(Reply(500, "5.5.2", "command not recognised"))
            if self._stopping and not self._over:
                self._end(Reply(421, "4.3.2", f"{self.hostname} is shutting down"))
            obeyed += 1
            if obeyed % COMMANDS_A_TURN == 0:
                await self._wire.breathe(timeout)

    def _say(self, reply: Reply) -> None:
        self._wire.write(reply.encode())
        if reply.code == 421:
            self._end(None)

    def _refuse(self, reply: Reply) -> None:
        """Answer a command that is not obeyed; a client that sends little else is sent away."""
        if reply.permanent:
            self._errors += 1
        if self._errors > self._policy.max_errors:
            _log.warning("too_many_errors", client=self._peer, last=str(reply))
            self._say(Reply(421, "4.7.0", f"{self.hostname} too many errors, closing"))
        else:
            self._say(reply)

    def _refuse_line(self, line: bytes, reply: Reply) -> None:
        """Answer a line that can't be read."""
        if line[:4].upper() == b"BDAT":
            self._end(reply)  # nobody can tell where its chunk ends and the next command begins
        else:
            self._refuse(reply)

    def _end(self, reply: Reply | None) -> None:
        if not self._over:
            self._over = True
            if reply is not None:
                self._wire.write(reply.encode())
            self._wire.close()

    def _abandon(self) -> None:
        """End the transaction, however far it came."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.release()

    # -- commands -------------------------------------------------------------------------------------------------

    async def smtp_HELO(self, hostname: str) -> None:  # noqa: N802
        """HELO (RFC 5321 §4.1.1.1)."""
        if self._greeted(hostname, extended=False):
            self._wire.write(f"250 {self.hostname}\r\n".encode())

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802
        """EHLO: the extensions of CONTRACT.md §7."""
        if self._greeted(hostname, extended=True):
            lines = [f"250-{keyword}\r\n" for keyword in (self.hostname, *self._policy.keywords())]
            self._wire.write(f"{''.join(lines)}250 HELP\r\n".encode())

    def _greeted(self, name: str, *, extended: bool) -> bool:
        if not name:
            self._refuse(Reply(501, "5.5.4", "your name is missing"))
            return False
        assert self.session is not None
        self._abandon()
        self.session.host_name = name
        self.session.extended_smtp = extended
        self._trace = Trace(helo=name, client=self._client, hostname=self.hostname, extended=extended)
        return True

    async def smtp_NOOP(self, arg: str) -> None:  # noqa: N802, ARG002
        """NOOP."""
        self._wire.write(_OK)

    async def smtp_RSET(self, arg: str) -> None:  # noqa: N802
        """RSET."""
        if arg:
            self._refuse(Reply(501, "5.5.4", "RSET takes no argument"))
            return
        self._abandon()
        self._wire.write(_OK)

    async def smtp_QUIT(self, arg: str) -> None:  # noqa: N802
        """QUIT."""
        if arg:
            self._refuse(Reply(501, "5.5.4", "QUIT takes no argument"))
            return
        self._end(Reply(221, "2.0.0", f"{self.hostname} closing"))

    async def smtp_HELP(self, arg: str) -> None:  # noqa: N802, ARG002
        """HELP."""
        self._say(Reply(214, "2.0.0", "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT"))

    async def smtp_VRFY(self, arg: str) -> None:  # noqa: N802
        """VRFY: nobody can know before the attempt (RFC 5321 §3.5.3)."""
        if arg:
            self._say(Reply(252, "2.5.2", "can't verify the user, but will try to deliver"))
        else:
            self._refuse(Reply(501, "5.5.4", "VRFY needs an address"))

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        """MAIL FROM."""
        assert self.session is not None
        if not self.session.host_name:
            self._refuse(Reply(503, "5.5.1", "send EHLO first"))
        elif self._transaction is not None:
            self._refuse(Reply(503, "5.5.1", "a transaction is under way: finish it, or send RSET"))
        elif not self._may_relay:
            _log.warning("relay_denied", client=self._peer)
            self._refuse(Reply(554, "5.7.1", "your address may not send mail through this server"))
        else:
            begun = Transaction.begin(arg or "", self._policy, self._getaddr, extended=self.session.extended_smtp)
            if isinstance(begun, Reply):
                self._refuse(begun)
            else:
                self._transaction = begun
                self._wire.write(_MAIL_OK)

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        """RCPT TO."""
        assert self.session is not None
        if self._transaction is None or self._transaction.chunked is not None:
            self._refuse(Reply(503, "5.5.1", "RCPT belongs between MAIL and the message"))
            return
        refusal = self._transaction.add_recipient(arg or "", extended=self.session.extended_smtp)
        if refusal is None:
            self._wire.write(_RCPT_OK)
        else:
            self._refuse(refusal)

    # -- the message ----------------------------------------------------------------------------------------------

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        """Receive the message in wire form (DATA)."""
        transaction = self._transaction
        if transaction is None or transaction.chunked is not None:
            self._refuse(Reply(503, "5.5.1", "DATA belongs behind RCPT, and not behind BDAT"))
        elif arg:
            self._refuse(Reply(501, "5.5.4", "DATA takes no argument"))
        elif not transaction.recipients:
            self._refuse(NO_RECIPIENTS)
        else:
            self._wire.write(_GO_AHEAD)
            self._receiving = True
            content = transaction.open_content(self._trace)
            try:
                await self._wire.receive_data(content, self._policy.settings.data_timeout)
                await self._finish(transaction, content)
            except EndlessMessage:
                self._give_up(content.problem)
            finally:
                content.release()
                self._receiving = False

    async def smtp_BDAT(self, arg: str) -> None:  # noqa: N802
        """BDAT (RFC 3030 §2): what was sent is read to its end before it is refused; a refusal ends the transaction."""
        chunk = parse_chunk(arg)
        if chunk is None:
            # Nobody can tell where the next command begins.
            self._end(Reply(501, "5.5.4", "the syntax is BDAT size [LAST]; closing"))
            return
        octets, last = chunk
        self._receiving = True
        try:
            transaction = self._transaction
            target = NO_TRANSACTION if transaction is None else transaction.open_chunk(octets, self._trace)
            content = target if isinstance(target, Content) else None
            if isinstance(target, Reply) and octets > MAX_SPILL:
                self._give_up(target)
                return
            await self._wire.receive_chunk(octets, content, self._policy.settings.data_timeout)
            if isinstance(target, Reply):
                self._abandon()
                self._refuse(target)
            else:
                await self._finish_chunk(target, octets, last=last)
        finally:
            self._receiving = False

    def _give_up(self, reply: Reply | None) -> None:
        """End the session: what is left of a message that is refused is not worth reading."""
        _log.warning("endless_message", client=self._peer, reply=str(reply))
        self._end(reply)

    async def _finish_chunk(self, content: Content, octets: int, *, last: bool) -> None:
        assert self._transaction is not None
        if last:
            content.end_chunks()
            await self._finish(self._transaction, content)
        elif content.problem is not None:
            self._abandon()
            self._say(content.problem)
        else:
            self._say(Reply(250, "2.0.0", f"Ok: {octets} octets received"))

    async def _finish(self, transaction: Transaction, content: Content) -> None:
        """Answer for the whole message: refused, or durable. Commands that were sent ahead wait until then."""
        if self._wire.lost:
            raise ConnectionLost  # nothing was promised yet: the client will send it again
        try:
            message = transaction.complete(content, self._peer)
            reply = message if isinstance(message, Reply) else await self._commit(message)
        finally:
            self._abandon()
        if reply.positive:
            self._errors = 0
        if self._wire.lost:
            _log.warning("reply_undelivered", client=self._peer, reply=str(reply))
        self._say(reply)

    async def _commit(self, message: ReceivedMessage) -> Reply:
        try:
            return await self._policy.intake.accept(message)
        except Exception:  # noqa: BLE001 - the client gets a reply, also to a failure that the seam does not know
            _log.exception("intake_failed", client=self._peer)
            return _LOCAL_ERROR


_COMMANDS = [name for name in vars(SMTPSession) if name.startswith("smtp_")]
