"""`mtactl`, the client: finds the verb, and turns every ending into an exit code (CONTRACT.md §3).

A verb's module is imported when it is asked for, so that the client starts fast.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mtactl.cli.failures import Failure
from mtactl.cli.session import DEFAULT_SOCKET, SOCKET_VARIABLE, PipeGone, Session
from mtactl.cli.text import clean

__all__ = ["main"]

VERBS = {
    "status": "status",
    "campaigns": "campaigns",
    "show": "campaigns",
    "halt": "halt",
    "hold": "hold",
    "release": "hold",
    "recipients": "recipients",
    "queue": "queue",
    "lanes": "lanes",
    "events": "events",
    "reload": "reload",
}
OTHER_NAMES = {"stop": "halt", "cancel": "halt"}


class _Verbs(click.Group):
    """The verbs, each found in the module that has it."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        name = OTHER_NAMES.get(name, name)
        if name not in VERBS:
            return None
        command = getattr(importlib.import_module(f"mtactl.cli.{VERBS[name]}"), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    metavar="PATH",
    envvar=SOCKET_VARIABLE,
    default=DEFAULT_SOCKET,
    help=f"mtactld's control socket, else ${SOCKET_VARIABLE}, else {DEFAULT_SOCKET}.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else on stdout.")
@click.version_option(package_name="mtactl", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, socket: Path, as_json: bool) -> None:
    """Look at the outbound mail queue of this machine, and stop a campaign."""
    context.obj = Session(socket=socket, json=as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; give the exit code. An interrupt or a broken pipe ends the process by its signal."""
    try:
        code: Any = cli.main(arguments, prog_name="mtactl", standalone_mode=False)
    except Failure as failure:
        _complain(failure.message, *failure.details)
        return failure.exit_code
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _end_by(signal.SIGINT)
    except PipeGone:
        _end_by(signal.SIGPIPE)
    except OSError as error:
        _complain(f"The output can't be written: {error.strerror or error}.")
        return 1
    return code if isinstance(code, int) else 0


def _complain(message: str, *details: str) -> None:
    with contextlib.suppress(OSError):
        for line in (f"mtactl: {message}", *(f"  {detail}" for detail in details)):
            print(clean(line), file=sys.stderr)
        sys.stderr.flush()


def _end_by(number: signal.Signals) -> None:
    """End by the signal, so that the shell sees what it was."""
    # Nothing is left to be flushed into a pipe that no one reads.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
