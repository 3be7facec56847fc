"""Plain MAIL and RCPT are read in one step: to the same end as all others."""

from hypothesis import given
from hypothesis import strategies as st

from mtactl.edge.commands import read_mailbox, read_plain_mail, read_plain_rcpt, split_path
from mtactl.edge.parameters import MailParameters, RcptParameters, parse_mail_parameters, parse_rcpt_parameters
from mtactl.message.address import Mailbox

ADDRESSES = st.one_of(
    st.from_regex(r"[A-Za-z0-9.!+=~-]{1,70}@[A-Za-z0-9.-]{1,80}", fullmatch=True),
    st.from_regex(r"[a-z.]{1,8}@[A-Z0-9-]{1,70}\.[a-z]{2,5}", fullmatch=True),
    st.from_regex(r"[a-z]{60,66}@([a-z0-9]{50,65}\.){1,4}[a-z]{1,64}", fullmatch=True),
    st.from_regex(r'("[^"]{0,4}"|[a-z]{1,3})@(\[[0-9.]{7,9}\]|[a-z]{1,3})', fullmatch=True),
    st.text(max_size=12),
)
TAILS = st.sampled_from(("", " SIZE=12", " SIZE=0", " SIZE=", " size=1", " BODY=7BIT", " ", "x", " SIZE=1 SIZE=2"))


def odd(argument: str) -> tuple[str | None, str | None]:
    """Stand in for the reader of odd paths: nothing that is plain may come here."""
    raise AssertionError(argument)


@given(ADDRESSES, TAILS)
def test_a_plain_mail_is_read_as_any_other(address: str, tail: str) -> None:
    """If this fails, an address or a size means one thing in the common form of MAIL and another in the others."""
    argument = f"FROM:<{address}>{tail}"
    plain = read_plain_mail(argument)
    if plain is None:
        return
    mailbox, size = plain
    path = split_path("FROM:", argument, odd)
    assert path is not None
    assert read_mailbox(path[0], sender=True, smtputf8=False) == mailbox
    assert parse_mail_parameters(path[1], now=0, max_hold=0) == MailParameters(size=size or 0)
    assert bool(path[1]) == (size is not None)


@given(ADDRESSES, st.sampled_from(("", " NOTIFY=NEVER", " ")))
def test_a_plain_rcpt_is_read_as_any_other(address: str, tail: str) -> None:
    """If this fails, a recipient's address or lane depends on the form of RCPT."""
    argument = f"TO:<{address}>{tail}"
    mailbox = read_plain_rcpt(argument)
    if mailbox is None:
        return
    path = split_path("TO:", argument, odd)
    assert path is not None
    assert read_mailbox(path[0], sender=False, smtputf8=False) == mailbox
    assert parse_rcpt_parameters(path[1], smtputf8=False) == RcptParameters()


def test_what_is_plain() -> None:
    """If this fails, the common form takes the slow way, or what needs it takes the quick one."""
    assert read_plain_mail("FROM:<a.b+c@News.Example>") == (
        Mailbox(address="a.b+c@News.Example", domain="news.example"),
        None,
    )
    assert read_plain_mail("FROM:<a@b.example> SIZE=77") == (Mailbox(address="a@b.example", domain="b.example"), 77)
    assert read_plain_rcpt("TO:<x@y>") == Mailbox(address="x@y", domain="y")
    for argument in ("FROM:<>", "FROM: <a@b>", "from:<a@b>", "FROM:<@c:a@b>", 'FROM:<"a"@b>', f"FROM:<{'a' * 65}@b>"):
        assert read_plain_mail(argument) is None
    for argument in ("TO:<postmaster>", "TO:<a@b> NOTIFY=NEVER", "TO:<a@[192.0.2.1]>", f"TO:<a@{'b' * 64}.c>"):
        assert read_plain_rcpt(argument) is None
