"""Completion in real shells, with a real TAB where a terminal is at hand: commands, options, ids, lanes, states."""

import asyncio
import os
import shlex
import socket
import sys

import pytest

from mtactl.campaign.state import CampaignEvent
from tests.integration.test_cli_terminal import tmux
from tests.world.control import serving, short_folder
from tests.world.memory_node import MemoryNode
from tests.world.terminal import environment, run

IDS = ("spring-sale", "spring:sale@shop=1", "2026/11/a+b", "held-one")


def node_with_campaigns() -> MemoryNode:
    node = MemoryNode()
    for campaign in IDS:
        node.accept(campaign, ["a@example.com", "b@other.example"])
    node.gate.move("held-one", CampaignEvent.HOLD)
    return node


def settings(socket, folder, **more: str) -> dict[str, str]:
    """Give an environment in which `mtactl` is the client of this tree."""
    program = folder / "mtactl"
    if not program.exists():
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mtactl.cli.main "$@"\n')
        program.chmod(0o755)
    found = environment(socket, {"HOME": str(folder), **more})
    return {**found, "PATH": f"{folder}:{found['PATH']}"}


async def shell(env: dict[str, str], *command: str) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert err == b"", err
    return out.decode().split("\n")[:-1]


BASH = """
eval "$(mtactl completion bash)"
complete_line() {
    COMP_LINE=$1 COMP_POINT=${#1} COMPREPLY=()
    _mtactl_completion mtactl
    printf '%s\\n' "${COMPREPLY[@]}" =
}
"""


@pytest.mark.needs("bash", "bash")
async def test_bash_completes_all_kinds_of_words():
    """Broken: a long id has to be typed at two in the morning; or one with a colon is completed to garbage."""
    lines = {
        "mtactl ca": ["campaigns", "cancel"],
        "mtactl campaigns --state hal": ["halting", "halted"],
        "mtactl recipients spring-sale --outcome b": ["bounced"],
        "mtactl show spr": ["spring-sale", "spring:sale@shop=1"],
        "mtactl show spring:s": ["sale@shop=1"],
        "mtactl show spring:sale@shop=": ["1"],
        "mtactl show 2026/": ["2026/11/a+b"],
        "mtactl release ": ["held-one"],
        "mtactl hold he": [],
        "mtactl --json halt held": ["held-one"],
        "mtactl lanes ex": ["example.com"],
        "mtactl queue ls --domain oth": ["other.example"],
        "mtactl show 'spring:s": ["spring:sale@shop=1"],
    }
    async with serving(node_with_campaigns()) as api, short_folder() as folder:
        script = BASH + "\n".join(f"complete_line {shlex.quote(line)}" for line in lines)
        told = await shell(settings(api.path, folder), "bash", "--norc", "-c", script)
    answers, words = [], []
    for line in told:
        if line == "=":
            answers.append(sorted(filter(None, words)))
            words = []
        else:
            words.append(line)
    assert dict(zip(lines, answers, strict=True)) == {line: sorted(words) for line, words in lines.items()}


@pytest.mark.needs("bash", "bash")
async def test_without_a_daemon_nothing_is_said_and_nobody_waits():
    """Broken: TAB writes a complaint into the line, or hangs while the daemon does."""
    async with short_folder() as folder:
        with socket.socket(socket.AF_UNIX) as hung:
            hung.bind(str(folder / "hung"))
            hung.listen(10)  # and nobody ever answers
            for path in (folder / "none", folder / "hung"):
                script = BASH + "complete_line 'mtactl show spr'; complete_line 'mtactl sta'"
                async with asyncio.timeout(20):
                    told = await shell(settings(path, folder), "bash", "--norc", "-c", script)
                assert told == ["=", "status", "="]


@pytest.mark.needs("fish", "fish")
async def test_fish_completes_ids():
    """Broken: the users of fish have none of it."""
    async with serving(node_with_campaigns()) as api, short_folder() as folder:
        script = (
            'mtactl completion fish | source; complete -C "mtactl show spring:"; echo =; complete -C "mtactl relea"'
        )
        script += '; echo =; complete -C "mtactl queue ls --state sch"'
        told = await shell(settings(api.path, folder), "fish", "--private", "-c", script)
    assert [line.split("\t")[0] for line in told] == ["spring:sale@shop=1", "=", "release", "=", "scheduled"]


@pytest.mark.needs("tmux", "tmux")
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["bash", "--norc", "-i"], marks=pytest.mark.needs("bash", "bash"), id="bash"),
        pytest.param(["zsh", "-f", "-i"], marks=pytest.mark.needs("zsh", "zsh"), id="zsh"),
    ],
)
async def test_the_tab_key(command):
    """Broken: what the tests of functions say is not what happens at the prompt."""
    async with serving(node_with_campaigns()) as api, short_folder() as folder:
        env = settings(api.path, folder, PS1="ready> ")
        server = f"mtactl-{folder.name}"
        given = [f"{name}={env[name]}" for name in ("PATH", "HOME", "PS1", "MTACTL_SOCKET", "PYTHONPATH", "LANG", "TZ")]
        line = shlex.join(["env", *given, *command])
        await tmux(server, "new-session", "-d", "-x", "100", "-y", "24", "-s", "s", line)

        async def look(text: str) -> None:
            screen = ""
            for _ in range(600):
                screen = await tmux(server, "capture-pane", "-p", "-t", "s")
                if text in screen:
                    return
                await asyncio.sleep(0.05)
            raise AssertionError(f"{text!r} is not on {screen!r}")

        async def keys(*pressed: str) -> None:
            await tmux(server, "send-keys", "-t", "s", *pressed)

        try:
            await look("ready>")
            if command[0] == "zsh":
                await keys("autoload -U compinit && compinit -u -d $HOME/.zcompdump && echo loaded", "Enter")
                await look("\nloaded")
            await keys(f'eval "$(mtactl completion {command[0]})" && echo here', "Enter")
            await look("\nhere")
            for typed, completed in (
                ("mtactl show spring:", "mtactl show spring:sale@shop=1"),
                ("mtactl rele", "mtactl release"),
                ("mtactl hold 2026", "mtactl hold 2026/11/a+b"),
            ):
                await keys("-l", typed)
                await look(f"ready> {typed}")
                await keys("Tab")
                await look(f"ready> {completed}")
                await keys("C-u")
        finally:
            await tmux(server, "kill-server")


async def test_the_script_as_a_document():
    """Broken: --json of this one command is something else than JSON."""
    told = await run(None, "--json", "completion", "zsh")
    assert told.code == 0
    assert told.json["script"] == (await run(None, "completion", "zsh")).out
    assert told.json["script"].startswith("#compdef mtactl")
    assert (await run(None, "completion", "tcsh")).code == 2
    assert os.environ.get("_MTACTL_COMPLETE") is None
