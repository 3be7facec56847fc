"""The figures as a table for a terminal of 120 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from tests.bench.figures import Figure

__all__ = ["WIDTH", "format_value", "mark_of", "table_lines"]

WIDTH = 120
_NAMES = ("case", "what", "value", "peer", "ratio", "must", "aim", "")
_WIDTHS = (12, 44, 14, 10, 7, 9, 9, 8)
_LEFT = {0, 1, 7}


def format_value(value: float, unit: str = "") -> str:
    """Write a number with three digits that say something, and its unit."""
    size = abs(value)
    if size >= 100 or value == int(value):
        digits = f"{value:,.0f}"
    elif size >= 10:
        digits = f"{value:.1f}"
    elif size >= 0.1:
        digits = f"{value:.2f}"
    else:
        digits = f"{value:.2g}"
    if not unit:
        return digits
    return f"{digits}{unit}" if unit.startswith("/") else f"{digits} {unit}"


def mark_of(figure: Figure) -> str:
    """Say which goal was reached: "aim", "must", "MISSED"; "no peer" where one is needed; "" where there is no goal."""
    if figure.must is None and figure.aim is None:
        return ""
    if figure.of_peer and figure.ratio is None:
        return "no peer"
    if figure.reaches(figure.aim):
        return "aim"
    return "must" if figure.reaches(figure.must) else "MISSED"


def table_lines(cases: Iterable[tuple[str, Iterable[Figure]]]) -> Iterator[str]:
    """Give the lines: one a figure, with what is to be noted below it."""
    yield _row(_NAMES)
    yield _row(["-" * width for width in _WIDTHS])
    for name, figures in cases:
        for figure in figures:
            what = textwrap.wrap(figure.what, _WIDTHS[1], subsequent_indent="  ") or [""]
            yield _row((name, what[0], *_cells(figure)))
            for line in what[1:]:
                yield _row(("", line))
            note = textwrap.wrap(figure.note, WIDTH - _WIDTHS[0] - 4)
            yield from (f"{'':{_WIDTHS[0] + 3}}{line}" for line in note)


def _cells(figure: Figure) -> tuple[str, ...]:
    goal_unit = "x" if figure.of_peer else _short(figure.unit)
    return (
        format_value(figure.value, figure.unit),
        "" if figure.peer is None else format_value(figure.peer),
        "" if figure.ratio is None else f"{figure.ratio:.1f}x",
        *("" if goal is None else f"{goal:,.4g}{goal_unit}" for goal in (figure.must, figure.aim)),
        mark_of(figure),
    )


def _short(unit: str) -> str:
    return unit if unit.startswith(("/", "%")) or len(unit) > 3 else f" {unit}"


def _row(cells: Iterable[str]) -> str:
    parts = []
    for place, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=False)):
        fitted = cell if len(cell) <= width else f"{cell[: width - 1]}…"
        parts.append(f"{fitted:<{width}}" if place in _LEFT else f"{fitted:>{width}}")
    return " ".join(parts).rstrip()
