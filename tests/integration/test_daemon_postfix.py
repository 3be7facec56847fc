"""Mail through mtactld into a real Postfix arrives as it was sent, octet by octet."""

from __future__ import annotations

import subprocess

import pytest

from tests.world.application import inject
from tests.world.daemon import Daemon, daemon
from tests.world.newsletter import newsletters
from tests.world.operator import eventually, outcomes
from tests.world.postfix import Instance, run_postfix

pytestmark = [pytest.mark.needs("postfix", "postfix"), pytest.mark.root_only]

HEAD = (
    b"From: a@news.example\r\nTo: r@one.example\r\nSubject: %s\r\nX-Campaign-ID: c\r\nX-Odd:\tfolded\r\n  twice\r\n\r\n"
)
BODIES = {
    b"dots": b".\r\n..\r\n...x\r\n.x\r\nx.\r\n\r\n.\r\n",
    b"octets": bytes(octet for octet in range(1, 256) if octet not in b"\r\n") + b"\r\n" + "größer €\r\n".encode(),
    b"longest line": b"x" * 998 + b"\r\n" + b"." + b"y" * 996 + b"\r\n",
    b"empty": b"",
    b"blank lines": b"\r\n" * 50 + b" \t \r\n\r\n",
    b"large": (b"a line that is neither short nor long, and comes often\r\n.\r\n") * 30_000,
}
WIRES = {"pipelined": "one.example", "one command at a time": "two.example"}


@pytest.fixture(scope="module")
def route(tmp_path_factory):
    """A node whose route is a Postfix."""
    folder = tmp_path_factory.mktemp("node")
    probe = Daemon(folder / "port")
    with run_postfix(probe.smtp_port) as postfix:
        extra = '[lane."two.example"]\npipelining = false'
        with daemon(folder, route=probe.smtp_port, extra=extra) as node:
            yield node, postfix


def unix(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n")


def arrived(postfix: Instance, address: str, count: int) -> list[bytes]:
    """Wait for so many messages to an address; give what stands below what Postfix put on top."""

    def look() -> list[bytes]:
        mails = [mail for mail in postfix.mails() if b"\nX-Original-To: %b\n" % address.encode() in mail]
        return mails if len(mails) == count else []

    return eventually(look, told=lambda: postfix.log)


@pytest.mark.parametrize("domain", WIRES.values(), ids=list(WIRES))
def test_messages_arrive_octet_by_octet(route, domain):
    """If it failed, signatures (DKIM, S/MIME) of relayed mail would break, or text would be lost."""
    node, postfix = route
    sent = [HEAD % name + body for name, body in BODIES.items()]
    sent += [mail.data for mail in newsletters("n", 5)]
    for data in sent:
        options = ["BODY=8BITMIME"] if not data.isascii() else []
        assert inject(node.smtp_port, f"r@{domain}", data=data, mail=options)[0] == 250
    mails = arrived(postfix, f"r@{domain}", len(sent))
    for data in sent:
        found = [mail for mail in mails if mail.endswith(b"\n" + unix(data))]
        assert len(found) == 1, data[:200]
        above = found[0].removesuffix(unix(data)).decode()
        assert above.count("Received:") == 2
        assert "by mta.example.com" in above[above.rindex("Received:") :]
    assert "improper command pipelining" not in postfix.log
    assert "warning" not in postfix.log.replace("warning: process id", "")


@pytest.mark.needs("swaks", "swaks")
def test_swaks_sends_through_to_postfix(route):
    """If it failed, the tool that administrators try a mail server with would not get through."""
    node, postfix = route
    options = ["--pipeline", "--header", "X-Campaign-ID: swaks", "--body", "one\n.\n..two\n"]
    addresses = ["--from", "a@news.example", "--to", "x@three.example,y@three.example"]
    run = subprocess.run(
        ["swaks", "--server", f"127.0.0.1:{node.smtp_port}", *addresses, *options],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout
    assert "250 2.0.0 Ok: queued as" in run.stdout
    for name in ("x", "y"):
        (mail,) = arrived(postfix, f"{name}@three.example", 1)
        assert mail.rstrip(b"\n").endswith(b"\n\none\n.\n..two")
    lines = eventually(lambda: [] if len(outcomes(node, "swaks")) < 2 else outcomes(node, "swaks"))
    assert {line["outcome"] for line in lines} == {"delivered"}
    assert len({line["reply"] for line in lines}) == 1, "one transaction for both"
    assert "queued as" in lines[0]["reply"]


def test_refusals_bounce_and_the_others_get_it(route):
    """If it failed, mail that can never be delivered would be tried for days, or take the rest of a message with it."""
    node, postfix = route
    to = ("refused@one.example", "taken@one.example")
    assert inject(node.smtp_port, *to, campaign="one of two")[0] == 550, "a campaign has no blanks"
    assert inject(node.smtp_port, *to, campaign="one-of-two")[0] == 250
    lines = eventually(lambda: len(found := outcomes(node, "one-of-two")) == 2 and found, told=lambda: postfix.log)
    refused, taken = sorted(lines, key=lambda line: line["recipient"])
    assert (refused["outcome"], refused["code"], taken["outcome"]) == ("bounced", 554, "delivered")
    assert "5.7.1" in refused["reply"]
    assert refused["peer"].endswith(taken["peer"].rpartition("]")[2])
    arrived(postfix, "taken@one.example", 1)


def test_message_over_the_size_that_postfix_announces_bounces(route):
    """If it failed, megabytes would be sent again and again to a peer that said at once that it won't have them."""
    node, postfix = route
    data = HEAD % b"too large" + (b"x" * 78 + b"\r\n") * 51_000
    assert inject(node.smtp_port, "r@one.example", data=data.replace(b"ID: c", b"ID: large"))[0] == 250
    (line,) = eventually(lambda: outcomes(node, "large"), told=lambda: postfix.log)
    assert (line["outcome"], line["code"], line["reply"][:5]) == ("bounced", 552, "5.3.4")
    assert "4000000" in line["reply"]
