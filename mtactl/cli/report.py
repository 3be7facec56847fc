"""A campaign's report as people read it: the panel of a halt's steps, the counts, and a bar of what became of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.box import ROUNDED
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from mtactl.cli.figures import count, date, offset, share
from mtactl.cli.printable import elide, printable
from mtactl.cli.screen import Glyphs, Screen
from mtactl.control.types import CampaignReport, Counts, Step, StopFacts

__all__ = [
    "STATE_STYLES",
    "describe_open",
    "describe_request",
    "draw_report",
    "draw_steps",
    "name_step",
    "summarise",
]

STATE_STYLES = {"active": "green", "held": "yellow", "halting": "bold yellow", "halted": "bold red"}

# The parts of CONTRACT.md §1's law, in the order of the report, and their colours.
_PARTS = {
    "delivered": "green",
    "bounced": "red",
    "expired": "magenta",
    "dropped": "bright_black",
    "unknown": "bold red",
    "in_flight": "yellow",
    "queued": "cyan",
}
_LABEL = 18  # columns of the longest step's name, "in flight finished"
_OFFSET = 10
_BAR = 30  # columns of a step's progress at most


def name_step(step: str) -> str:
    """Give a step's name in words."""
    return printable(step.replace("_", " "))


def describe_request(stop: StopFacts) -> str:
    """Say who asked for a halt, when and why."""
    by = stop.requested_by.user or (f"uid {stop.requested_by.uid}" if stop.requested_by.uid is not None else "someone")
    because = f": {stop.reason}" if stop.reason else ""
    return printable(f"asked for by {by} at {date(stop.requested_at)}{because}")


def describe_open(counts: Counts) -> str:
    """Say what a halt still waits for."""
    return f"{count(counts.queued)} queued, {count(counts.in_flight)} in flight"


def summarise(report: CampaignReport) -> str:
    """Give the state and the counts that matter before something is done, in one line."""
    counts = report.counts
    return (
        f"{report.campaign} on {report.node}: {report.state}, {count(counts.queued)} queued, "
        f"{count(counts.in_flight)} in flight, {count(counts.delivered)} delivered"
    )


def draw_report(report: CampaignReport, screen: Screen) -> RenderableType:
    """Draw all of a report."""
    width = screen.drawing_width
    things: list[RenderableType] = []
    if report.stop is not None:
        things.append(draw_steps(report, screen))
    else:
        things.append(_title(report, width, screen.glyphs))
    things += _draw_counts(report.counts, width, screen.glyphs)
    return Group(*things)


def draw_steps(
    report: CampaignReport, screen: Screen, *, frame: int | None = None, left: Callable[[Step], str] | None = None
) -> Panel:
    """Draw the panel of a halt's steps. With `frame` those under way turn a wheel; `left` says how long they take."""
    width, glyphs = screen.drawing_width, screen.glyphs
    inner = width - 4
    lines = [_draw_step(step, report, inner, glyphs, frame=frame, left=left) for step in report.steps]
    if report.stop is not None:
        style = "dim"
        told = elide(describe_request(report.stop), inner, mark=glyphs.cut, middle=False)
        lines += [Text(), Text(told, style=style)]
    return Panel(
        Group(*lines),
        title=_title(report, width - 6, glyphs),
        title_align="left",
        box=ROUNDED,
        border_style="dim",
        width=width,
    )


def _title(report: CampaignReport, width: int, glyphs: Glyphs) -> Text:
    kind = f" ({report.stop.kind})" if report.stop is not None else ""
    state = f"{report.state}{kind}"
    node = f" on {printable(report.node)}"
    room = max(8, width - cell_len(node) - 2 - cell_len(state) - 2)
    title = Text(elide(printable(report.campaign), room, mark=glyphs.cut), style="bold")
    title.append(node, style="not bold")
    title.append("  ")
    title.append(state, style=STATE_STYLES.get(report.state, ""))
    title.truncate(width)
    return title


