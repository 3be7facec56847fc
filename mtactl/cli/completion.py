"""mtactl completion SHELL: the script that lets a shell complete commands, options, campaign ids and lanes.

The scripts ask mtactl itself, by way of click; each TAB is a run of it. Bash splits its words at `:`, `=` and `@`, and
campaign ids may have those in them; so its script hands over the line, and is given back only what stands behind the
last of them.
"""

from __future__ import annotations

import os
import re
from typing import Any, ClassVar

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from mtactl.cli.session import Session, takes_session

__all__ = ["COMPLETE_VARIABLE", "completion", "script"]

COMPLETE_VARIABLE = "_MTACTL_COMPLETE"

_BASH = """\
# bash completion of %(prog_name)s: source it, or put it into /usr/share/bash-completion/completions/%(prog_name)s

%(complete_func)s() {
    local line kind value
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case "$kind" in
            dir) compopt -o dirnames 2>/dev/null ;;
            file) compopt -o default 2>/dev/null ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_BREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    """Takes the line as it was typed, and gives back what bash takes for the rest of its word."""

    source_template: ClassVar[str] = _BASH

    def source(self) -> str:
        """Give the script, whether or not a bash is here."""
        return ShellComplete.source(self)

    def get_completion_args(self) -> tuple[list[str], str]:
        """Split the line up to the cursor as the shell would."""
        line = os.environ.get("COMP_WORDS", "")
        words = split_arg_string(line)
        incomplete = "" if not words or line[-1:].isspace() else words.pop()
        quoted = re.search(r"(?:^|\s)[\"'][^\"']*$", line) is not None
        breaks = [place for place, each in enumerate(incomplete, 1) if each in ":=@" and each in _breaks()]
        self._said = incomplete[: breaks[-1]] if breaks and not quoted else ""
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Leave out what bash has in its line already."""
        return f"{item.type},{str(item.value).removeprefix(self._said)}"


def _breaks() -> str:
    return os.environ.get("COMP_BREAKS", "")


class _Fish(FishComplete):
    """Where the word that is completed has a quote left open, or is a blank, there is nothing to complete."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Give the words before the cursor, and the one at it."""
        words = split_arg_string(os.environ.get("COMP_WORDS", ""))
        incomplete = next(iter(split_arg_string(os.environ.get("COMP_CWORD", ""))), "")
        if incomplete and words and words[-1] == incomplete:
            words.pop()
        return words[1:], incomplete


_SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": ZshComplete, "fish": _Fish}
for _name, _kind in _SHELLS.items():
    add_completion_class(_kind, _name)


def script(shell: str) -> str:
    """Give the script of a shell."""
    return _SHELLS[shell](click.Command("mtactl"), {}, "mtactl", COMPLETE_VARIABLE).source()


@click.command()
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@takes_session
def completion(session: Session, *, shell: str) -> None:
    """Print the script that completes commands, options, campaign ids and lanes.

    \b
    bash: eval "$(mtactl completion bash)" in ~/.bashrc
    zsh:  eval "$(mtactl completion zsh)" in ~/.zshrc, behind compinit
    fish: mtactl completion fish > ~/.config/fish/completions/mtactl.fish
    """  # noqa: D301  click wants the control character
    text = script(shell)
    if session.json:
        import msgspec  # noqa: PLC0415  the scripts alone need none of it

        session.write_json(msgspec.json.encode({"shell": shell, "script": text}))
    else:
        session.write(text.encode())
