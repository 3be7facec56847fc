"""The campaign report as one HTML page that needs nothing else: no script, no font, no picture from anywhere.

It is to be handed to people who have no mtactl. All that others have written (ids, reasons, replies, destinations) is
escaped; the page's own policy forbids it to load or run anything, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from mtactl.cli.analysis import describe_rate, reckoned, stop_place
from mtactl.cli.figures import count, date, duration, moment, offset, plural, share
from mtactl.cli.plots import Span, draw_share, draw_spans, text
from mtactl.cli.report import describe_request, name_step
from mtactl.control.types import CampaignAnalysis, CampaignReport, Counts, LaneCounts, StopFacts, Timeline

__all__ = ["draw_page"]

_PARTS = ("delivered", "bounced", "expired", "dropped", "unknown", "in_flight", "queued")
_REPLIES = ("delivered", "bounced", "deferred", "expired", "unknown", "dropped")

_STYLE = """\
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2329; --soft: #5c6770; --line: #dde2e6; --panel: #f5f7f8;
  --delivered: #2e8b57; --late: #e09f1f; --bounced: #c8403a; --expired: #8e5bb5; --dropped: #9aa5ad; --unknown: #7a1f4b;
  --in_flight: #d9c11e; --queued: #3d83c4; --stop: #b3261e }
@media (prefers-color-scheme: dark) { :root { --paper: #15191d; --ink: #e4e8eb; --soft: #98a4ad; --line: #2e363d;
  --panel: #1c2227; --delivered: #4fb37d; --late: #f0b64a; --bounced: #e5695f; --expired: #b48ad6; --dropped: #6d7982;
  --unknown: #d4679c; --in_flight: #e3d25c; --queued: #6aa9e3; --stop: #ff8a80 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 940px; padding: 28px 20px 48px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere }
h2 { font-size: 16px; margin: 34px 0 10px }
p { margin: 4px 0 } .soft, .axis { color: var(--soft); fill: var(--soft) }
.badge { display: inline-block; padding: 1px 10px; border-radius: 10px; font-size: 13px; font-weight: 600;
  vertical-align: middle; border: 1px solid currentColor; color: var(--soft) }
.badge.halted, .badge.halting { color: var(--stop) } .badge.active { color: var(--delivered) }
.badge.held { color: var(--late) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 10px; margin: 22px 0 14px }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px }
.tile b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; line-height: 1.3 }
.tile span { color: var(--soft); font-size: 13px } .tile.alarm b { color: var(--stop) }
svg { display: block; width: 100%; height: auto; font: 11px system-ui, "DejaVu Sans", sans-serif }
rect.delivered, i.delivered { fill: var(--delivered); background: var(--delivered) }
rect.delivered_after_stop, i.delivered_after_stop { fill: var(--late); background: var(--late) }
rect.bounced, i.bounced { fill: var(--bounced); background: var(--bounced) }
rect.expired, i.expired { fill: var(--expired); background: var(--expired) }
rect.dropped, i.dropped { fill: var(--dropped); background: var(--dropped) }
rect.unknown, i.unknown { fill: var(--unknown); background: var(--unknown) }
rect.in_flight, i.in_flight { fill: var(--in_flight); background: var(--in_flight) }
rect.queued, i.queued { fill: var(--queued); background: var(--queued) }
line.grid { stroke: var(--line) } line.stop { stroke: var(--stop); stroke-width: 1.5; stroke-dasharray: 4 3 }
text.stop { fill: var(--stop); font-weight: 600 }
.key { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 8px 0; font-size: 13px; color: var(--soft) }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: 5px 10px; border-bottom: 1px solid var(--line); vertical-align: top }
th { color: var(--soft); font-weight: 600; font-size: 13px } td.n, th.n { text-align: right; white-space: nowrap }
td.t { overflow-wrap: anywhere } td.zero { color: var(--soft); opacity: .6 }
footer { margin-top: 40px; font-size: 13px; color: var(--soft) }
@media print { body { max-width: none; padding: 0 } h2 { break-after: avoid } svg, tr { break-inside: avoid } }
"""


def draw_page(
    report: CampaignReport, analysis: CampaignAnalysis | None, *, top: int, now: datetime | None = None
) -> str:
    """Give the page. `analysis` None leaves out what only it knows."""
    name = text(report.campaign)
    parts = [
        f'<h1>{name} <span class="badge {text(report.state)}">{text(report.state)}</span></h1>',
        *_head(report),
        _tiles(report.counts),
        draw_share({part: getattr(report.counts, part) for part in _PARTS}, report.counts.accepted),
        _key({part: getattr(report.counts, part) for part in _PARTS}),
        *_notes(report.counts),
        *_steps(report),
        *([] if analysis is None else _analysis(analysis, report.stop, top)),
    ]
    made = (now or datetime.now(UTC)).isoformat()
    body = "\n".join(parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{name}: {text(report.state)}</title>
<style>
{_STYLE}</style>
</head>
<body>
{body}
<footer>Made by mtactl on {text(report.node)} at {text(date(made))}. All numbers are recipients: one address of one
message each. accepted = queued + in flight + delivered + bounced + expired + dropped + unknown.</footer>
</body>
</html>
"""