def _draw_step(
    step: Step,
    report: CampaignReport,
    width: int,
    glyphs: Glyphs,
    *,
    frame: int | None,
    left: Callable[[Step], str] | None,
) -> Text:
    since = report.stop.requested_at if report.stop is not None else None
    line = Text(no_wrap=True)
    if step.at is not None:
        line.append(glyphs.tick, style="bold green")
    elif frame is not None and _under_way(step, report.steps):
        line.append(glyphs.spinner[frame % len(glyphs.spinner)], style="yellow")
    else:
        line.append(glyphs.waiting, style="dim")
    line.append(f" {name_step(step.name):<{_LABEL}}", style="" if step.at is not None else "dim")
    if step.at is None and left is not None:
        line.append(f"{left(step):>{_OFFSET}}  ", style="yellow")
    else:
        line.append(f"{offset(step.at, since):>{_OFFSET}}  ")
    if isinstance(step.done, int) and isinstance(step.total, int):
        told = max(len(_tell_progress(each)) for each in report.steps)
        line.append_text(_draw_progress(step.done, step.total, width - line.cell_len - told, glyphs))
        line.append(_tell_progress(step))
    line.truncate(width)
    return line


def _under_way(step: Step, steps: Sequence[Step]) -> bool:
    """Whether all that a step needs is done: the two in the middle go on side by side."""
    reached = {each.name for each in steps if each.at is not None}
    needs = {
        "recorded": {"gate_closed"},
        "queue_dropped": {"recorded"},
        "in_flight_finished": {"recorded"},
        "completed": {"queue_dropped", "in_flight_finished"},
    }
    return needs.get(step.name, set()) <= reached


def _draw_progress(done: int, total: int, width: int, glyphs: Glyphs) -> Text:
    if total <= 0:
        return Text("nothing", style="dim")
    room = max(0, min(width, _BAR))
    filled = room * min(max(done, 0), total) // total
    bar = Text(glyphs.done * filled, style="green")
    bar.append(glyphs.rest * (room - filled), style="dim")
    return bar


def _tell_progress(step: Step) -> str:
    """Give a step's progress in numbers, if it has any and there was anything to do."""
    if not (isinstance(step.done, int) and isinstance(step.total, int) and step.total > 0):
        return ""
    return f"  {count(step.done)} of {count(step.total)}"


def _draw_counts(counts: Counts, width: int, glyphs: Glyphs) -> list[Text]:
    numbers = {name: getattr(counts, name) for name in _PARTS}
    digits = max(len(count(number)) for number in (counts.accepted, *numbers.values()))
    lines = [Text(f"    {'accepted':<12}{count(counts.accepted):>{digits}}", style="bold")]
    for name, style in _PARTS.items():
        number = numbers[name]
        line = Text("  ")
        line.append(glyphs.outcomes[name], style=style if number else "dim")
        line.append(f" {name.replace('_', ' '):<12}{count(number):>{digits}}", style="" if number else "dim")
        if number:
            line.append(f"  {share(number, counts.accepted):>7}", style="dim")
        if name == "delivered" and counts.delivered_after_stop:
            line.append(f"  {count(counts.delivered_after_stop)} of them after the stop", style="yellow")
        if name == "unknown" and number:
            told = "  may have got it; nobody can know"
            line.append(told if line.cell_len + len(told) <= width else told.partition(";")[0], style="yellow")
        lines.append(line)
    for name, told in (("refused", "injected after the halt"), ("discarded", "injected after the halt")):
        if number := getattr(counts, name):
            lines.append(Text(f"    {name:<12}{count(number):>{digits}}  {told}"))
    if counts.accepted > 0:
        lines.append(_draw_bar(numbers, counts.accepted, width - 4, glyphs))
    return [_cut(line, width) for line in lines]


def _draw_bar(numbers: dict[str, int], total: int, width: int, glyphs: Glyphs) -> Text:
    """Draw the shares by the method of largest remainders, with a column at least for what is not nothing."""
    width = max(width, len(numbers))
    some = [name for name, number in numbers.items() if number > 0]
    columns = dict.fromkeys(some, 1)
    free = width - len(some)
    exact = {name: free * numbers[name] / total for name in some}
    for name in some:
        columns[name] += int(exact[name])
    left = width - sum(columns.values())
    for name in sorted(some, key=lambda name: exact[name] % 1, reverse=True)[:left]:
        columns[name] += 1
    bar = Text("  ")
    for name in some:
        bar.append(glyphs.outcomes[name] * columns[name], style=_PARTS[name])
    return bar


def _cut(line: Text, width: int) -> Text:
    line.truncate(width)
    return line
