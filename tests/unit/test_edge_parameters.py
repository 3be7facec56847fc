"""The parameters of MAIL and RCPT: taken as the standards say, and nothing else."""

import pytest

from mtactl.edge.parameters import MailParameters, RcptParameters, parse_mail_parameters, parse_rcpt_parameters
from mtactl.message.reply import Reply

NOW = 1_795_000_000_000_000
DAY = 86_400
SECOND = 1_000_000


def mail(text):
    return parse_mail_parameters(text, now=NOW, max_hold=DAY)


def rcpt(text, *, smtputf8=False):
    return parse_rcpt_parameters(text, smtputf8=smtputf8)


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("", MailParameters()),
        ("SIZE=1000", MailParameters(size=1000)),
        ("size=0", MailParameters()),
        ("BODY=8BITMIME", MailParameters(eight_bit=True)),
        ("body=8bitmime  SMTPUTF8", MailParameters(eight_bit=True, smtputf8=True)),
        ("BODY=7BIT", MailParameters()),
        ("RET=FULL ENVID=QQ314159", MailParameters(ret="FULL", envid="QQ314159")),
        ("RET=hdrs ENVID=a+2Bb+3Dc+20", MailParameters(ret="HDRS", envid="a+2Bb+3Dc+20")),
        ("HOLDFOR=60", MailParameters(hold_until=NOW + 60 * SECOND)),
        ("HOLDFOR=86400", MailParameters(hold_until=NOW + DAY * SECOND)),
        ("HOLDUNTIL=2026-11-18T10:00:00Z", MailParameters(hold_until=1_794_996_000 * SECOND)),
        ("HOLDUNTIL=2026-11-18T12:00:00+02:00", MailParameters(hold_until=1_794_996_000 * SECOND)),
        ("holduntil=2026-11-18t10:00:00.25z", MailParameters(hold_until=1_794_996_000 * SECOND + 250_000)),
    ],
)
def test_mail_parameters_are_read(text, parameters):
    """If this fails, what the client asked for is not done."""
    assert mail(text) == parameters


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SIZE", 501),
        ("SIZE=", 501),
        ("SIZE=-1", 501),
        ("SIZE=1e3", 501),
        ("SIZE=\u0661", 501),
        ("SIZE=" + "9" * 21, 501),
        ("SIZE=1 SIZE=1", 501),
        ("BODY=BINARYMIME", 501),
        ("BODY", 501),
        ("SMTPUTF8=yes", 501),
        ("RET=SOME", 501),
        ("ENVID=", 501),
        ("ENVID=a=b", 501),
        ("ENVID=a+b", 501),
        ("ENVID=a+2b", 501),
        ("ENVID=a+0A", 501),
        ("ENVID=a+7F", 501),
        ("ENVID=" + "a" * 101, 501),
        ("HOLDFOR=0", 501),
        ("HOLDFOR=-5", 501),
        ("HOLDFOR=1000000000", 501),
        ("HOLDFOR=86401", 501),
        ("HOLDUNTIL=2026-12-18T10:00:00Z", 501),
        ("HOLDUNTIL=2026-02-30T10:00:00Z", 501),
        ("HOLDUNTIL=2026-11-18 10:00:00Z", 501),
        ("HOLDUNTIL=2026-11-18T10:00:00", 501),
        ("HOLDUNTIL=0001-01-01T00:00:00+23:59", 501),
        ("HOLDFOR=5 HOLDUNTIL=2026-11-18T10:00:00Z", 501),
        ("AUTH=<>", 555),
        ("FOO", 555),
        ("FOO=bar", 555),
        ("=x", 501),
        ("_=x", 501),
    ],
)
def test_bad_mail_parameters_are_refused(text, code):
    """If this fails, a parameter that is misunderstood is ignored, and the client believes that it was heard."""
    refusal = mail(text)
    assert isinstance(refusal, Reply)
    assert (refusal.code, refusal.enhanced) == (code, "5.5.4")


def test_time_in_the_past_holds_nothing():
    """If this fails, a client whose time to hold has just gone by can't send (RFC 4865 §4 leaves it to us)."""
    parameters = mail("HOLDUNTIL=2020-01-01T00:00:00Z")
    assert isinstance(parameters, MailParameters)
    assert parameters.hold_until is not None
    assert parameters.hold_until < NOW


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("", RcptParameters()),
        ("NOTIFY=NEVER", RcptParameters(notify="NEVER")),
        ("notify=success,Failure,delay", RcptParameters(notify="SUCCESS,FAILURE,DELAY")),
        (
            "NOTIFY=DELAY ORCPT=rfc822;a+2Bb@example.com",
            RcptParameters(notify="DELAY", orcpt="rfc822;a+2Bb@example.com"),
        ),
        ("ORCPT=utf-8;a\\x{FC}b@example.com", RcptParameters(orcpt="utf-8;a\\x{FC}b@example.com")),
    ],
)
def test_rcpt_parameters_are_read(text, parameters):
    """If this fails, delivery status notifications are asked for and not passed on."""
    assert rcpt(text) == parameters


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("NOTIFY", 501),
        ("NOTIFY=", 501),
        ("NOTIFY=NEVER,DELAY", 501),
        ("NOTIFY=DELAY,DELAY", 501),
        ("NOTIFY=DELAY,", 501),
        ("NOTIFY=SOMETIMES", 501),
        ("ORCPT=a@example.com", 501),
        ("ORCPT=rfc822;", 501),
        ("ORCPT=rfc822;a b", 555),
        ("ORCPT=rfc822;a=b", 501),
        ("ORCPT=rfc_822;a", 501),
        ("ORCPT=rfc822;ü@example.com", 501),
        ("ORCPT=utf-8;ü@example.com", 501),
        ("ORCPT=rfc822;" + "a" * 500, 501),
        ("SIZE=1", 555),
    ],
)
def test_bad_rcpt_parameters_are_refused(text, code):
    """If this fails, a peer refuses later what the client could have been told at once."""
    refusal = rcpt(text)
    assert isinstance(refusal, Reply)
    assert refusal.code == code
    assert refusal.encode().endswith(b"\r\n")


def test_original_recipient_in_other_letters_needs_smtputf8():
    """If this fails, octets above 127 get into commands to peers that can't take them (RFC 6533 §3)."""
    assert rcpt("ORCPT=utf-8;ü@example.com", smtputf8=True) == RcptParameters(orcpt="utf-8;ü@example.com")