def _head(report: CampaignReport) -> list[str]:
    lines = [f'<p class="soft">Campaign report of node {text(report.node)}</p>']
    stop = report.stop
    if stop is not None:
        lines.append(f"<p>{'Stopped' if stop.kind == 'stop' else 'Cancelled'}, {text(describe_request(stop))}</p>")
        end, start = moment(stop.completed_at), moment(stop.requested_at)
        if end is not None and start is not None:
            lines.append(f'<p class="soft">Completed after {duration((end - start).total_seconds())}</p>')
    return lines


def _tiles(counts: Counts) -> str:
    facts = {
        "accepted": counts.accepted,
        "delivered": counts.delivered,
        "of them after the stop": counts.delivered_after_stop,
        "bounced or expired": counts.bounced + counts.expired,
        "dropped, never sent": counts.dropped,
        "unknown": counts.unknown,
        "still queued or in flight": counts.queued + counts.in_flight,
    }
    always = {"accepted", "delivered", "dropped, never sent"}
    alarm = {"of them after the stop", "unknown"}
    tiles = [
        f'<div class="tile{" alarm" if name in alarm else ""}"><b>{count(number)}</b><span>{name}</span></div>'
        for name, number in facts.items()
        if number or name in always
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _key(parts: dict[str, int]) -> str:
    total = sum(parts.values())
    told = [
        f'<span><i class="{name}"></i>{name.replace("_", " ")} {count(number)} ({share(number, total)})</span>'
        for name, number in parts.items()
        if number
    ]
    return f'<div class="key">{"".join(told)}</div>'


def _notes(counts: Counts) -> list[str]:
    notes = []
    if counts.unknown:
        notes.append(f"{plural(counts.unknown, 'recipient')} may have got it: the connection broke before the answer.")
    if counts.refused:
        notes.append(f"Refused, since they came after the halt: {plural(counts.refused, 'recipient')}.")
    if counts.discarded:
        notes.append(f"Thrown away, since they came after the halt: {plural(counts.discarded, 'recipient')}.")
    return [f'<p class="soft">{note}</p>' for note in notes]


def _steps(report: CampaignReport) -> list[str]:
    if report.stop is None:
        return []
    rows = []
    for step in report.steps:
        done, total = step.done, step.total
        told = f"{count(done)} of {count(total)}" if isinstance(done, int) and isinstance(total, int) and total else ""
        rows.append((name_step(step.name), date(step.at), offset(step.at, report.stop.requested_at) or "not yet", told))
    return ["<h2>The stop, step by step</h2>", _table(("step", "at", "after", "recipients"), rows, right=(2, 3))]


def _analysis(analysis: CampaignAnalysis, stop: StopFacts | None, top: int) -> list[str]:
    parts: list[str] = []
    whole, around = analysis.timeline, analysis.around_stop
    if stop is not None and around is not None:
        parts += ["<h2>Around the stop</h2>", *_plot(around, stop)]
    if whole is not None and not (stop is not None and around is not None and _covers(around, whole)):
        parts += ["<h2>The whole campaign</h2>", *_plot(whole, stop)]
    if analysis.lanes:
        parts += ["<h2>Destinations</h2>", _lanes(analysis, top)]
    if analysis.replies:
        parts += [
            "<h2>Replies seen most</h2>",
            '<p class="soft">A * stands for what differs from one recipient to the next.</p>',
            _replies(analysis),
        ]
    if analysis.forgotten:
        parts.append(
            f'<p class="soft">{plural(analysis.forgotten, "outcome")} older than what is kept are not shown.</p>'
        )
    return parts


def _covers(part: Timeline, whole: Timeline) -> bool:
    """Whether a part of the time has all that happened."""
    return sum(part.delivered) == sum(whole.delivered) and sum(part.bounced) == sum(whole.bounced)


def _plot(line: Timeline, stop: StopFacts | None) -> list[str]:
    start = (moment(line.start) or datetime.fromtimestamp(0, UTC)).astimezone()
    before = [number - late for number, late in zip(line.delivered, line.delivered_after_stop, strict=True)]
    series = {"delivered": before, "delivered_after_stop": line.delivered_after_stop, "bounced": line.bounced}
    told = date(stop.requested_at) if stop is not None else ""
    span = Span(
        start=start,
        step=line.step_seconds,
        series=series,
        stop=stop_place(line, stop),
        stop_label=f"stop {told[11:19]}",
    )
    what = describe_rate(line.step_seconds)
    key = "".join(
        f'<span><i class="{name}"></i>{name.replace("_", " ")}</span>'
        for name, numbers in series.items()
        if any(numbers)
    )
    zone = start.tzname() or ""
    caption = f'<div class="key"><span>{what}; times in {text(zone)}</span>{key}</div>'
    return [caption, draw_spans(span, f"{what}, {count(sum(line.delivered))} delivered in all")]


def _lanes(analysis: CampaignAnalysis, top: int) -> str:
    fields = ("queued", "in_flight", "delivered", "bounced", "deferred", "expired", "dropped", "unknown")
    shown = analysis.lanes[:top]
    rest = [*analysis.lanes[top:], *([analysis.others] if analysis.others is not None else [])]
    every = [*analysis.lanes, *([analysis.others] if analysis.others is not None else [])]
    used = [field for field in fields if field in {"queued", "delivered"} or any(getattr(row, field) for row in every)]
    rows = [(row.lane, *_numbers([row], used)) for row in shown]
    if rest:
        more = len(analysis.lanes) - len(shown) + analysis.other_lanes
        rows.append((f"{count(more)} more" if more else "others", *_numbers(rest, used)))
    titles = ("destination", *(field.replace("_", " ") for field in used))
    return _table(titles, rows, right=range(1, len(titles)))


def _numbers(rows: Iterable[LaneCounts], fields: Sequence[str]) -> list[str]:
    rows = list(rows)
    return [count(sum(getattr(row, field) for row in rows)) for field in fields]


def _replies(analysis: CampaignAnalysis) -> str:
    rows = [
        (outcome, reckoned(reply), f"{reply.code} {reply.text}" if reply.code is not None else reply.text)
        for outcome in _REPLIES
        for reply in analysis.replies
        if reply.outcome == outcome
    ]
    return _table(("outcome", "recipients", "reply"), rows, right=(1,))


def _table(titles: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[int] = ()) -> str:
    numeric = set(right)

    def cell(place: int, value: Any, tag: str) -> str:
        kind = "n" if place in numeric else "t"
        empty = " zero" if tag == "td" and value == "0" else ""
        return f'<{tag} class="{kind}{empty}">{text(str(value))}</{tag}>'

    head = "".join(cell(place, title, "th") for place, title in enumerate(titles))
    lines = [f"<tr>{''.join(cell(place, value, 'td') for place, value in enumerate(row))}</tr>" for row in rows]
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{chr(10).join(lines)}\n</table></div>'
