"""What every command has in hand: the client of the control socket, and whether it is to speak JSON."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import click

from mtactl.cli.client import Client
from mtactl.cli.failures import Failure, ReaderGone
from mtactl.cli.printable import escape_json, printable

__all__ = [
    "DEFAULT_SOCKET",
    "SOCKET_KEY",
    "Session",
    "check_campaign",
    "check_filled",
    "is_campaign_start",
    "silence",
    "takes_session",
    "writing",
]

DEFAULT_SOCKET = "/run/mtactl/control.sock"
SOCKET_KEY = "mtactl.socket"  # in click's `meta`: the --socket behind a verb, while a line is only being completed

_CAMPAIGN = "[A-Za-z0-9][A-Za-z0-9._:+=/@-]{0,127}"  # CONTRACT.md §1


class Session:
    """One run of the client. `streams` is set by commands whose JSON is a line a row: a failure is then no line of it.

    `answered` is set when the one JSON document of a command was written; `campaign` is the one that it is about.
    """

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.json = False
        self.streams = False
        self.answered = False
        self.campaign: str | None = None

    @property
    def client(self) -> Client:
        """The daemon's control API."""
        return Client(self.socket)

    def write_json(self, document: bytes) -> None:
        """Write one JSON document, in a line of its own."""
        self.answered = True
        self.write(escape_json(document.strip()) + b"\n")

    def write(self, octets: bytes) -> None:
        """Write octets to the standard output. Raises ReaderGone, and Failure when they can't be written."""
        out = binary_stdout()
        with writing():
            sys.stdout.flush()
            out.write(octets)
            out.flush()

    def tell(self, *lines: str) -> None:
        """Say something on the standard error stream. That no one reads it changes nothing."""
        try:
            for line in lines:
                print(_fold(printable(line)), file=sys.stderr)
            sys.stderr.flush()
        except OSError:
            silence(sys.stderr)

    def tell_failure(self, failure: Failure) -> None:
        """Say why the command failed; in JSON too, where a document is awaited and none was written."""
        hints = failure.hints
        if len(hints) == 1 or not hints:
            self.tell(f"mtactl: {failure.sentence}", *(f"        {hint}" for hint in hints))
        else:
            self.tell(f"mtactl: {failure.sentence}:", *(f"  - {hint}" for hint in hints))
        if self.json and not self.streams and not self.answered:
            with contextlib.suppress(ReaderGone, Failure):
                self.write_json(failure.document())


def _fold(line: str) -> str:
    """Break a line between words where a terminal would break it anywhere."""
    if not sys.stderr.isatty():
        return line
    indent = " " * (len(line) - len(line.lstrip()))
    width = max(shutil.get_terminal_size().columns, 2 * len(indent) + 2)
    return textwrap.fill(line, width, subsequent_indent=indent or "        ", break_on_hyphens=False)


def binary_stdout() -> BinaryIO:
    """Give the standard output for octets."""
    return sys.stdout.buffer


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Map what goes wrong in writing to the standard output. Raises ReaderGone or Failure."""
    try:
        yield
    except BrokenPipeError as error:
        silence(sys.stdout)
        raise ReaderGone from error
    except OSError as error:
        silence(sys.stdout)
        raise Failure(f"the output can't be written: {error.strerror or error}") from error


def silence(stream: Any) -> None:
    """Let what is still in the stream's buffer go nowhere, so that Python's own flush at the end finds no fault."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def is_campaign_start(text: str) -> bool:
    """Whether the text may be the beginning of a campaign's id."""
    return re.fullmatch(_CAMPAIGN, text) is not None


def check_campaign(ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Check a campaign's id for its form, so that a slip of the keyboard is a matter of usage."""
    if value is not None and re.fullmatch(_CAMPAIGN, value) is None:
        raise click.BadParameter(f"{printable(value)!r} is not a campaign id, which has the form {_CAMPAIGN}")
    session = ctx.find_object(Session)
    if session is not None:
        session.campaign = value
    return value


def check_filled(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Refuse an empty text: from a shell variable that was not set, it must not come to mean everything."""
    if value == "":
        raise click.BadParameter("it is empty")
    return value


def takes_session(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hand the session to a command, and let the global options stand behind the verb as well."""
    with_json = click.option("--json", is_flag=True, expose_value=False, callback=_set_json, help="Print JSON.")
    with_socket = click.option(
        "--socket",
        type=click.Path(readable=False),
        metavar="PATH",
        expose_value=False,
        callback=_set_socket,
        hidden=True,
    )
    return with_json(with_socket(click.make_pass_decorator(Session)(function)))


def _set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    session = ctx.find_object(Session)
    if session is not None and value:
        session.json = True


def _set_socket(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    ctx.meta[SOCKET_KEY] = value
    session = ctx.find_object(Session)
    if session is not None and value:
        session.socket = value
