"""mtactl fsck: check the queue's files while the daemon is stopped, and explain what is found.

The only command that works on the store's folder and not through the socket: there is no daemon to ask. Hence the one
import of queue_store in this room (an exception in pyproject.toml). It writes nothing into the folder.
"""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec

from mtactl.cli.failures import ExitCode, Failure, NotPermitted
from mtactl.cli.figures import plural
from mtactl.cli.printable import printable
from mtactl.cli.screen import Screen
from mtactl.cli.session import Session, takes_session
from queue_store.fsck import Finding, Severity, StoreError, StoreLocked, check

__all__ = ["fsck"]

_CONFIG = Path("/etc/mtactl/mtactl.toml")
_STORE = Path("/var/lib/mtactl")
_WIDTH = 100


class Unchecked(Failure):
    """The store can't be checked: it is in use, or not there."""

    code = ExitCode.USAGE
    kind = "not-checked"
    title = "The store was not checked"


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help=f"Check the store that this configuration names ({_CONFIG} where neither is given).",
)
@click.pass_context
@takes_session
def fsck(session: Session, ctx: click.Context, folder: Path | None, config: Path | None) -> None:
    """Check the files of the queue, offline: FOLDER, or the store of a configuration. Exits with 1 on any error."""
    if folder is not None and config is not None:
        raise click.UsageError("a folder and --config exclude each other")
    store = folder if folder is not None else _store_of(config or _CONFIG)
    findings = _check(store)
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    if session.json:
        session.write_json(_document(store, findings, errors))
    else:
        screen = Screen()
        screen.show(*_explain(findings, min(screen.width, _WIDTH)))
        if findings:
            notes = len(findings) - errors
            screen.show(f"{printable(str(store))}: {plural(errors, 'error')}, {plural(notes, 'note')}")
        else:
            screen.show(f"{printable(str(store))}: nothing is wrong")
    if errors:
        ctx.exit(ExitCode.REFUSED)


def _check(store: Path) -> Sequence[Finding]:
    try:
        return check(store)
    except StoreLocked as locked:
        hint = "Stop mtactld first (systemctl stop mtactld); while it runs, mtactl status says how the store is."
        raise Unchecked(str(locked), hint) from locked
    except FileNotFoundError as error:
        raise Unchecked(f"there is no store in {store}: {error.filename} is missing") from error
    except PermissionError as error:
        raise NotPermitted(f"{error.filename} can't be read: run it as root or as the daemon's user") from error
    except (StoreError, OSError) as error:
        raise Unchecked(f"{store} can't be checked: {error}") from error


def _store_of(config: Path) -> Path:
    """Give the folder that a configuration names. What else it says is not asked."""
    try:
        with config.open("rb") as file:
            section = tomllib.load(file).get("store", {})
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Unchecked(f"{config} can't be read: {error}", "Name the store's folder instead.") from error
    path = section.get("path", _STORE) if isinstance(section, dict) else _STORE
    return Path(path)


def _explain(findings: Sequence[Finding], width: int) -> Iterator[str]:
    """Tell the findings of a kind together, and then once what is done about them."""
    for kind in dict.fromkeys(finding.kind for finding in findings):
        for finding in findings:
            if finding.kind is kind:
                yield from _fold(f"{finding.severity.value}: {finding.where}: {finding.what}", width, "")
                for affected in finding.affects:
                    yield from _fold(f"- {affected}", width, "    ")
        yield from _fold(f"the daemon: {kind.daemon}", width, "  ")
        yield from _fold(f"you: {kind.person}", width, "  ")
        yield ""


def _fold(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        printable(text),
        max(width, 40),
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _document(store: Path, findings: Sequence[Finding], errors: int) -> bytes:
    return msgspec.json.encode(
        {
            "store": str(store),
            "sound": not errors,
            "errors": errors,
            "notes": len(findings) - errors,
            "findings": [
                {
                    "severity": finding.severity.value,
                    "kind": finding.kind.label,
                    "where": finding.where,
                    "what": finding.what,
                    "affects": finding.affects,
                    "daemon": finding.kind.daemon,
                    "person": finding.kind.person,
                }
                for finding in findings
            ],
        }
    )
