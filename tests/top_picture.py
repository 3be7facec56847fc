"""`make pictures`: the picture of mtactl top in docs/images, from a real run.

Starts a world, the daemon and a load, opens the live screen without a terminal, halts a campaign by its keys,
and keeps what is then on the screen.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from mtactl.cli.client import Client
from mtactl.cli.top.app import TopApp
from mtactl.cli.top.snapshot import Poller, Wanted
from tests.world.busy import busy_node

CAMPAIGNS = {
    "autumn-sale": 60_000,
    "weekly-letter": 30_000,
    "members/2026-11": 20_000,
    "welcome": 9_000,
    "winback:a": 6_000,
    "winback:b": 5_000,
}
VICTIM = "autumn-sale"
WARM_UP = 45.0  # seconds, so that the sparklines have a past
PATIENCE = 60.0


async def take_picture(path: Path, columns: int, lines: int) -> None:
    """Take it."""
    with tempfile.TemporaryDirectory(prefix="mtactl-") as name:
        folder = Path(name)
        async with busy_node(folder, CAMPAIGNS, connections=10) as busy:
            client = Client(str(busy.node.socket))
            poller = Poller(client)
            first = await asyncio.to_thread(poller.poll, Wanted())
            app = TopApp(client, poller, first, interval=0.4)
            async with app.run_test(size=(columns, lines)) as pilot:
                await pilot.pause(WARM_UP / 2)
                busy.node.call("POST", "/v1/campaigns/winback:a/hold")
                await pilot.pause(WARM_UP / 2)
                await pilot.press("home", "x")
                await pilot.press(*("minus" if letter == "-" else letter for letter in VICTIM))
                busy.world.freeze()  # what is in flight takes its time
                await pilot.press("tab", *("space" if letter == " " else letter for letter in "wrong prices"), "enter")
                async with asyncio.timeout(PATIENCE):
                    await wait_for(pilot, lambda: under_way(app) is not None)
                    await pilot.pause(0.8)
                    busy.world.thaw()
                    await wait_for(pilot, lambda: under_way(app) != 0)
                await pilot.pause(0.05)
                picture = app.export_screenshot(title="mtactl top", simplify=True)
    # The fonts of the page are named in the picture's own style; nothing is to be fetched to see it.
    path.write_text(re.sub(r"@font-face \{.*?\}\n?", "", picture, flags=re.DOTALL))
    print(path)


async def wait_for(pilot, holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    while not holds():
        await pilot.pause(0.02)


def under_way(app: TopApp) -> int | None:
    """Give how many transactions of the halt have finished, if there is one."""
    for report in app._snapshot.halts:
        for step in report.steps:
            if step.name == "in_flight_finished":
                return step.done
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--columns", type=int, default=110)
    parser.add_argument("--lines", type=int, default=32)
    arguments = parser.parse_args()
    asyncio.run(take_picture(arguments.path, arguments.columns, arguments.lines))


if __name__ == "__main__":
    main()
