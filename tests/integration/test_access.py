"""Who may do what with a real daemon: users of the machine at its socket, strangers at its SMTP port."""

from __future__ import annotations

import grp
import json
import shutil
import smtplib
import socket
import tempfile
from pathlib import Path

import pytest

from tests.world.application import inject, message
from tests.world.daemon import Daemon, free_port
from tests.world.impostor import run_as
from tests.world.operator import log_lines, mtactl, waiting

NOBODY = 65534
NAMELESS = 54321

# Each command of the client that reads, and each that changes something.
READS = (
    ["status"],
    ["campaigns"],
    ["show", "kept"],
    ["recipients", "kept"],
    ["queue", "ls"],
    ["lanes"],
    ["events"],
)
CHANGES = (
    ["halt", "kept", "--confirm", "kept"],
    ["stop", "kept", "--confirm", "kept"],
    ["cancel", "kept", "--confirm", "kept"],
    ["hold", "kept"],
    ["release", "kept"],
    ["queue", "retry"],
    ["queue", "drop", "--domain", "example.org", "--confirm"],
    ["reload"],
)
DENIED = 4


def gid_of(name: str) -> int:
    return grp.getgrnam(name).gr_gid


@pytest.fixture(scope="module")
def node():
    """A node with one campaign waiting; its socket can be reached by all, its clients are those of 127.0.0.2."""
    folder = Path(tempfile.mkdtemp(prefix="mtactl-access-"))  # pytest's own folders are for one user only
    folder.chmod(0o755)
    one = Daemon(folder, route=free_port())
    text = one.config.read_text()
    text = text.replace("[control]\n", '[control]\nmode = "0666"\noperators = ["mail"]\nobservers = ["adm"]\n')
    text = text.replace("[[listener]]\n", '[[listener]]\nrelay_from = ["127.0.0.2"]\n', 1)
    one.config.write_text(text)
    try:
        one.start()
        with smtplib.SMTP("127.0.0.1", one.smtp_port, source_address=("127.0.0.2", 0), timeout=30) as session:
            session.sendmail("a@news.example", ["kept@example.org"], message("kept"))
        yield one
    finally:
        one.end()
        shutil.rmtree(folder)


def untouched(node: Daemon) -> bool:
    report = node.report("kept")
    return (report["state"], report["counts"]["queued"], report["counts"]["dropped"]) == ("active", 1, 0)


# -- the control socket -------------------------------------------------------------------------------------------


@pytest.mark.root_only
@pytest.mark.parametrize("uid", [NOBODY, NAMELESS], ids=["nobody", "a user without a name"])
def test_a_stranger_gets_nothing_from_any_command(node, uid):
    """If it failed, whoever has an account on the mail server could stop the mail, or read who gets it."""
    for command in (*READS, *CHANGES):
        run = run_as(uid, NOBODY, (), node.socket, *command)
        assert run.returncode == DENIED, (command, run)
        assert run.stdout == ""
        assert "control.operators" in run.stderr
        assert "kept@example.org" not in run.stderr
    assert untouched(node)


@pytest.mark.root_only
def test_an_observer_reads_all_and_changes_nothing(node):
    """If it failed, monitoring would be blind, or could stop a campaign."""
    for command in READS:
        run = run_as(NOBODY, NOBODY, (gid_of("adm"),), node.socket, "--json", *command)
        assert run.returncode == 0, (command, run)
    for command in CHANGES:
        run = run_as(NOBODY, gid_of("adm"), (), node.socket, *command)
        assert run.returncode == DENIED, (command, run)
    assert untouched(node)


@pytest.mark.root_only
def test_an_operator_may_all_and_is_named(node):
    """If it failed, those who are to run the mail could not, or nobody would know who stopped it."""
    mail = (gid_of("mail"),)
    for command in (["hold", "kept"], ["release", "kept"], ["queue", "retry"], ["reload"]):
        run = run_as(NAMELESS, NOBODY, mail, node.socket, *command)
        assert run.returncode == 0, (command, run)
    run = run_as(NAMELESS, NOBODY, mail, node.socket, "--json", "halt", "never-seen", "--confirm", "never-seen")
    assert run.returncode == 0, run
    assert json.loads(run.stdout.splitlines()[-1])["stop"]["requested_by"] == {"uid": NAMELESS, "user": str(NAMELESS)}
    said = [line for line in log_lines(node) if "never-seen" in line.values()]
    assert ("control_command_asked", NAMELESS) in {(line["event"], line.get("uid")) for line in said}
    assert untouched(node)


