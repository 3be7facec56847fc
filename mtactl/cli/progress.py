"""A halt as it goes on: a live panel on a terminal, a line for each step on a pipe. On the standard error stream, so
that the standard output has the report and nothing else.
"""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.live import Live

from mtactl.cli.failures import ReaderGone
from mtactl.cli.figures import count, offset
from mtactl.cli.outlook import Estimate
from mtactl.cli.printable import printable
from mtactl.cli.report import draw_steps, name_step
from mtactl.cli.screen import Screen
from mtactl.control.types import CampaignReport

__all__ = ["Progress", "Silent", "open_progress"]

_SILENCE = 5.0  # seconds after which a pipe is told how far it is


class Progress(Protocol):
    """Shows the reports of a halt under way, one after another."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""

    def update(self, report: CampaignReport) -> None:
        """Show a report."""


def open_progress(screen: Screen, *, wanted: bool) -> Progress:
    """Choose how progress is shown on the stream."""
    if not wanted:
        return Silent()
    return LivePanel(screen) if screen.is_live else StepLines(screen)


class Silent(contextlib.AbstractContextManager["Silent"]):
    """Shows nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""

    def update(self, report: CampaignReport) -> None:
        """Do nothing."""


class LivePanel:
    """Redraws the panel of steps in place. It vanishes at the end when the report follows on the same terminal."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._frame = 0
        self._estimate = Estimate()
        self._live = Live(
            console=screen.console,
            auto_refresh=False,
            transient=sys.stdout.isatty(),
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        """Begin."""
        with contextlib.suppress(OSError, ReaderGone):
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was. That it was closed in the meantime is no failure of the halt."""
        with contextlib.suppress(OSError, ReaderGone):
            self._live.stop()

    def update(self, report: CampaignReport) -> None:
        """Draw the panel anew."""
        self._frame += 1
        self._estimate.look(report, time.monotonic())
        panel = draw_steps(report, self._screen, frame=self._frame, left=self._estimate.tell)
        with contextlib.suppress(OSError, ReaderGone):
            self._live.update(panel, refresh=True)


class StepLines(contextlib.AbstractContextManager["StepLines"]):
    """Writes a line for each step when it is reached, in the order in which they were; now and then, how far it is."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._told: set[str] = set()
        self._estimate = Estimate()
        self._spoken = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: each line was written at once."""

    def update(self, report: CampaignReport) -> None:
        """Write what is new."""
        since = report.stop.requested_at if report.stop is not None else None
        new = [step for step in report.steps if step.at is not None and step.name not in self._told]
        for step in sorted(new, key=lambda step: step.at or ""):
            self._told.add(step.name)
            self._spoken = time.monotonic()
            line = f"{report.campaign}: {name_step(step.name):<18} {offset(step.at, since):>10}"
            if isinstance(step.done, int) and isinstance(step.total, int):
                line += f"  {count(step.done)} of {count(step.total)}"
            self._screen.show(printable(line))
        self._estimate.look(report, time.monotonic())
        if time.monotonic() - self._spoken >= _SILENCE:
            self._spoken = time.monotonic()
            self._tell_progress(report)

    def _tell_progress(self, report: CampaignReport) -> None:
        for step in report.steps:
            if step.at is None and isinstance(step.done, int) and isinstance(step.total, int):
                line = f"{report.campaign}: {name_step(step.name):<18} {self._estimate.tell(step):>10}"
                self._screen.show(printable(f"{line}  {count(step.done)} of {count(step.total)}"))
