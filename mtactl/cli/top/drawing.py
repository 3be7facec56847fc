"""What stands above the table: the node, its rates with sparklines, its totals, and the halts. Values in, texts out."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from mtactl.cli.events import draw_event
from mtactl.cli.figures import clock, count, duration, moment, short_count, size
from mtactl.cli.printable import elide, printable
from mtactl.cli.report import STATE_STYLES, describe_request
from mtactl.cli.top.canvas import Canvas
from mtactl.cli.top.rates import Meter, Rates, draw_sparkline, tell_rate
from mtactl.control.types import CampaignReport, Event, Status, Step

__all__ = [
    "HEALTH_STYLES",
    "draw_halt",
    "draw_head",
    "draw_log_line",
    "draw_problems",
    "draw_rates",
    "draw_totals",
    "fit",
]

HEALTH_STYLES = {"ok": "bold green", "degraded": "bold yellow", "failed": "bold red"}

_RATE_STYLES = {"accepted": "cyan", "delivered": "green", "deferred": "yellow", "bounced": "red"}
_OUTCOME_STYLES = {
    "delivered": "green",
    "deferred": "yellow",
    "bounced": "red",
    "expired": "magenta",
    "dropped": "bright_black",
    "unknown": "bold red",
}
_TOGETHER = {"accepted": "delivered", "delivered": "accepted", "deferred": "bounced", "bounced": "deferred"}
_WIDE = 140  # columns from which all four rates stand in one line
_NARROW = 60  # columns below which there is no room for sparklines
_STEP_NAMES = {"gate_closed": "gate", "queue_dropped": "queue dropped", "in_flight_finished": "in flight"}
_BAR, _LEAST_BAR = 24, 6  # columns of a step's bar

Part = tuple[int, Text]  # how soon it is left out (0: never), and what is told


def fit(parts: Sequence[Part], width: int, *, gap: str = "  ") -> Text:
    """Put parts into one line; where they don't fit, those with the largest number are left out first."""
    shown = list(parts)
    while sum(part.cell_len for _, part in shown) + len(gap) * (len(shown) - 1) > width:
        rank = max((rank for rank, _ in shown), default=0)
        if rank == 0:
            break
        shown.remove(next(each for each in reversed(shown) if each[0] == rank))
    line = Text(gap).join(part for _, part in shown)
    line.truncate(width)
    return line


