"""The upper part of the screen: the node, its rates, its totals, and the halts that are under way."""

from __future__ import annotations

import time

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from mtactl.cli.top.canvas import Canvas
from mtactl.cli.top.drawing import draw_halt, draw_head, draw_problems, draw_rates, draw_totals
from mtactl.cli.top.rates import NO_RATES, Meter
from mtactl.cli.top.snapshot import Snapshot

__all__ = ["Overview"]

_MOST_PROBLEMS = 3
_LOW = 18  # lines of a screen below which the totals give way to the table
_LOWEST = 12  # and below which everything but the first line does


class Overview(Vertical):
    """Shows a snapshot's figures; `banner` says why they are not fresh."""

    def compose(self) -> ComposeResult:
        """Make room."""
        for name in ("head", "banner", "problems", "rates", "totals", "halts"):
            yield Static(id=name)

    def show(self, snapshot: Snapshot, meter: Meter, *, banner: Text | None, with_halts: bool) -> None:
        """Show the figures; those that are not fresh are dim, and no rate is told."""
        width, lines = max(1, self.app.size.width), self.app.size.height
        canvas = Canvas(width)
        status = snapshot.status
        rates = snapshot.rates if banner is None else NO_RATES
        at = time.strftime("%H:%M:%S", time.localtime(snapshot.at))
        halts = self._draw_halts(snapshot, canvas, lines) if with_halts else []
        self._put("head", [draw_head(status, width, at=at)], stale=banner is not None)
        self._put("banner", [] if banner is None else [banner])
        self._put("problems", draw_problems(status, width)[: _MOST_PROBLEMS if lines >= _LOW else 1])
        self._put("rates", draw_rates(meter, rates, canvas) if lines >= _LOWEST else [])
        self._put("totals", draw_totals(status, width) if lines >= _LOW else [], stale=banner is not None)
        self._put("halts", halts, stale=banner is not None)

    def _draw_halts(self, snapshot: Snapshot, canvas: Canvas, lines: int) -> list[Text]:
        """Draw as many halts as may have a quarter of the screen, those under way first."""
        reports = sorted(snapshot.halts, key=lambda report: report.state == "halted")
        most = max(1, lines // 8)
        drawn: list[Text] = []
        for report in reports[:most]:
            rate = snapshot.campaign_rates.get(report.campaign) if report.state != "halted" else None
            drawn += draw_halt(report, canvas, now=time.time(), frame=int(snapshot.at * 2), rate=rate)
        if len(reports) > most:
            drawn.append(Text(f"and {len(reports) - most} more halts: 4", style="dim"))
        return drawn

    def _put(self, name: str, lines: list[Text], *, stale: bool = False) -> None:
        part = self.query_one(f"#{name}", Static)
        part.display = bool(lines)
        text = Text("\n").join(lines)
        if stale:
            text.stylize("dim")
        part.update(text)
