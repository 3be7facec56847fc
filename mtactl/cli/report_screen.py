"""A campaign's report as a person sees it: who halted it, the steps of the halt, the counts."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mtactl.cli.screen import STATES, bar, framed, grid, plain, state_text
from mtactl.cli.text import duration, local_time, number, percent, plural, seconds_between
from mtactl.control.types import CampaignReport, Counts, Step, StopFacts

__all__ = ["STEPS", "halted_by", "render_report", "render_steps", "step_line"]

STEPS = {
    "gate_closed": ("Gate closed", "nothing more begins"),
    "recorded": ("Recorded", "safe against a crash"),
    "queue_dropped": ("Queue dropped", ""),
    "in_flight_finished": ("In flight finished", ""),
    "completed": ("Completed", "nothing is left"),
}
_STEP_BAR = 18
_COUNT_BAR = 24


def render_report(console: Console, report: CampaignReport) -> RenderableType:
    """Give the whole report."""
    title = Text.assemble(
        plain(report.campaign, "bold"), " on ", plain(report.node), ": ", state_text(report.state), no_wrap=True
    )
    title.overflow = "ellipsis"
    parts: list[RenderableType] = [] if console.is_terminal else [title]
    if report.stop is not None:
        parts += [*_stop_lines(report.stop), Text(), render_steps(console, report), Text()]
    parts.append(_render_counts(console, report.counts))
    if report.state == "held":
        parts += [Text(), Text("Held: nothing begins until it is released.", style="yellow")]
    return framed(console, title, Group(*parts))


def _stop_lines(stop: StopFacts) -> list[Text]:
    verb = "Cancelled before anything began" if stop.kind == "cancel" else "Stopped"
    lines = [plain(f"{verb}, by {halted_by(stop)}")]
    if stop.reason:
        lines.append(Text(f"Reason: {plain(stop.reason)}", overflow="fold"))
    return lines


def halted_by(stop: StopFacts) -> str:
    """Say who asked for the halt, and when."""
    by = stop.requested_by
    who = by.user or ("an unknown user" if by.uid is None else f"uid {by.uid}")
    return f"{who}, {local_time(stop.requested_at)}"


def render_steps(console: Console, report: CampaignReport, *, since: str | None = None) -> Table:
    """Give the five steps with their marks, progress and times since the request."""
    table = grid(False, False, False, False, True)
    start = since or (report.stop.requested_at if report.stop is not None else "")
    utf = console.encoding.startswith("utf")
    reached, under_way, to_come = ("✔", "▸", "·") if utf else ("*", ">", ".")
    current = next((step.name for step in report.steps if step.at is None), None)
    for step in report.steps:
        title, meaning = STEPS.get(step.name, (step.name, ""))
        done = step.at is not None
        busy = step.name == current or (step.name == "in_flight_finished" and not done and current == "queue_dropped")
        mark = (
            Text(reached, "bold green") if done else Text(under_way, "bold yellow") if busy else Text(to_come, "dim")
        )
        progress, amount = _progress(console, step, busy=busy)
        table.add_row(
            mark,
            Text(title, "" if done else "bold" if busy else "dim"),
            progress if progress is not None else Text(meaning if done else "", "dim"),
            amount,
            _time_since(start, step),
        )
    return table


def _progress(console: Console, step: Step, *, busy: bool) -> tuple[Text | None, Text]:
    if not isinstance(step.done, int) or not isinstance(step.total, int):
        return None, Text()
    if step.total == 0:
        return Text("there was nothing" if step.at is not None else "", "dim"), Text()
    style = "green" if step.at is not None else "yellow" if busy else "dim"
    return bar(console, step.done, step.total, _STEP_BAR, style), Text(
        f"{number(step.done)} of {number(step.total)}", "" if busy or step.at is not None else "dim"
    )


def _time_since(start: str, step: Step) -> Text:
    seconds = None if step.at is None else seconds_between(start, step.at)
    return Text() if seconds is None else Text(f"+{duration(max(seconds, 0))}", "cyan")


def step_line(report: CampaignReport, step: Step) -> str:
    """Give a step that was reached as one line of text."""
    title, _ = STEPS.get(step.name, (step.name, ""))
    start = "" if report.stop is None else report.stop.requested_at
    seconds = None if step.at is None else seconds_between(start, step.at)
    words = title if seconds is None else f"{title}, +{duration(max(seconds, 0))}"
    if isinstance(step.done, int) and isinstance(step.total, int):
        words += f" ({number(step.done)} of {plural(step.total, 'recipient')})"
    return words


def _render_counts(console: Console, counts: Counts) -> Table:
    table = grid(False, True, True, False)
    table.add_row(Text("Accepted", "bold"), Text(number(counts.accepted), "bold"), Text(), Text())
    rows = (
        ("Queued", "queued", "cyan"),
        ("In flight", "in_flight", "yellow"),
        ("Delivered", "delivered", STATES["delivered"]),
        ("Bounced", "bounced", STATES["bounced"]),
        ("Expired", "expired", STATES["expired"]),
        ("Dropped", "dropped", STATES["dropped"]),
        ("Unknown", "unknown", STATES["unknown"]),
    )
    for title, name, style in rows:
        count = getattr(counts, name)
        table.add_row(
            Text(title, "" if count else "dim"),
            Text(number(count), style if count else "dim"),
            Text(percent(count, counts.accepted) if count else "", "dim"),
            bar(console, count, counts.accepted, _COUNT_BAR, style) if count else Text(),
        )
        if name == "delivered" and counts.delivered_after_stop:
            after = counts.delivered_after_stop
            table.add_row(
                Text("  after the stop"),
                Text(number(after), "bold yellow"),
                Text(percent(after, counts.accepted), "dim"),
                Text(),
            )
    for title, count in (("Refused since", counts.refused), ("Discarded since", counts.discarded)):
        if count:
            table.add_row(Text(title), Text(number(count)), Text(), Text())
    return table
