"""A mail transaction from MAIL to the end of the message: what was said, what of it is refused, what comes of it."""

from __future__ import annotations

from mtactl.edge.commands import AddressParser, read_mailbox, read_plain_mail, read_plain_rcpt, split_path
from mtactl.edge.content import Content
from mtactl.edge.parameters import (
    PLAIN_MAIL,
    PLAIN_RCPT,
    MailParameters,
    RcptParameters,
    parse_mail_parameters,
    parse_rcpt_parameters,
)
from mtactl.edge.policy import ListenerPolicy
from mtactl.edge.ports import ReceivedMessage, ReceivedRecipient
from mtactl.edge.received import Trace
from mtactl.message.address import Mailbox
from mtactl.message.reply import Reply

__all__ = ["NO_RECIPIENTS", "NO_TRANSACTION", "Transaction"]

_NO_MEMORY = Reply(452, "4.3.1", "no memory for the message now, try again later")
NO_TRANSACTION = Reply(503, "5.5.1", "BDAT belongs behind RCPT")
NO_RECIPIENTS = Reply(554, "5.5.1", "no valid recipients")

_NEEDS_EHLO = Reply(555, "5.5.4", "parameters need EHLO")


class Transaction:
    """One transaction. `chunked` is there from the first BDAT on. Call `release` when it is over."""

    __slots__ = ("_parameters", "_parse_address", "_policy", "_reverse_path", "chunked", "recipients")

    def __init__(
        self, policy: ListenerPolicy, parse_address: AddressParser, reverse_path: str, parameters: MailParameters
    ) -> None:
        self._policy = policy
        self._parse_address = parse_address
        self._reverse_path = reverse_path
        self._parameters = parameters
        self.recipients: list[ReceivedRecipient] = []
        self.chunked: Content | None = None

    @classmethod
    def begin(
        cls, argument: str, policy: ListenerPolicy, parse_address: AddressParser, *, extended: bool
    ) -> Transaction | Reply:
        """Begin one by the argument of MAIL, or refuse it."""
        plain = read_plain_mail(argument)
        if plain is not None and (plain[1] is None or extended):
            sender, size = plain
            said = PLAIN_MAIL if size is None else MailParameters(size=size)
            return cls._begin(policy, parse_address, sender.address, said)
        path = split_path("FROM:", argument, parse_address)
        if path is None:
            return Reply(501, "5.5.4", "the syntax is MAIL FROM:<address>")
        text, rest = path
        if rest and not extended:
            return _NEEDS_EHLO
        parameters = parse_mail_parameters(rest, now=policy.now(), max_hold=policy.max_hold)
        if isinstance(parameters, Reply):
            return parameters
        reverse_path = ""
        if text:
            mailbox = read_mailbox(text, sender=True, smtputf8=parameters.smtputf8)
            if isinstance(mailbox, Reply):
                return mailbox
            reverse_path = mailbox.address
        return cls._begin(policy, parse_address, reverse_path, parameters)

    @classmethod
    def _begin(
        cls, policy: ListenerPolicy, parse_address: AddressParser, reverse_path: str, parameters: MailParameters
    ) -> Transaction | Reply:
        if parameters.size > policy.settings.max_message_size:
            return policy.too_large
        if not policy.budget.has_room(parameters.size):
            return _NO_MEMORY
        return policy.intake.ready() or cls(policy, parse_address, reverse_path, parameters)

    def add_recipient(self, argument: str, *, extended: bool) -> Reply | None:
        """Add a recipient by the argument of RCPT, or refuse it."""
        plain = read_plain_rcpt(argument)
        if plain is not None:
            return self._add(plain, PLAIN_RCPT)
        path = split_path("TO:", argument, self._parse_address)
        if path is None:
            return Reply(501, "5.5.4", "the syntax is RCPT TO:<address>")
        text, rest = path
        if rest and not extended:
            return _NEEDS_EHLO
        smtputf8 = self._parameters.smtputf8
        parameters = parse_rcpt_parameters(rest, smtputf8=smtputf8)
        if isinstance(parameters, Reply):
            return parameters
        if text.lower() == "postmaster":
            text = f"{text}@{self._policy.hostname}"  # RFC 5321 §4.5.1
        mailbox = read_mailbox(text, sender=False, smtputf8=smtputf8)
        return mailbox if isinstance(mailbox, Reply) else self._add(mailbox, parameters)

    def _add(self, mailbox: Mailbox, parameters: RcptParameters) -> Reply | None:
        if len(self.recipients) >= self._policy.settings.max_recipients:
            return Reply(452, "4.5.3", f"at most {self._policy.settings.max_recipients} recipients a message")
        self.recipients.append(
            ReceivedRecipient(
                address=mailbox.address, domain=mailbox.domain, notify=parameters.notify, orcpt=parameters.orcpt
            )
        )
        return None

    def open_content(self, trace: Trace) -> Content:
        """Make what the message grows in, with the Received: field in front."""
        policy = self._policy
        now = policy.now()
        return Content(
            trace.render(
                token=policy.tokens.take(now),
                received_at=now,
                smtputf8=self._parameters.smtputf8,
                recipient=self.recipients[0].address if len(self.recipients) == 1 else None,
            ),
            max_size=policy.settings.max_message_size,
            max_line=policy.settings.max_line_length,
            budget=policy.budget,
        )

    def open_chunk(self, octets: int, trace: Trace) -> Content | Reply:
        """Give what a chunk is to be added to, or refuse it (RFC 3030)."""
        if not self.recipients:
            return NO_RECIPIENTS
        if self.chunked is None:
            self.chunked = self.open_content(trace)
        if self.chunked.raw_size + octets > self._policy.settings.max_message_size:
            return self._policy.too_large
        return self.chunked

    def complete(self, content: Content, client: str) -> ReceivedMessage | Reply:
        """Give the message that was received whole, or its refusal."""
        if content.problem is not None:
            return content.problem
        campaign = self._policy.campaigns.read(content.body, content.trace)
        if isinstance(campaign, Reply):
            return campaign
        parameters = self._parameters
        return ReceivedMessage(
            campaign=campaign,
            reverse_path=self._reverse_path,
            recipients=self.recipients,
            body=(content.body,),
            received_at=self._policy.now(),
            eight_bit=parameters.eight_bit or content.eight_bit,
            smtputf8=parameters.smtputf8,
            ret=parameters.ret,
            envid=parameters.envid,
            hold_until=parameters.hold_until,
            client=client,
        )

    def release(self) -> None:
        """Let go of a message that was begun in chunks."""
        if self.chunked is not None:
            self.chunked.release()
            self.chunked = None