def draw_head(status: Status, width: int, *, at: str) -> Text:
    """Name the node and say how it is."""
    left: list[Part] = [
        (0, Text(elide(printable(status.node), max(8, width // 3)), style="bold")),
        (0, Text(status.health, style=HEALTH_STYLES.get(status.health, ""))),
        (3, Text(f"mtactld {printable(status.version)}", style="dim")),
        (2, Text(f"up {duration(round(status.uptime_seconds))}")),
        (1, Text(f"{size(status.store_free_bytes)} free")),
    ]
    line = fit(left, width - len(at) - 2)
    line.append(" " * max(1, width - line.cell_len - len(at)))
    line.append(at, style="dim")
    line.truncate(width)
    return line


def draw_problems(status: Status, width: int) -> list[Text]:
    """Say what is wrong, a line each."""
    return [
        Text(elide(f"! {printable(problem)}", width, middle=False), style="bold yellow") for problem in status.problems
    ]


def draw_rates(meter: Meter, rates: Rates, canvas: Canvas) -> list[Text]:
    """Draw the four rates in as many lines as it takes. Two that stand side by side are drawn to the same scale."""
    width = canvas.width
    names = list(Rates.__slots__)
    if width < _NARROW:
        parts = [(0, Text.assemble((name[:3], "dim"), f" {tell_rate(getattr(rates, name))}")) for name in names]
        return [fit(parts, width)]
    columns = 4 if width >= _WIDE else 2
    cell = (width - 2 * (columns - 1)) // columns
    drawn = [_draw_rate(name, meter, rates, cell, canvas.sparks) for name in names]
    return [Text("  ").join(drawn[start : start + columns]) for start in range(0, len(names), columns)]


def _draw_rate(name: str, meter: Meter, rates: Rates, width: int, signs: str) -> Text:
    told = tell_rate(getattr(rates, name))
    line = Text.assemble((f"{name:<9}", "dim"), (f"{told:>10} ", "bold"))
    room = width - line.cell_len
    past, other = meter.history(name)[-room:], meter.history(_TOGETHER[name])[-room:]
    top = max((value for value in (*past, *other) if value is not None), default=0.0)
    line.append(draw_sparkline(past, room, top=top, signs=signs), style=_RATE_STYLES[name])
    return line


def draw_totals(status: Status, width: int) -> list[Text]:
    """Draw what waits, and what became of all that was accepted. What is nothing is left out first."""
    totals, queue = status.totals, status.queue
    waiting = [
        (0, "queued", totals.queued, ""),
        *((4 if number else 8, name, number, "") for name, number in queue.items()),
        (0, "in flight", totals.in_flight, ""),
        (5, "transactions", status.in_flight_transactions, ""),
        (3, "connections", status.connections, ""),
        (6, "lanes", status.lanes, ""),
        (2, "in back-off", len(status.lanes_in_backoff), "magenta"),
    ]
    done = [
        (2, "accepted", totals.accepted, ""),
        (0, "delivered", totals.delivered, ""),
        (1, "after stop", totals.delivered_after_stop, "yellow"),
        (1, "bounced", totals.bounced, "red"),
        (4, "expired", totals.expired, "magenta"),
        (1, "dropped", totals.dropped, ""),
        (1, "unknown", totals.unknown, "bold red"),
        (5, "refused", totals.refused, ""),
        (6, "discarded", totals.discarded, ""),
    ]
    return [_draw_numbers(waiting, width), _draw_numbers(done, width)]


def _draw_numbers(numbers: Sequence[tuple[int, str, int, str]], width: int) -> Text:
    parts: list[Part] = []
    for rank, name, number, style in numbers:
        label = f"{printable(name.replace('_', ' '))} "
        told = Text.assemble((label, "dim"), (short_count(number), style if number else "dim"))
        parts.append((rank if number or not rank else rank + 10, told))
    return fit(parts, width)


def draw_log_line(event: Event) -> Text:
    """Draw an event in one line. Outcomes come in such numbers that only what differs is told."""
    if event.kind != "outcome":
        return draw_event(event)
    data = event.data
    outcome = str(data.get("outcome"))
    line = Text.assemble(
        (clock(event.at), "dim"), "  ", (f"{printable(outcome):<10}", _OUTCOME_STYLES.get(outcome, ""))
    )
    line.append(f"  {printable(str(data.get('campaign') or '-'))}")
    line.append(f"  {printable(str(data.get('recipient')))}")
    reply = f"{data.get('code') or ''} {data.get('reply') or ''}".strip()
    line.append(f"  {printable(reply)}", style="dim")
    if data.get("after_stop"):
        line.append("  after stop", style="yellow")
    return line


def draw_halt(
    report: CampaignReport, canvas: Canvas, *, now: float, frame: int, rate: float | None = None
) -> list[Text]:
    """Draw a halt in two lines: whose it is and since when, and how far its steps are. `now`: seconds since 1970."""
    stop = report.stop
    if stop is None:
        return []
    width, glyphs = canvas.width, canvas.glyphs
    begun, completed = moment(stop.requested_at), moment(stop.completed_at)
    seconds = 0.0
    if begun is not None:
        seconds = (now if completed is None else completed.timestamp()) - begun.timestamp()
    since = f"{duration(max(0.0, seconds))}" if completed is not None else f"{max(0.0, seconds):.0f} s"
    told = f"completed in {since}" if completed is not None else f"{since} since the stop"
    counts = report.counts
    parts: list[Part] = [
        (0, Text(elide(printable(report.campaign), max(10, width // 3), mark=glyphs.cut), style="bold")),
        (0, Text(report.state, style=STATE_STYLES.get(report.state, ""))),
        (0, Text(told)),
        (1, Text(f"{count(counts.delivered_after_stop)} delivered after stop", style="yellow")),
        (2, Text("" if rate is None else tell_rate(rate), style="dim")),
        (3, Text(describe_request(stop), style="dim")),
    ]
    if not counts.delivered_after_stop:
        del parts[3]
    head = fit([part for part in parts if part[1].plain], width)
    return [head, _draw_steps(report, canvas, frame)]


def _draw_steps(report: CampaignReport, canvas: Canvas, frame: int) -> Text:
    """Draw all steps in one line, with a bar for each that counts. Where room is short, the bars matter most."""
    counting = [step for step in report.steps if isinstance(step.done, int) and isinstance(step.total, int)]
    recorded = any(step.name == "recorded" and step.at is not None for step in report.steps)
    shown = [step for step in report.steps if step.name != "completed"]
    bar = _room_for_bars(shown, counting, canvas.width)
    if bar < _LEAST_BAR and recorded:
        shown = counting
        bar = _room_for_bars(shown, counting, canvas.width)
    parts: list[Part] = []
    for step in shown:
        line = _mark(step, canvas, frame if recorded and step in counting else None)
        line.append(f" {_short_name(step)}", style="" if step.at else "dim")
        if step in counting:
            if bar >= _LEAST_BAR and step.total:
                line.append(" ")
                line.append_text(_draw_bar(step, bar, canvas))
            line.append(f" {_tell_step(step)}")
        parts.append((0 if step in counting else 1, line))
    line = Text("  ")
    line.append_text(fit(parts, canvas.width - 2))
    return line


def _room_for_bars(shown: Sequence[Step], counting: Sequence[Step], width: int) -> int:
    """Give the columns that each bar may have when these steps are shown."""
    texts = sum(len(_short_name(step)) + 4 for step in shown) + sum(len(_tell_step(step)) + 2 for step in counting)
    return min(_BAR, (width - texts) // max(1, sum(bool(step.total) for step in counting)))


def _draw_bar(step: Step, width: int, canvas: Canvas) -> Text:
    done, total = int(step.done or 0), int(step.total or 0)
    filled = width * min(max(done, 0), total) // max(1, total)
    bar = Text(canvas.glyphs.done * filled, style="green")
    return bar.append(canvas.glyphs.rest * (width - filled), style="dim")


def _mark(step: Step, canvas: Canvas, frame: int | None) -> Text:
    glyphs = canvas.glyphs
    if step.at is not None:
        return Text().append(glyphs.tick, style="bold green")
    if frame is not None:
        return Text().append(glyphs.spinner[frame % len(glyphs.spinner)], style="yellow")
    return Text().append(glyphs.waiting, style="dim")


def _short_name(step: Step) -> str:
    return _STEP_NAMES.get(step.name, printable(step.name))


def _tell_step(step: Step) -> str:
    total = int(step.total or 0)
    return f"{count(int(step.done or 0))} of {count(total)}" if total > 0 else "nothing"
