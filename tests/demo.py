"""`make demo`: one campaign of three is halted half-way, and two witnesses are compared recipient by recipient.

Starts a sink that behaves like the world (its own process, its own record), the daemon on an empty store in a temporary
folder, and an application that injects newsletters by SMTP. Then it runs the real client. Ends with 0 when the daemon's
books and the sink's record agree, with 1 and the reasons when they do not, and with 130 on Ctrl-C; in each case nothing
is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from tests.world.books import disagreements, leaks, monotonic_ns
from tests.world.daemon import Daemon, PeerWorld, check_law, daemon, peer_world
from tests.world.injector import Injector
from tests.world.newsletter import DOMAINS, Mail, newsletters

SHARES = {"autumn-sale": 50, "weekly-letter": 30, "members": 20}
VICTIM = "autumn-sale"
LATECOMERS = 20  # recipients whom the application adds after the halt
PATIENCE = 120.0  # seconds that any stage may take
RETRY = '["2s", "3s", "4s"]'
ROOM = 60_000  # octets on disk for each message, at the most

# What the sink does, by domain: seconds, and shares of the recipients.
WORLD = {
    "*": {"latency": 0.08, "jitter": 0.5},
    "gmail.example": {},
    "yahoo.example": {"latency": 0.1, "defer": 0.08},
    "outlook.example": {"latency": 0.1, "reject": 0.01},
    "hotmail.example": {"latency": 0.1, "reject": 0.03},
    "aol.example": {"latency": 0.15, "defer_end": 0.05},
    "web.example": {"latency": 0.1, "greylist": True},
    "orange.example": {"latency": 0.5, "defer": 0.05},
    "libero.example": {"latency": 0.3, "reject": 0.05},
    "corp-two.test": {"latency": 0.2, "hang_up": 0.05},
    "university.test": {"latency": 1.2},
}
console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


class Failed(Exception):
    """Something is not as it is to be; the text says what."""


class Stages:
    """Says what comes now, a line a stage."""

    def __init__(self) -> None:
        self._number = 0

    def begin(self, title: str) -> None:
        self._number += 1
        console.print()
        console.print(f"{self._number}  {title}", style="bold")


def tell(*lines: str, style: str = "") -> None:
    for line in lines:
        console.print(f"   {line}", style=style)


def explain(sentences: str) -> None:
    """Say something long."""
    tell(*textwrap.wrap(sentences, min(console.width, 80) - 4))


def schedule_mails(sizes: dict[str, int]) -> Iterator[Mail]:
    """Give the messages of all campaigns, each as far as the others are."""
    sources = {campaign: newsletters(campaign, size) for campaign, size in sizes.items()}
    given: Counter[str] = Counter()
    for _ in range(sum(sizes.values())):
        campaign = min(sizes, key=lambda each: given[each] / sizes[each])
        given[campaign] += 1
        yield next(sources[campaign])


class Progress:
    """Three bars on a terminal; elsewhere a line every few seconds."""

    PAUSE = 3.0  # seconds between two lines

    def __init__(self, sizes: dict[str, int]) -> None:
        self._sizes = sizes
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._told = self._begun = time.monotonic()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, reports: dict[str, dict], injected: int | None) -> None:
        """Show how far all are."""
        now = time.monotonic()
        if self._live is not None:
            self._live.update(self._render(reports, injected), refresh=True)
        elif now - self._told >= self.PAUSE:
            self._told = now
            each = [f"{name} {reports[name]['counts']['delivered']:,}" for name in self._sizes if name in reports]
            tell(f"{now - self._begun:4.0f} s  delivered: {', '.join(each)}")

    def _render(self, reports: dict[str, dict], injected: int | None) -> Group:
        table = Table.grid(padding=(0, 2))
        for _ in range(2):
            table.add_column()
        for _ in range(3):
            table.add_column(justify="right")
        for campaign, size in self._sizes.items():
            counts = reports[campaign]["counts"] if campaign in reports else Counter()
            done = size - (counts["queued"] + counts["in_flight"]) if injected is None else counts["delivered"]
            table.add_row(
                f"   {campaign}",
                ProgressBar(size, done, width=12),
                f"{counts['delivered']:,} delivered",
                f"{counts['queued']:,} queued",
                f"{counts['in_flight']} in flight",
            )
        notes = [] if injected is None else [f"   {injected:,} of {sum(self._sizes.values()):,} injected"]
        return Group(table, *notes)


class Client:
    """The real `mtactl`, as a person runs it."""

    def __init__(self, node: Daemon) -> None:
        script = Path(sys.executable).with_name("mtactl")
        self._command = [str(script)] if script.exists() else [sys.executable, "-m", "mtactl.cli.main"]
        self._environment = {**os.environ, "MTACTL_SOCKET": str(node.socket)}

    async def run(self, *arguments: str) -> None:
        """Run it on this terminal. Fails when it does."""
        tell(f"$ mtactl {' '.join(arguments)}", style="bold cyan")
        await self._run(arguments, None)

    async def read(self, *arguments: str) -> bytes:
        """Run it and give what it wrote."""
        tell(f"$ mtactl {' '.join(arguments)}", style="bold cyan")
        return await self._run(arguments, asyncio.subprocess.PIPE)

    async def _run(self, arguments: tuple[str, ...], stdout: int | None) -> bytes:
        sys.stdout.flush()
        process = await asyncio.create_subprocess_exec(*self._command, *arguments, env=self._environment, stdout=stdout)
        try:
            async with asyncio.timeout(PATIENCE):
                output, _ = await process.communicate()
        except TimeoutError:
            raise Failed(f"mtactl {arguments[0]} took more than {PATIENCE:.0f} s") from None
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
        if process.returncode != 0:
            raise Failed(f"mtactl {arguments[0]} ended with {process.returncode}")
        return output or b""


class Demo:
    """What the stages share."""

    def __init__(self, sizes: dict[str, int], world: PeerWorld, node: Daemon) -> None:
        self.sizes = sizes
        self.world = world
        self.node = node
        self.client = Client(node)
        self.stages = Stages()
        self.completed: dict = {}  # the victim's report when its halt was completed
        self.application = Injector(node.smtp_port, connections=40)

    async def reports(self) -> dict[str, dict]:
        """Give the reports of all campaigns; the law must hold in each."""
        status, document = await asyncio.to_thread(self.node.call, "GET", "/v1/campaigns")
        if status != 200:
            raise Failed(f"the daemon answers {status}: {document}")
        for report in document["campaigns"]:
            check_law(report["counts"])
        return {report["campaign"]: report for report in document["campaigns"]}

    async def follow(self, until: Callable[[dict[str, dict]], bool], what: str, *, injecting: bool) -> None:
        """Show the progress until something holds."""
        deadline = time.monotonic() + PATIENCE
        with Progress(self.sizes) as progress:
            while True:
                reports = await self.reports()
                progress.show(reports, len(self.application.answers) if injecting else None)
                if until(reports):
                    return
                if time.monotonic() > deadline:
                    raise Failed(f"{what} took more than {PATIENCE:.0f} s")
                await asyncio.sleep(0.1)

    async def halt_half_way(self) -> None:
        """Inject all campaigns, and halt the largest while it is being delivered."""
        total, half = sum(self.sizes.values()), self.sizes[VICTIM] // 2
        self.stages.begin(f"The application injects {total:,} newsletters of {len(self.sizes)} campaigns")
        async with asyncio.TaskGroup() as group:
            group.create_task(self.application.inject(schedule_mails(self.sizes)))
            await self.follow(
                lambda reports: VICTIM in reports and reports[VICTIM]["counts"]["delivered"] >= half,
                f"half of {VICTIM}",
                injecting=True,
            )
            self.stages.begin(f"Half of {VICTIM} is out. Halt it, while all goes on")
            await self.client.run("halt", VICTIM, "--confirm", VICTIM)
            self.completed = (await self.reports())[VICTIM]

    async def add_latecomers(self) -> None:
        """Let the application, which knows nothing of the halt, go on."""
        self.stages.begin(f"The application knows nothing of that, and adds {LATECOMERS} recipients")
        latecomers = Injector(self.node.smtp_port, connections=1)
        await latecomers.inject(newsletters(VICTIM, LATECOMERS, seed=2, first=self.sizes[VICTIM]))
        self.application.answers.update(latecomers.answers)
        for code, count in Counter(latecomers.answers.values()).items():
            explain(f"{count} times: {latecomers.texts[code]}")
        if set(latecomers.answers.values()) != {550}:
            raise Failed("mail of a halted campaign is to be refused with 550")

    async def show_late_ones(self) -> None:
        """Show who still got it after the stop."""
        self.stages.begin("Who still got it after the stop: those who were in flight")
        output = await self.client.read("recipients", VICTIM, "--after-stop", "--outcome", "delivered", "--json")
        rows = sorted((json.loads(line) for line in output.splitlines()), key=lambda row: row["at"])
        stop = monotonic_ns((await self.reports())[VICTIM]["stop"]["requested_at"])
        for row in rows[:4] + rows[4:][-2:]:
            if row is rows[-2] and len(rows) > 6:
                tell("...")
            seconds = (monotonic_ns(row["at"]) - stop) / 1e9
            tell(f"+{seconds:.3f} s  {row['recipient']:34.34}  {row['code']} {row['reply']}"[:76])
        tell(f"{len(rows)} in all")

    async def finish_others(self) -> None:
        """Let the other campaigns come to their end."""
        self.stages.begin("The other campaigns go on to their end")
        await self.follow(
            lambda reports: (
                not any(each["counts"]["queued"] + each["counts"]["in_flight"] for each in reports.values())
            ),
            "the end of the other campaigns",
            injecting=False,
        )

    async def show_report(self) -> None:
        """Show the report again: it is to be what it was."""
        self.stages.begin(f"The report of {VICTIM} is still the same, save for what was refused")
        await self.client.run("show", VICTIM)
        report = (await self.reports())[VICTIM]
        later = {**report, "counts": {**report["counts"], "refused": self.completed["counts"]["refused"]}}
        if later != self.completed:
            raise Failed(f"the report of a completed halt has changed: {self.completed} became {report}")

    async def compare(self) -> None:
        """Compare the daemon's books with what the sink saw."""
        self.stages.begin("What the sink saw from outside, by its own record, against the report")
        record = self.world.record()
        answers = Counter(
            (address.partition("@")[0].rpartition("-")[0], code) for address, code in self.application.answers.items()
        )
        table = Table.grid(padding=(0, 2))
        for justify in ("left", *("right",) * len(self.sizes)):
            table.add_column(justify=justify)
        table.add_row("", *self.sizes)
        rows_of, found, lines = {}, [], []
        reports = await self.reports()
        for campaign in self.sizes:
            report, rows = reports[campaign], await asyncio.to_thread(self.node.recipients, campaign)
            rows_of[campaign] = rows
            found += disagreements(report, rows, record)
            counts, taken = report["counts"], record.delivered(campaign)
            if counts["accepted"] != answers[campaign, 250] or counts["refused"] != answers[campaign, 550]:
                found.append(f"{campaign}: the application got other answers than the report counts")
            lines.append(
                (
                    f"{answers[campaign, 250]:,}",
                    f"{len(record.of(campaign)):,}",
                    f"{taken.total():,}",
                    f"{counts['delivered']:,}",
                    f"{len(record.rejected(campaign)):,}",
                    f"{counts['bounced']:,}",
                    f"{counts['dropped']:,}",
                    f"{counts['unknown']:,}",
                )
            )
        titles = (
            "application: taken with 250",
            "sink: transactions begun",
            "sink: messages taken",
            "report: delivered",
            "sink: recipients refused",
            "report: bounced",
            "report: dropped",
            "report: unknown",
        )
        for title, *cells in zip(titles, *lines, strict=True):
            table.add_row(f"   {title}", *cells)
        console.print(table)
        self._compare_stop(reports[VICTIM], rows_of[VICTIM], record, found)

    def _compare_stop(self, report: dict, rows: list[dict], record, found: list[str]) -> None:
        recorded = monotonic_ns(next(step["at"] for step in report["steps"] if step["name"] == "recorded"))
        begun = [address for each in record.begun_after(VICTIM, recorded) for address in each.recipients]
        open_then = [address for each in record.open_at(VICTIM, recorded) for address in each.recipients]
        counts, stop = report["counts"], report["stop"]
        last = max(each.began for each in record.of(VICTIM))
        found += leaks(report, rows, record, recorded)
        console.print()
        when = f"{abs(last - recorded) / 1e6:.1f} ms {'after' if last > recorded else 'before'}"
        explain(
            f"The sink read the last MAIL FROM of {VICTIM} {when} the halt was on record."
            f" It had {len(set(open_then) | set(begun))} transactions that were open then or read later;"
            f" the report counts {stop['in_flight_at_stop']} in flight, of which {counts['delivered_after_stop']}"
            " were delivered."
        )
        if found:
            raise Failed("\n".join(["the report and the sink do not agree:", *found[:20]]))
        console.print()
        everyone = sum(len(record.delivered(campaign)) for campaign in self.sizes)
        tell(f"They agree, recipient by recipient ({everyone:,} deliveries).", style="bold green")
        tell("Nothing began after the halt that was not counted in flight.", style="bold green")

    async def end(self) -> None:
        """Stop the daemon in order and check its files."""
        self.stages.begin("The daemon stops, and its files are checked")
        code = await asyncio.to_thread(self.node.stop)
        check = await asyncio.to_thread(self.node.fsck)
        if code != 0 or check.returncode != 0:
            raise Failed(f"the daemon ended with {code}, the check with {check.returncode}\n{check.stdout}")
        tell("It ended with 0, and its files are sound.")


