"""`make pictures`: the picture of a halt in docs/images, from a real run: the client on a terminal of tmux, drawn by
rich's recorder.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.world.busy import busy_node

CAMPAIGNS = {"spring-sale": 30_000, "weekly-letter": 20_000}
VICTIM = "spring-sale"
WARM_UP = 20.0  # seconds
PATIENCE = 120.0


class Tmux:
    """A terminal of tmux's, on a server of its own."""

    def __init__(self, folder: Path, command: str, *, columns: int, lines: int, env: dict[str, str]) -> None:
        self._server = ("tmux", "-S", str(folder / "tmux"), "-f", "/dev/null")
        # The pane stays when the command has ended, with what it has shown.
        start = f"set -g remain-on-exit on ; set -g status off ; new-session -d -x {columns} -y {lines}"
        settings = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
        self._run(*shlex.split(start), *settings, command)

    def _run(self, *arguments: str) -> str:
        return subprocess.run([*self._server, *arguments], check=True, capture_output=True, text=True).stdout

    def screen(self, *, escapes: bool = False) -> str:
        """Give what is on the screen, with or without its colours."""
        return self._run("capture-pane", "-p", *(["-e"] if escapes else []))

    def type(self, text: str) -> None:
        """Press keys, and Enter."""
        self._run("send-keys", text, "Enter")

    def end(self) -> None:
        """End the server."""
        self._run("kill-server")


async def take_picture(path: Path, columns: int) -> None:
    """Take it."""
    with tempfile.TemporaryDirectory(prefix="mtactl-") as name:
        folder = Path(name)
        async with busy_node(folder, CAMPAIGNS, connections=4) as busy:
            await asyncio.sleep(WARM_UP)
            command = ["mtactl", "halt", VICTIM, "--reason", "wrong prices"]
            program = shlex.join([sys.executable, "-m", "mtactl.cli.main", *command[1:]])
            terminal = Tmux(folder, program, columns=columns, lines=44, env={"MTACTL_SOCKET": str(busy.node.socket)})
            try:
                await _until(terminal, "Type the Campaign ID")
                terminal.type(VICTIM)
                await _until(terminal, "accepted  ")
                await asyncio.sleep(1.0)
                shown = terminal.screen(escapes=True)
            finally:
                terminal.end()
    lines = [line for line in shown.rstrip().splitlines() if "Pane is dead" not in line]
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(f"$ {shlex.join(command)}"))
    console.print(Text.from_ansi("\n".join(lines).rstrip()))
    picture = console.export_svg(title="mtactl halt")
    # The fonts of the page are named in the picture's own style; nothing is to be fetched to see it.
    path.write_text(re.sub(r"@font-face \{.*?\}\n?", "", picture, flags=re.DOTALL))
    print(path)


async def _until(terminal: Tmux, text: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while text not in await asyncio.to_thread(terminal.screen):
            await asyncio.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--columns", type=int, default=80)
    arguments = parser.parse_args()
    asyncio.run(take_picture(arguments.path, arguments.columns))


if __name__ == "__main__":
    main()
