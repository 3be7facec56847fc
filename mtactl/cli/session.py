"""What each verb has at hand: the socket, the form of the output, and the two streams it may write to.

Documents and tables go to stdout. What is said beside them goes to stderr, and a stderr that is gone stops nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from mtactl.cli.text import clean

__all__ = ["DEFAULT_SOCKET", "SOCKET_VARIABLE", "PipeGone", "Session", "Word", "verb"]

SOCKET_VARIABLE = "MTACTL_SOCKET"
DEFAULT_SOCKET = "/run/mtactl/control.sock"

# What JSON leaves as it is and a terminal acts on, in UTF-8: DEL, C1 controls, separators, marks of direction. None of
# these sequences starts inside another character.
_UNPRINTABLE = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")

Function = TypeVar("Function", bound=Callable[..., Any])


class PipeGone(Exception):  # not an OSError: click has its own ending for those
    """No one reads stdout any more."""


@dataclass(slots=True, kw_only=True)
class Session:
    """The options that all verbs share."""

    socket: Path
    json: bool = False

    def write(self, text: bytes) -> None:
        """Write whole lines of UTF-8 to stdout, with what a terminal would act on spelt out."""
        harmless = _UNPRINTABLE.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), text)
        sys.stdout.buffer.write(_CONTROL.sub(lambda found: b"\\u%04x" % found[0][0], harmless))

    def document(self, body: bytes) -> None:
        """Write one JSON document to stdout."""
        self.write(body.strip() + b"\n")
        sys.stdout.flush()

    def say(self, *lines: str) -> None:
        """Write lines for a person to stdout."""
        for line in lines:
            print(clean(line))

    def note(self, *lines: str) -> None:
        """Write lines for a person to stderr."""
        with contextlib.suppress(OSError, ValueError):
            for line in lines:
                print(clean(line), file=sys.stderr, flush=True)

    @property
    def can_ask(self) -> bool:
        """Whether there is a person who sees a question and can answer it."""
        return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()

    def ask(self, question: str) -> str:
        """Ask on stderr; give the answer without the spaces around it, "" when there is none."""
        print(clean(question), end=" ", file=sys.stderr, flush=True)
        try:
            answer = sys.stdin.readline()
        except UnicodeDecodeError:
            return ""
        except KeyboardInterrupt:
            answer = ""
        if not answer.endswith("\n"):
            self.note("")
        return answer.strip()


class Word(click.ParamType):
    """Text that can be sent: UTF-8, and not empty."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Give the text. Fails when it is not one."""
        text = str(value)
        if not text:
            self.fail("it is empty.", param, ctx)
        try:
            os.fsencode(text).decode()
        except UnicodeDecodeError:
            self.fail("it is not UTF-8.", param, ctx)
        return text


class _Verb(click.Command):
    """A command that takes the shared options as well, so that they may stand behind the verb."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params += [
            click.Option(
                ["--json", "as_json"],
                is_flag=True,
                expose_value=False,
                callback=_set_json,
                help="Print JSON, and nothing else on stdout.",
            ),
            click.Option(
                ["--socket"],
                metavar="PATH",
                type=click.Path(path_type=Path),
                expose_value=False,
                callback=_set_socket,
                help=f"mtactld's control socket, else ${SOCKET_VARIABLE}, else {DEFAULT_SOCKET}.",
            ),
        ]


    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb. Raises PipeGone when what it has to say is not wanted."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            raise PipeGone from None
        return result


def _set_json(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Session).json = True


def _set_socket(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.ensure_object(Session).socket = value


def verb(name: str, **options: Any) -> Callable[[Callable[..., None]], click.Command]:
    """Make a function a command of that name. Its first argument is the Session."""

    def make(function: Callable[..., None]) -> click.Command:
        return click.command(name, cls=_Verb, **options)(click.pass_obj(function))

    return make
