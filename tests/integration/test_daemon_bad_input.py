"""What an administrator, a configuration or an application gets wrong: a clear error, and nothing else happens."""

from __future__ import annotations

import json
import smtplib
import socket

import pytest

from tests.world.application import inject, message
from tests.world.daemon import Daemon
from tests.world.operator import log_lines, mtactl, mtactld, waiting


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A node whose only destination is out of reach, for tests that leave it as it was."""
    listener = "max_message_size = "
    folder = tmp_path_factory.mktemp("node")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens: refused, and nobody else gets it
        one = Daemon(folder, route=taken.getsockname()[1])
        text = one.config.read_text().replace('[lane."*"]', f'{listener}"20KiB"\n[lane."*"]')
        one.config.write_text(text)
        try:
            one.start()
            yield one
        finally:
            one.end()


def halts(node: Daemon) -> list[str]:
    campaigns = node.call("GET", "/v1/campaigns")[1]["campaigns"]
    return [report["campaign"] for report in campaigns if report["stop"] is not None]


@pytest.mark.parametrize(
    "body", [{"confirm": "spring-2"}, {"confirm": ""}, {"confirm": "Spring-1"}, {"confirm": None}, {}, None]
)
def test_api_takes_no_wrong_confirmation(node, body):
    """If it failed, a slip of the finger would stop a campaign for ever."""
    status, problem = node.call("POST", "/v1/campaigns/spring-1/halt", body)
    assert status == 422
    assert problem["status"] == 422
    assert "confirm" in problem["detail"]
    assert halts(node) == []


def test_client_takes_no_wrong_confirmation(node):
    """If it failed, a script with a wrong variable in it would stop a campaign for ever and not notice."""
    wrong = mtactl(node.socket, "halt", "spring-1", "--confirm", "spring-2")
    missing = mtactl(node.socket, "--json", "halt", "spring-1")
    assert (wrong.returncode, missing.returncode) == (2, 2)
    assert "spring-2" in wrong.stderr
    assert "Traceback" not in wrong.stderr + missing.stderr
    assert halts(node) == []


def test_client_says_that_nobody_listens(node, tmp_path):
    """If it failed, a monitoring system could not tell a dead daemon from one that says no."""
    dead = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead))
    for path in (dead, tmp_path / "nothing.sock"):
        for command in (["status"], ["halt", "spring-1", "--confirm", "spring-1"]):
            run = mtactl(path, *command)
            assert run.returncode == 3, run
            assert str(path) in run.stderr
            assert "Traceback" not in run.stderr


def test_configuration_is_turned_down_with_all_that_is_wrong_with_it(node, tmp_path):
    """If it failed, a typing error would run with a default in silence, or take a restart for each one to be found."""
    config = tmp_path / "mtactl.toml"
    config.write_text(
        '[node]\nhostnam = "mta.example.com"\n[delivery]\nretry = ["5 parsecs"]\nport = 99999\n'
        '[[listener]]\nlisten = "127.0.0.1"\n[lane."*"]\nrate = 100\n'
    )
    run = mtactld(config)
    assert run.returncode == 78
    assert len(run.stderr.splitlines()) >= 5, run.stderr
    for key in ("node.hostnam", "delivery.retry", "delivery.port", "listen", "rate"):
        assert key in run.stderr
    assert "hostname" in run.stderr, "what was meant"
    assert "Traceback" not in run.stderr
    good = mtactld(node.config, "--check")
    assert (good.returncode, good.stderr) == (0, "")


def test_second_daemon_says_who_has_the_store(node, tmp_path):
    """If it failed, two daemons would send the same queue, or nobody could find the one that is in the way."""
    other = Daemon(tmp_path)
    other.config.write_text(other.config.read_text().replace(f"{tmp_path}/store", f"{node.folder}/store"))
    run = mtactld(other.config)
    assert run.returncode == 1
    (line,) = [json.loads(line) for line in run.stderr.splitlines() if "can't start" in line]
    assert str(node.process.pid) in line["why"], line
    assert f"{node.folder}/store" in line["why"], line
    assert "Traceback" not in run.stderr
    assert node.status()["health"] == "ok"


@pytest.mark.parametrize("which", ["smtp_port", "metrics_port", "socket"])
def test_address_that_is_taken_is_named(node, tmp_path, which):
    """If it failed, the daemon would run without a way in, or with a message that does not say which address."""
    other = Daemon(tmp_path)
    mine, theirs = str(getattr(other, which)), str(getattr(node, which))
    other.config.write_text(other.config.read_text().replace(mine, theirs))
    run = mtactld(other.config)
    assert run.returncode == 1, run.stderr
    (line,) = [json.loads(line) for line in run.stderr.splitlines() if "can't start" in line]
    assert theirs in line["why"], line
    assert "Traceback" not in run.stderr
    assert node.is_ready()
    assert node.status()["health"] == "ok"
    # What it had opened was closed in order.
    other.config.write_text(other.config.read_text().replace(theirs, mine))
    other.end()
    assert other.fsck().returncode == 0, other.fsck().stdout


def test_message_over_the_size_is_refused(node):
    """If it failed, one message could fill the disk, or the application would learn it after megabytes."""
    before = node.status()["totals"]["accepted"]
    assert inject(node.smtp_port, "r@one.example", mail=["SIZE=20481"])[0] == 552
    big = message("c", body=b"x" * 70 + b"\r\n")
    big += b"y" * 70 + b"\r\n"
    long = big + (b"z" * 70 + b"\r\n") * 300
    code, text = inject(node.smtp_port, "r@one.example", data=long)
    assert (code, text[:5]) == (552, "5.3.4")
    assert inject(node.smtp_port, "r@one.example", data=long, mail=["SIZE=100"])[0] == 552
    with smtplib.SMTP("127.0.0.1", node.smtp_port, timeout=30) as session:
        session.ehlo()
        assert session.esmtp_features["size"] == "20480"
        session.mail("a@news.example")
        session.rcpt("r@one.example")
        assert session.data(long)[0] == 552
        session.mail("a@news.example")
        session.rcpt("r@one.example")
        assert session.data(big)[0] == 250, "the session is good for another one"
    assert node.status()["totals"]["accepted"] == before + 1


def test_destination_out_of_reach_keeps_its_mail(node):
    """If it failed, mail for a host that is down would be lost or bounced."""
    assert inject(node.smtp_port, "r@down.example", campaign="kept")[0] == 250
    (row,) = waiting(node, domain="down.example")
    assert row["state"] in ("ready", "deferred")
    assert node.report("kept")["counts"]["queued"] == 1


@pytest.mark.parametrize("campaign", ["-leading", "with space", "x" * 129, "=?utf-8?q?=C3=A4?="])
def test_campaign_that_is_none_is_refused_everywhere(node, campaign):
    """If it failed, mail would be sent that no halt can reach, or a halt would name what no mail can have."""
    before = node.status()["totals"]["accepted"]
    code, text = inject(node.smtp_port, "r@one.example", campaign=campaign)
    assert 500 <= code < 600, text
    assert "campaign" in text.lower()
    assert node.status()["totals"]["accepted"] == before
    run = mtactl(node.socket, "halt", "--confirm", campaign, "--", campaign)
    assert run.returncode == 2, run
    assert halts(node) == []


def test_log_is_of_lines_of_json(node):
    """If it failed, a log shipper would choke on the first traceback."""
    assert log_lines(node, "ready")
