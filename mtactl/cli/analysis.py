"""What became of a campaign as people read it: deliveries by the clock, destinations, and the replies seen most."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from mtactl.cli.figures import count, duration, moment, plural, short_count
from mtactl.cli.screen import Screen
from mtactl.cli.table import Cell, Column, Table
from mtactl.control.types import CampaignAnalysis, CampaignReport, LaneCounts, ReplyCount, StopFacts, Timeline

__all__ = ["OUTCOME_STYLES", "describe_rate", "draw_analysis", "reckoned", "stop_place"]

OUTCOME_STYLES = {
    "delivered": "green",
    "bounced": "red",
    "expired": "magenta",
    "dropped": "bright_black",
    "unknown": "bold red",
    "deferred": "yellow",
}
_REPLIES = 5  # of an outcome
_ROWS = 3  # of the chart
_WIDEST_POINT = 3  # columns

_LANE_COLUMNS = (
    Column(title="destination", least=14),
    Column(title="queued", right=True),
    Column(title="delivered", right=True),
    Column(title="bounced", right=True),
    Column(title="dropped", right=True, optional=True),
    Column(title="unknown", right=True, optional=True),
    Column(title="deferred", right=True, optional=True),
    Column(title="expired", right=True, optional=True),
)
_REPLY_COLUMNS = (
    Column(title="outcome"),
    Column(title="recipients", right=True),
    Column(title="reply", least=16, middle=False),
)


def draw_analysis(
    analysis: CampaignAnalysis, report: CampaignReport, screen: Screen, *, top: int
) -> Sequence[RenderableType]:
    """Draw all of an analysis."""
    things: list[RenderableType] = []
    line = analysis.around_stop if report.stop is not None and analysis.around_stop else analysis.timeline
    if line is not None:
        things += ["", *_draw_timeline(line, report.stop, screen)]
    if analysis.lanes:
        things += ["", *_draw_lanes(analysis, screen, top)]
    if analysis.replies:
        things += ["", *_draw_replies(analysis.replies, screen)]
    if analysis.forgotten:
        told = f"{plural(analysis.forgotten, 'outcome')} older than store.keep_outcomes can't be told any more."
        things += ["", Text(told, style="dim")]
    return things


def describe_rate(step: int) -> str:
    """Say what the numbers of a timeline with such steps, scaled by the step, are."""
    return "deliveries a minute" + ("" if step == 60 else f", in steps of {_step(step)}")


def _step(seconds: int) -> str:
    return f"{seconds} s" if seconds < 60 else duration(seconds)


def stop_place(line: Timeline, stop: StopFacts | None) -> float | None:
    """Give where in a timeline the gate closed, in steps; None when it is not in it."""
    start, at = moment(line.start), moment(stop.requested_at) if stop is not None else None
    if start is None or at is None:
        return None
    place = (at - start).total_seconds() / line.step_seconds
    return place if -1 <= place <= len(line.delivered) + 1 else None


def reckoned(reply: ReplyCount) -> str:
    """Give how many got a reply; a number that is reckoned from a part of them says so."""
    return count(reply.recipients) if reply.exact else f"~{short_count(reply.recipients)}"


def _draw_timeline(line: Timeline, stop: StopFacts | None, screen: Screen) -> list[Text]:
    width = screen.drawing_width - 4
    merged = -(-len(line.delivered) // width)
    step = line.step_seconds * merged
    delivered = _merge(line.delivered, merged)
    late = _merge(line.delivered_after_stop, merged)
    columns = max(1, min(_WIDEST_POINT, width // max(1, len(delivered))))
    peak = max(delivered)
    head = Text(f"  {describe_rate(step)}", style="bold")
    told = f"peak {count(round(peak * 60 / step))}"
    space = width + 2 - head.cell_len - len(told)
    if space >= 2:
        head.append(" " * space + told, style="not bold dim")
    lines = [head]
    levels = screen.glyphs.levels
    rows = _ROWS if peak and not levels.isascii() else 1
    for row in range(rows - 1, -1, -1):
        drawn = Text("  ")
        for number, after in zip(delivered, late, strict=True):
            glyph = _level(number, peak, row, rows, levels)
            drawn.append(glyph * columns, style="yellow" if after else "green")
        drawn.rstrip()
        lines.append(drawn)
    lines.append(_draw_axis(line, stop, columns=columns, merged=merged, points=len(delivered), screen=screen))
    return lines


def _merge(numbers: Sequence[int], size: int) -> list[int]:
    return [sum(numbers[start : start + size]) for start in range(0, len(numbers), size)]


def _level(number: int, peak: int, row: int, rows: int, levels: str) -> str:
    """Give what a bar shows in one row; what is not nothing shows at the bottom at least."""
    full = len(levels)
    height = 0 if peak <= 0 else -(-number * full * rows // peak)
    here = min(max(height - row * full, 0), full)
    return levels[here - 1] if here else " "


def _draw_axis(
    line: Timeline, stop: StopFacts | None, *, columns: int, merged: int, points: int, screen: Screen
) -> Text:
    """Write the time of the beginning and of the end, and between them where the gate closed, as far as they fit."""
    start = moment(line.start) or datetime.fromtimestamp(0, UTC)
    end = start + timedelta(seconds=line.step_seconds * len(line.delivered))
    form = "%H:%M:%S" if end - start < timedelta(days=1) else "%m-%d %H:%M"
    room = max(points * columns, 1)
    place = stop_place(line, stop)
    axis = Text("  ", style="dim")
    if place is None or stop is None:
        first, last = start.astimezone().strftime(form), end.astimezone().strftime(form)
        axis.append(first)
        axis.append(" " * max(1, room - len(first) - len(last)) + last)
    else:
        at = min(max(int(place / merged * columns), 0), room - 1)
        when = moment(stop.requested_at) or start
        told = f"{screen.glyphs.mark} stop {when.astimezone().strftime('%H:%M:%S')}"
        if at + cell_len(told) > screen.drawing_width - 4:
            told = f"stop {when.astimezone().strftime('%H:%M:%S')} {screen.glyphs.mark}"
            at = max(0, at + 1 - cell_len(told))
        first = start.astimezone().strftime(form)
        axis.append(f"{first:<{at}}" if len(first) < at else " " * at)
        axis.append(told, style="not dim bold yellow")
    axis.truncate(screen.drawing_width)
    return axis


def _draw_lanes(analysis: CampaignAnalysis, screen: Screen, top: int) -> list[RenderableType]:
    every = [*analysis.lanes, *([analysis.others] if analysis.others else [])]
    shown, rest = analysis.lanes[:top], every[top:]
    # What no destination has needs no column.
    columns = [each for each in _LANE_COLUMNS if not each.optional or any(getattr(row, each.title) for row in every)]
    rows = [_lane_cells(row.lane, [row], columns) for row in shown]
    if rest:
        more = len(analysis.lanes) - len(shown) + analysis.other_lanes
        rows.append(_lane_cells(f"{count(more)} more" if more else "others", rest, columns))
    return Table(screen, columns).draw(rows)


def _lane_cells(name: str, rows: Sequence[LaneCounts], columns: Sequence[Column]) -> list[Cell]:
    cells: list[Cell] = [name]
    for field in [column.title for column in columns[1:]]:
        number = sum(getattr(row, field) for row in rows)
        cells.append((short_count(number), OUTCOME_STYLES.get(field, "") if number else "dim"))
    return cells


def _draw_replies(replies: Sequence[ReplyCount], screen: Screen) -> list[RenderableType]:
    rows: list[list[Cell]] = []
    for outcome in ("delivered", "bounced", "deferred", "expired", "unknown", "dropped"):
        for reply in [reply for reply in replies if reply.outcome == outcome][:_REPLIES]:
            text = f"{reply.code} {reply.text}" if reply.code is not None else reply.text
            rows.append([(outcome, OUTCOME_STYLES.get(outcome, "")), reckoned(reply), text])
    return Table(screen, _REPLY_COLUMNS).draw(rows)
