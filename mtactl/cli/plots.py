"""Plots of a campaign as SVG, to stand in an HTML page: colours are the page's, by class. No I/O in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from math import ceil, log10

from mtactl.cli.figures import count, share
from mtactl.cli.printable import printable

__all__ = ["Span", "draw_share", "draw_spans", "text"]

_WIDTH, _HEIGHT = 860, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 14, 26
_LABELS = 6  # of the axis of time, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Bars over time: steps of so many seconds from `start`, a series for each class of the style sheet, stacked in
    their order. `stop` is where a line is to stand, in steps.
    """

    start: datetime
    step: int
    series: Mapping[str, Sequence[int]]
    stop: float | None
    stop_label: str


def text(value: str) -> str:
    """Give a text of anyone's as HTML or SVG has it, with everything unprintable spelt out."""
    return escape(printable(value), quote=True)


def draw_share(parts: Mapping[str, int], total: int) -> str:
    """Draw what became of all as one bar; each part that is not nothing has a width that can be seen."""
    some = {name: number for name, number in parts.items() if number > 0}
    least, free = 4.0, _WIDTH - 4.0 * len(some)
    drawn, place = [], 0.0
    for name, number in some.items():
        width = least + free * number / max(total, 1)
        told = f"{name.replace('_', ' ')}: {count(number)} ({share(number, total)})"
        drawn.append(
            f'<rect class="{name}" x="{place:.1f}" y="0" width="{width:.1f}" height="26"><title>{told}</title></rect>'
        )
        place += width
    label = ", ".join(f"{name.replace('_', ' ')} {count(number)}" for name, number in some.items()) or "nothing"
    return _svg(26, label, drawn)


def draw_spans(span: Span, label: str) -> str:
    """Draw the bars with their axes. The numbers are those of a step, scaled to a minute."""
    points = max(len(numbers) for numbers in span.series.values())
    scale = 60 / span.step
    stacks = [sum(numbers[place] for numbers in span.series.values()) * scale for place in range(points)]
    top = _round_up(max(stacks, default=0.0))
    inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    width = inner_width / max(points, 1)
    drawn = _grid(top, inner_height)
    for place in range(points):
        bottom = float(_TOP + inner_height)
        said = (span.start + timedelta(seconds=place * span.step)).strftime("%Y-%m-%d %H:%M:%S")
        for name, numbers in span.series.items():
            if numbers[place] <= 0:
                continue
            height = max(1.0, inner_height * numbers[place] * scale / top)
            bottom -= height
            told = f"{said}: {count(numbers[place])} {name.replace('_', ' ')} in {span.step} s"
            drawn.append(
                f'<rect class="{name}" x="{_LEFT + place * width:.2f}" y="{bottom:.1f}" '
                f'width="{max(0.5, width * 0.92):.2f}" height="{height:.1f}"><title>{told}</title></rect>'
            )
    drawn += _times(span, points, width)
    if span.stop is not None:
        x = _LEFT + min(max(span.stop, 0.0), float(points)) * width
        anchor, shift = ("end", -6) if x > _WIDTH * 0.8 else ("start", 6)
        drawn.append(f'<line class="stop" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 8}" y2="{_TOP + inner_height}"/>')
        place_of = f'x="{x + shift:.1f}" y="{_TOP + 2}" text-anchor="{anchor}"'
        drawn.append(f'<text class="stop" {place_of}>{text(span.stop_label)}</text>')
    return _svg(_HEIGHT, label, drawn)


def _svg(height: int, label: str, drawn: Sequence[str]) -> str:
    body = "\n".join(drawn)
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{text(label)}">\n{body}\n</svg>'


def _grid(top: float, height: int) -> list[str]:
    drawn = []
    for part in range(5):
        y = _TOP + height * (1 - part / 4)
        number = top * part / 4
        told = count(round(number)) if top >= 4 else f"{number:g}"
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text class="axis" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{told}</text>')
    return drawn


def _times(span: Span, points: int, width: float) -> list[str]:
    every = max(1, ceil(points / _LABELS))
    long = span.step * points >= 86400
    form = "%m-%d %H:%M" if long else "%H:%M" if span.step % 60 == 0 else "%H:%M:%S"
    drawn = []
    for place in range(0, points, every):
        at = span.start + timedelta(seconds=place * span.step)
        x = _LEFT + place * width
        anchor = "end" if x > _WIDTH - 40 else "start"
        drawn.append(
            f'<text class="axis" x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{at.strftime(form)}</text>'
        )
    return drawn


def _round_up(number: float) -> float:
    """Give the next of 1, 2, 4, 8 times a power of ten that is not less, so that the grid has round numbers."""
    if number <= 0:
        return 1.0
    power = 10.0 ** int(log10(number)) if number >= 1 else 1.0
    return next(factor * power for factor in (1, 2, 4, 6, 8, 10, 20) if factor * power >= number)
