"""The two pictures worth looking at, as SVG, made from results: throughput side by side, and what a halt costs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure
from tests.bench.machine import name_machine
from tests.bench.results import CaseResult, Results

__all__ = ["draw_halt", "draw_pictures", "draw_throughput"]

RATES, HALTS, POSTFIX_HALT = "rates", "halts", "postfix_halt"
SIZES = ("10 kB", "100 kB")
PARTS = ("end to end", "in only", "out only")
_OURS, _PALE, _THEIRS, _GREY = "#1f6feb", "#9ec5fe", "#c9d1d9", "#57606a"
_SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}


def draw_pictures(results: Results, folder: Path) -> list[Path]:
    """Draw what there are figures for; give the files. Raises ImportError without matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, draw in (("throughput.svg", draw_throughput), ("halt.svg", draw_halt)):
        picture = draw(results)
        if picture is not None:
            path = folder / name
            picture.savefig(path, format="svg", metadata={"Date": None}, facecolor="white")
            drawn.append(path)
    return drawn


def draw_throughput(results: Results) -> Any | None:
    """Draw messages a second of mtactl and its peer, by size and part, with how many times the peer's it is."""
    figures = {each.what: each for each in _figures(results, RATES) if each.unit == "/s"}
    sizes = [size for size in SIZES if any(f"{size}, {part}" in figures for part in PARTS)]
    if not sizes:
        return None
    picture = _picture(9, 4.2)
    places = picture.subplots(1, len(sizes), squeeze=False)[0]
    peer = ""
    for axes, size in zip(places, sizes, strict=True):
        shown = [(part, figures[f"{size}, {part}"]) for part in PARTS if f"{size}, {part}" in figures]
        for place, (_, figure) in enumerate(shown):
            axes.bar(place - 0.2, figure.value, 0.38, color=_OURS)
            _write_above(axes, place - 0.2, figure.value, f"{figure.value:,.0f}")
            if figure.peer is not None:
                peer = figure.peer_name or peer
                axes.bar(place + 0.2, figure.peer, 0.38, color=_THEIRS)
                _write_above(axes, place + 0.2, figure.peer, f"{figure.peer:,.0f}")
            if figure.ratio is not None:
                above = max(figure.value, figure.peer or 0.0)
                _write_above(axes, place, above, f"{figure.ratio:.1f}x", lift=15, fontsize=12, fontweight="bold")
        axes.set_xticks(range(len(shown)), [part for part, _ in shown])
        axes.set_title(f"messages of {size}", fontsize=10)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_ylim(0, 1.2 * max(max(figure.value, figure.peer or 0.0) for _, figure in shown))
        _clean(axes)
    places[0].set_ylabel("messages a second")
    names = [("mtactl", _OURS)] + ([(peer, _THEIRS)] if peer else [])
    _legend(picture, names)
    _sign(picture, results, RATES, "Each message on the disk before its 250; source and sink on the same machine.")
    return picture


def draw_halt(results: Results) -> Any | None:
    """Draw what a halt takes against the queue's size, both logarithmic."""
    ours = _points(_figures(results, HALTS), "half of them answered")
    dropped = _points(_figures(results, HALTS), "completed")
    theirs = _points(_figures(results, POSTFIX_HALT), "deleted")
    if not ours and not theirs:
        return None
    picture = _picture(9, 5.2, legend=0.15)
    axes = picture.subplots()
    for points, name, colour, marker in (
        (theirs, "Postfix: postqueue | jq | postsuper, to its end", _GREY, "s"),
        (dropped, "mtactl: all of it dropped and counted", _PALE, "o"),
        (ours, "mtactl: halt answered, from then on nothing begins", _OURS, "o"),
    ):
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, linewidth=2, label=name)
            at, seconds = points[-1]
            axes.annotate(_duration(seconds), (at, seconds), (0, 9), textcoords="offset points", ha="center")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(y=0.15)
    axes.set_xlabel("messages in the queue, half of them the campaign that is stopped while all are delivered")
    axes.set_ylabel("time")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: _duration(value))
    axes.grid(visible=True, which="major", color="#eaeef2")
    _clean(axes)
    handles = axes.get_legend_handles_labels()
    picture.legend(*handles, loc="upper center", ncols=1, frameon=False, fontsize=9)
    sent = max(
        (each for each in _figures(results, POSTFIX_HALT) if each.unit == "mails" and each.at is not None),
        key=lambda each: each.at or 0.0,
        default=None,
    )
    told = "" if sent is None else f"Postfix sent {sent.value:,.0f} mails of the campaign after the command began"
    _sign(picture, results, HALTS if ours else POSTFIX_HALT, f"{told} ({sent.at:,.0f} queued)." if sent else "")
    return picture


def _points(figures: Iterable[Figure], word: str) -> list[tuple[float, float]]:
    """Give (queued, seconds), one point a size: where there are several the last, which is at full load."""
    found = {
        each.at: each.value * _SECONDS[each.unit]
        for each in figures
        if each.at and each.unit in _SECONDS and word in each.what and each.value > 0
    }
    return sorted(found.items())


def _figures(results: Results, case: str) -> list[Figure]:
    found = results.cases.get(case)
    return [] if found is None else found.figures


def _duration(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _picture(width: float, height: float, *, legend: float = 0.11) -> Any:
    """Begin a picture, in inches; `legend` is the share of its height that the legend gets, above."""
    import matplotlib as mpl  # noqa: PLC0415 - only pictures need it
    from matplotlib.figure import Figure as Picture  # noqa: PLC0415 - likewise; without pyplot: no display, no state

    mpl.rcParams["svg.hashsalt"] = "mtactl"  # the same figures give the same file
    picture = Picture(figsize=(width, height), layout="constrained")
    # The machine is named below; on the right the last number of an axis needs room.
    picture.get_layout_engine().set(rect=(0, 0.1, 0.97, 0.9 - legend), w_pad=0.12)
    return picture


def _clean(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(which="both", length=0)


def _write_above(axes: Any, x: float, y: float, text: str, *, lift: float = 2, fontsize: float = 8, **how: Any) -> None:
    axes.annotate(
        text, (x, y), (0, lift), textcoords="offset points", ha="center", va="bottom", fontsize=fontsize, **how
    )


def _legend(picture: Any, names: list[tuple[str, str]]) -> None:
    from matplotlib.patches import Patch  # noqa: PLC0415 - only pictures need it

    handles = [Patch(color=colour, label=name) for name, colour in names]
    picture.legend(handles=handles, loc="upper center", ncols=len(handles), frameon=False)


def _sign(picture: Any, results: Results, name: str, told: str) -> None:
    """Name the machine and the day."""
    case: CaseResult = results.cases[name]
    scale = "" if case.scale == 1 else f", at {case.scale:g} of the full size"
    lines = [*([told] if told else []), *textwrap.wrap(f"{name_machine(results.machine)}, {case.at[:10]}{scale}", 130)]
    picture.text(0.01, 0.015, "\n".join(lines), fontsize=7.5, color=_GREY, va="bottom")
