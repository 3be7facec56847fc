"""The console script mtactl: global options, which verb is where, and what each ending's exit code is.

A verb's module is imported when the verb is used, so that `mtactl --version` need not know how to draw a table.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from mtactl.cli.failures import ExitCode, Failure, ReaderGone, Refused
from mtactl.cli.session import DEFAULT_SOCKET, Session, writing
from mtactl.cli.verbs import VerbGroup

__all__ = ["EXIT_CODES", "main", "program"]

# The verb, its module and function, and what `mtactl --help` says of it.
_VERBS: Mapping[str, tuple[str, str, str]] = {
    "status": ("status", "status", "The node at a glance: totals, health, lanes in back-off."),
    "campaigns": ("campaigns", "campaigns", "A row for each campaign, with its counts."),
    "show": ("show", "show", "The report of a campaign; with --html a page to hand on."),
    "halt": ("halt", "halt", "Stop a campaign for ever. It can't be undone."),
    "stop": ("halt", "halt", "Another name of halt."),
    "cancel": ("halt", "halt", "Another name of halt."),
    "hold": ("hold", "hold", "Let nothing of a campaign begin, until it is released."),
    "release": ("hold", "release", "Let a held campaign go on."),
    "recipients": ("recipients", "recipients", "Who got it and who did not, streamed."),
    "queue": ("queue", "queue", "The queue itself: ls, show, retry, drop."),
    "lanes": ("lanes", "lanes", "Destinations: connections, rate, back-off, last replies."),
    "events": ("events", "events", "The stream of what happens."),
    "top": ("top.command", "top", "A live screen: rates, campaigns, lanes, halts."),
    "reload": ("reload", "reload", "Read the configuration again."),
    "fsck": ("fsck", "fsck", "Check the queue's files, while the daemon is stopped."),
    "completion": ("completion", "completion", "The script that completes commands and ids in a shell."),
}

EXIT_CODES: Mapping[int, str] = {
    ExitCode.DONE: "done",
    ExitCode.REFUSED: "the daemon says no",
    ExitCode.USAGE: "usage, or a confirmation that does not match",
    ExitCode.UNREACHABLE: "the daemon can't be reached",
    ExitCode.NOT_PERMITTED: "not permitted",
    ExitCode.UNFINISHED: "accepted, but not completed in the time given",
}


class Program(VerbGroup):
    """The group of all verbs."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Give the verbs in the order of the contract."""
        return list(_VERBS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if cmd_name not in _VERBS:
            return None
        module, function, _ = _VERBS[cmd_name]
        command: click.Command = getattr(import_module(f"mtactl.cli.{module}"), function)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, told) for name, (_, _, told) in _VERBS.items()])
        formatter.write_paragraph()
        formatter.write_text(f"Exit codes: {'; '.join(f'{code:d} {told}' for code, told in EXIT_CODES.items())}.")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; map how it ends to an exit code."""
        try:
            result = super().invoke(ctx)
            with writing():
                sys.stdout.flush()
        except Failure as failure:
            session = ctx.find_object(Session) or Session(DEFAULT_SOCKET)
            if isinstance(failure, Refused) and failure.is_unknown_campaign and session.campaign:
                from mtactl.cli.suggestions import nearest_campaigns  # noqa: PLC0415  after a mistake only

                failure.suggest(nearest_campaigns(session.client, session.campaign))
            session.tell_failure(failure)
            ctx.exit(failure.code)
        except ReaderGone:
            ctx.exit(ExitCode.DONE)
        except (KeyboardInterrupt, click.Abort):
            ctx.exit(ExitCode.INTERRUPTED)
        return result


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version  # noqa: PLC0415  half of what a start costs, and a shell waits for it

    click.echo(f"mtactl {version('mtactl')}")
    ctx.exit()


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--socket",
    type=click.Path(readable=False),
    metavar="PATH",
    envvar="MTACTL_SOCKET",
    default=DEFAULT_SOCKET,
    show_default=True,
    help="The daemon's control socket; else $MTACTL_SOCKET.",
)
@click.option("--json", is_flag=True, help="Print one JSON document (a line of JSON a row where it streams).")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
@click.pass_context
def program(ctx: click.Context, socket: str, json: bool) -> None:
    """Watch over the outbound queue of mtactld, and stop a campaign: mtactl halt CAMPAIGN."""
    ctx.obj = Session(socket or DEFAULT_SOCKET)
    ctx.obj.json = json


def main() -> None:
    """Run the client with the arguments of the command line."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    if "_MTACTL_COMPLETE" in os.environ:
        import_module("mtactl.cli.completion")  # how the shells ask; click takes it from here
    program(prog_name="mtactl")


if __name__ == "__main__":
    main()
