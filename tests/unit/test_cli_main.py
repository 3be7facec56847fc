"""The command line: options, verbs, usage."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from mtactl.cli.failures import Failure, Refused
from mtactl.cli.main import program
from mtactl.control.types import Problem

VERBS = ["status", "campaigns", "show", "halt", "stop", "cancel", "hold", "release"]
VERBS += ["recipients", "queue", "lanes", "events", "reload", "fsck"]


def invoke(*arguments: str, **env: str):
    return CliRunner().invoke(program, list(arguments), env={"MTACTL_SOCKET": "", **env}, prog_name="mtactl")


def test_the_verbs_of_the_contract_are_there():
    """Broken: a command of the contract is missing or can't be found."""
    told = invoke("--help")
    assert told.exit_code == 0
    listed = [line.split()[0] for line in told.output.partition("Commands:")[2].splitlines() if line.startswith("  ")]
    assert listed == VERBS
    for verb in VERBS:
        assert invoke(verb, "--help").exit_code == 0
    assert all(name in invoke("queue", "--help").output for name in ("ls", "show", "retry", "drop"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["show"],
        ["show", "not an id"],
        ["show", ""],
        ["show", "-x"],
        ["show", "x" * 129],
        ["halt", "c1", "--timeout", "-1"],
        ["halt", "c1", "--timeout", "soon"],
        ["halt", "c1", "--confirm", "C1"],
        ["campaigns", "--state", "gone"],
        ["recipients", "c1", "--outcome", "lost"],
        ["recipients", "c1", "--format", "xml"],
        ["--json", "recipients", "c1", "--format", "csv"],
        ["queue", "ls", "--limit", "0"],
        ["queue", "ls", "--domain", ""],
        ["queue", "drop"],
        ["queue", "drop", "--confirm"],
        ["queue", "drop", "--domain", "", "--confirm"],
        ["queue", "drop", "--sender", "", "--confirm"],
        ["queue", "drop", "--domain", "example.com"],
        ["queue", "retry", "--id", ""],
    ],
)
def test_usage_is_2(arguments):
    """Broken: a script can't tell its own mistake from the daemon's no; or an empty variable drops the whole queue."""
    ended = invoke(*arguments, MTACTL_SOCKET="/nonexistent/control.sock")
    assert ended.exit_code == 2, ended.output


def test_the_socket_is_the_option_or_the_variable_or_the_default():
    """Broken: the client speaks to another daemon than was meant."""
    assert "/nonexistent/a" in invoke("--socket", "/nonexistent/a", "status", MTACTL_SOCKET="/nonexistent/b").output
    assert "/nonexistent/a" in invoke("status", "--socket", "/nonexistent/a", MTACTL_SOCKET="/nonexistent/b").output
    assert "/nonexistent/b" in invoke("status", MTACTL_SOCKET="/nonexistent/b").output
    assert "[default: /run/mtactl/control.sock]" in " ".join(invoke("--help").output.split())


def test_the_version_needs_no_drawing():
    """Broken: every call in a script pays for tables that it does not print."""
    code = (
        "import sys; from mtactl.cli.main import program; program(['--version'], standalone_mode=False);"
        "print(*(name for name in sys.modules if name in {'rich.console', 'asyncio', 'aiohttp', 'pydantic', 'apsw'}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("mtactl 0.")
    assert ended.stdout.splitlines()[1] == ""


def test_problems_are_not_said_twice():
    """Broken: each mistake in a configuration is shown two times."""
    problem = Problem(
        type="t", title="Bad", status=422, detail="Nothing was changed. a: x b: y", problems=("a: x", "b: y")
    )
    assert Refused(problem, b"{}").sentence == "Bad"
    assert list(Refused(problem, b"{}").hints) == ["a: x", "b: y"]
    assert b'"type":"urn:mtactl:problem:failed"' in Failure("no", "look").document()