@pytest.mark.root_only
def test_set_uid_does_not_lend_its_rights(node):
    """If it failed, a program that changed its user would be judged by what it was, not by what it is."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(node.socket))  # the credentials are those of this moment: root's
    connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: mtactl\r\nConnection: close\r\n\r\n")
    assert connection.recv(64).startswith(b"HTTP/1.1 200 ")
    connection.close()
    assert run_as(NOBODY, NOBODY, (), node.socket, "status").returncode == DENIED


def test_a_socket_without_permission_is_said_to_be_that(node, tmp_path):
    """If it failed, someone who only lacks a group would look for a daemon that is down."""
    assert mtactl(node.socket, "status").returncode == 0
    assert mtactl(tmp_path / "none.sock", "status").returncode == 3


# -- the SMTP port: never an open relay -----------------------------------------------------------------------------

_US = "mta.example.com"
_SENDERS = (
    "<spam@elsewhere.example>",
    "<spam>",
    "<>",
    f"<spam@{_US}>",
    "<spam@localhost>",
    "<spam@[127.0.0.1]>",
    "<spam@[127.0.0.2]>",
    '<"spam@elsewhere.example">',
    "spam@elsewhere.example",
    "spam",
    f"<@{_US}:spam@elsewhere.example>",
    f"<spam@{_US}> AUTH=<root@{_US}>",
    f"<root@{_US}> SIZE=100 BODY=8BITMIME",
)
_VICTIMS = (
    "<victim@example.net>",
    "victim@example.net",
    f"<victim%example.net@{_US}>",
    "<victim%example.net@[127.0.0.1]>",
    f'<"victim%example.net"@{_US}>',
    f"<@{_US}:victim@example.net>",
    f"<@{_US},@relay.example:victim@example.net>",
    "<@[127.0.0.1]:victim@example.net>",
    f'<"victim@example.net"@{_US}>',
    '<"victim@example.net">',
    f"<victim@example.net@{_US}>",
    "<victim@example.net@[127.0.0.1]>",
    f"<example.net!victim@{_US}>",
    "<example.net!victim>",
    f"<{_US}!example.net!victim>",
    f"<victim%example.net%{_US}@{_US}>",
    f"<{_US}:victim@example.net>",
    "<postmaster>",
)


class Stranger:
    """A client at an address that may not relay, who takes no answer for an answer."""

    def __init__(self, port: int, hello: str = "EHLO friend.example") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10, source_address=("127.0.0.1", 0))
        self.stream = self.socket.makefile("rwb")
        assert self.answer()[0] == 220
        assert self.say(hello)[0] == 250

    def answer(self) -> tuple[int, str]:
        while True:
            line = self.stream.readline()
            if not line:
                return 0, "gone"
            if line[3:4] == b" ":
                return int(line[:3]), line[4:].decode().strip()

    def say(self, command: str) -> tuple[int, str]:
        self.stream.write(command.encode() + b"\r\n")
        self.stream.flush()
        return self.answer()

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


@pytest.mark.parametrize("victim", _VICTIMS)
def test_no_trick_with_a_recipient_makes_it_relay_for_strangers(node, victim):
    """If it failed, the daemon would be an open relay, and its address on every block list by the morning."""
    before = node.status()["totals"]["accepted"]
    for sender in _SENDERS:
        stranger = Stranger(node.smtp_port)
        code, text = stranger.say(f"MAIL FROM:{sender}")
        assert (code, text.split()[0]) == (554, "5.7.1"), (sender, code, text)
        for command in (f"RCPT TO:{victim}", "DATA", "BDAT 0 LAST"):
            code, _ = stranger.say(command)
            assert 500 <= code < 600, (command, code)
        stranger.close()
    assert node.status()["totals"]["accepted"] == before


@pytest.mark.parametrize(
    "hello", ["HELO friend.example", f"EHLO {_US}", "EHLO localhost", "EHLO [127.0.0.2]", "EHLO 127.0.0.2"]
)
def test_no_name_makes_a_stranger_a_friend(node, hello):
    """If it failed, a client that calls itself by our name would be believed."""
    stranger = Stranger(node.smtp_port, hello)
    assert stranger.say("MAIL FROM:<a@example.com>")[0] == 554
    stranger.close()


@pytest.mark.parametrize(
    "command",
    [
        "XCLIENT ADDR=127.0.0.2 NAME=friend.example",
        "XFORWARD ADDR=127.0.0.2",
        "PROXY TCP4 127.0.0.2 127.0.0.1 4711 25",
        "AUTH PLAIN AHVzZXIAcGFzcw==",
        "AUTH LOGIN",
        "STARTTLS",
        "ETRN example.net",
        "TURN",
        "SEND FROM:<a@example.com>",
        "SAML FROM:<a@example.com>",
        "EXPN postmaster",
        "MAIL\tFROM:<a@example.com>",
        "MAIL FROM:<a@example.com>\x00",
    ],
)
def test_no_command_makes_a_stranger_a_friend(node, command):
    """If it failed, a command that some other server believes would open this one."""
    stranger = Stranger(node.smtp_port)
    code, _ = stranger.say(command)
    assert 500 <= code < 600, code
    assert stranger.say("MAIL FROM:<a@example.com>")[0] == 554
    stranger.close()


def test_what_strangers_pipeline_behind_a_refusal_is_refused_too(node):
    """If it failed, a transaction that was sent in one piece would slip in behind the refusal of its MAIL."""
    before = node.status()["totals"]["accepted"]
    stranger = Stranger(node.smtp_port)
    stranger.stream.write(
        b"MAIL FROM:<a@example.com>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"
    )
    stranger.stream.flush()
    assert [stranger.answer()[0] for _ in range(3)] == [554, 503, 503]
    assert node.status()["totals"]["accepted"] == before
    stranger.close()


@pytest.mark.parametrize(
    ("recipient", "lane", "address"),
    [
        ("victim%example.net@example.org", "example.org", "victim%example.net@example.org"),
        ("example.net!victim@example.org", "example.org", "example.net!victim@example.org"),
        ('"victim@example.net"@example.org', "example.org", '"victim@example.net"@example.org'),
        ('"a>b"@example.org', "example.org", '"a>b"@example.org'),
        ("@example.org:victim@example.net", "example.net", "victim@example.net"),
        ("@a.example,@b.example:victim@example.net", "example.net", "victim@example.net"),
    ],
)
def test_a_friend_s_mail_goes_to_the_domain_and_to_nothing_in_the_local_part(node, recipient, lane, address):
    """If it failed, a local part could send a mail past the limits of its lane, or to a place that nobody named."""
    with smtplib.SMTP("127.0.0.1", node.smtp_port, source_address=("127.0.0.2", 0), timeout=30) as session:
        session.ehlo()
        assert session.docmd("MAIL FROM:<a@news.example>")[0] == 250
        assert session.docmd(f"RCPT TO:<{recipient}>")[0] == 250
        code, text = session.data(message("routing"))
        assert code == 250
        queued = text.decode().rpartition(" ")[2]
    [row] = [row for row in waiting(node, campaign="routing") if row["message"] == queued]
    assert (row["lane"], row["recipient"]) == (lane, address)


def test_nobody_may_relay_where_nobody_is_named(tmp_path):
    """If it failed, an empty list would mean everyone."""
    one = Daemon(tmp_path, route=free_port())
    one.config.write_text(one.config.read_text().replace("[[listener]]\n", "[[listener]]\nrelay_from = []\n", 1))
    try:
        one.start()
        assert inject(one.smtp_port, "victim@example.net")[0] == 554
    finally:
        one.end()
