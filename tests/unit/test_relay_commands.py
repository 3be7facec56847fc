"""What is said in MAIL and RCPT, and which message a peer can't take at all."""

import pytest

from mtactl.relay.commands import Offers, mail_command, message_size, rcpt_command, refusal
from mtactl.schedule.ports import Delivery, Rcpt

ALL = Offers(pipelining=True, size=0, eight_bit=True, smtputf8=True, dsn=True)
NONE = Offers()
ASCII = b"Subject: x\r\n\r\ntext\r\n.\r\n"
EIGHT = "Subject: x\r\n\r\ntéxt\r\n.\r\n".encode()


def make_delivery(**changes) -> Delivery:
    values = {
        "reverse_path": "a@example.com",
        "recipients": (Rcpt(address="b@example.net"),),
        "body": ASCII,
        "eight_bit": False,
        "smtputf8": False,
        "ret": None,
        "envid": None,
        "on_ending": lambda: None,
    }
    return Delivery(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "offers", "command"),
    [
        ({}, NONE, b"MAIL FROM:<a@example.com>\r\n"),
        ({"reverse_path": ""}, NONE, b"MAIL FROM:<>\r\n"),
        ({}, ALL, b"MAIL FROM:<a@example.com> SIZE=20\r\n"),
        ({"eight_bit": True}, ALL, b"MAIL FROM:<a@example.com> SIZE=20 BODY=8BITMIME\r\n"),
        ({"eight_bit": True, "smtputf8": True, "ret": "HDRS", "envid": "x+2B"}, NONE, b"MAIL FROM:<a@example.com>\r\n"),
        ({"ret": "HDRS", "envid": "x+2B"}, ALL, b"MAIL FROM:<a@example.com> SIZE=20 RET=HDRS ENVID=x+2B\r\n"),
        (
            {"reverse_path": "ä@example.com", "smtputf8": True, "eight_bit": True},
            ALL,
            "MAIL FROM:<ä@example.com> SIZE=20 BODY=8BITMIME SMTPUTF8\r\n".encode(),
        ),
    ],
)
def test_mail_command(changes, offers, command):
    """If it failed, a peer would be sent a parameter that it does not know, or not the one that the message needs."""
    assert mail_command(make_delivery(**changes), offers) == command


def test_rcpt_command():
    """If it failed, a sender's wish for or against a delivery report would be lost, or refused by an old peer."""
    rcpt = Rcpt(address="b@example.net", notify="SUCCESS,FAILURE", orcpt="rfc822;b@example.org")
    assert rcpt_command(rcpt, NONE) == b"RCPT TO:<b@example.net>\r\n"
    assert rcpt_command(rcpt, ALL) == b"RCPT TO:<b@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b@example.org\r\n"


@pytest.mark.parametrize(
    ("changes", "offers", "code"),
    [
        ({}, NONE, None),
        ({"body": EIGHT}, NONE, None),
        ({"body": EIGHT, "eight_bit": True}, NONE, "554 5.6.3"),
        ({"body": EIGHT, "eight_bit": True}, ALL, None),
        ({"eight_bit": True, "smtputf8": True}, NONE, None),
        ({"body": EIGHT, "smtputf8": True}, NONE, "550 5.6.7"),
        ({"body": EIGHT, "smtputf8": True}, ALL, None),
        ({"reverse_path": "ä@example.com", "smtputf8": True}, NONE, "550 5.6.7"),
        ({"recipients": (Rcpt(address="ä@example.com"),)}, NONE, "550 5.6.7"),
        ({"recipients": (Rcpt(address='"a b"@example.com'),)}, NONE, None),
        ({"recipients": (Rcpt(address="a@example.com>\r\nRSET"),)}, ALL, "553 5.1.3"),
        ({"reverse_path": "a@example.com\n"}, ALL, "553 5.1.3"),
        ({}, Offers(size=0), None),
        ({}, Offers(size=20), None),
        ({}, Offers(size=19), "552 5.3.4"),
        ({"body": b"..a\r\n..b\r\n.\r\n"}, Offers(size=8), None),
        ({"body": b"..a\r\n..b\r\n.\r\n"}, Offers(size=7), "552 5.3.4"),
    ],
)
def test_refusal(changes, offers, code):
    """If it failed, a message would be harmed on its way, or bounced though the peer could have taken it."""
    reply = refusal(make_delivery(**changes), offers)
    assert (reply and f"{reply.code} {reply.enhanced}") == code


@pytest.mark.parametrize(
    ("extensions", "offers"),
    [
        ({}, NONE),
        ({"pipelining": "", "size": "0", "8bitmime": "", "smtputf8": "", "dsn": ""}, ALL),
        ({"size": "1000"}, Offers(size=1000)),
        ({"size": ""}, Offers(size=0)),
        ({"size": "many"}, Offers(size=0)),
    ],
)
def test_offers(extensions, offers):
    """If it failed, an extension would be used that the peer does not have, or an odd SIZE would stop all mail."""
    assert Offers.from_extensions(extensions, pipelining=True) == offers
    assert not Offers.from_extensions(extensions, pipelining=False).pipelining


@pytest.mark.parametrize(("body", "size"), [(b".\r\n", 0), (b"..\r\n.\r\n", 3), (b"a\r\n..\r\n.\r\n", 6), (ASCII, 20)])
def test_message_size(body, size):
    """If it failed, a message that just fits would be refused (RFC 1870)."""
    assert message_size(body) == size