async def run(messages: int, folder: Path) -> None:
    """Run all stages."""
    sizes = {campaign: messages * share // 100 for campaign, share in SHARES.items()}
    connections = max(2, min(20, messages // 1000))
    console.print(f"mtactl: halt one campaign of {len(sizes)}, half-way, and see that the books balance", style="bold")
    with ExitStack() as stack:
        stages = Stages()
        stages.begin("A sink that behaves like the world")
        world = stack.enter_context(peer_world(folder / "world", WORLD))
        tell(f"{len(DOMAINS)} domains: late answers, 4xx, 5xx, greylisting, connections that break off")
        stages.begin("mtactld, on an empty store and unprivileged ports")
        node = stack.enter_context(
            daemon(
                folder / "node",
                route=world.port,
                lane=f"max_connections = {connections}",
                extra=f"[delivery]\nretry = {RETRY}",
            )
        )
        tell("To look at it from another terminal (.venv/bin/mtactl campaigns):")
        tell(f"export MTACTL_SOCKET={shlex.quote(str(node.socket))}", style="bold cyan")
        demo = Demo(sizes, world, node)
        demo.stages = stages
        steps: tuple[Callable[[], Awaitable[None]], ...] = (
            demo.halt_half_way,
            demo.add_latecomers,
            demo.show_late_ones,
            demo.finish_others,
            demo.show_report,
            demo.compare,
            demo.end,
        )
        try:
            for step in steps:
                await step()
        except Exception:
            console.print()
            tell(*[line for line in node.tail(1000).splitlines() if '"level":"info"' not in line][-5:], style="dim")
            raise


def find_causes(error: BaseException) -> Iterator[BaseException]:
    """Give the errors in a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from find_causes(each)
    else:
        yield error


def main() -> int:
    """Parse the command line, run, and clean up."""
    parser = argparse.ArgumentParser(prog="make demo", description="See a campaign halted, and the books balance.")
    parser.add_argument("--messages", type=int, default=20_000, help="in all campaigns (20000)")
    messages = parser.parse_args().messages
    if messages < 100:
        parser.error("--messages: 100 at least")
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with tempfile.TemporaryDirectory(prefix="mtactl-demo-", ignore_cleanup_errors=True) as folder:
            free = shutil.disk_usage(folder).free
            if free < messages * ROOM:
                raise Failed(f"{folder} has {free >> 20} MiB free, and {messages * ROOM >> 20} MiB may be needed")
            asyncio.run(run(messages, Path(folder)))
    except KeyboardInterrupt:
        console.print("\nInterrupted; all is ended and removed.")
        return 130
    except Exception as error:
        causes = list(find_causes(error))
        if not all(isinstance(cause, (Failed, AssertionError, OSError)) for cause in causes):
            raise
        for cause in causes:
            print(f"\nThe demo failed: {cause}", file=sys.stderr)
        return 1
    console.print(f"\nDone in {time.monotonic() - begun:.0f} s; all is ended and removed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
