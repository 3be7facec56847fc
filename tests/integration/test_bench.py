"""`make bench`, with next to no load: that it measures at all. Its figures are for people to judge."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench import throughput
from tests.bench.figures import Figure
from tests.bench.histogram import Histogram, parse_histogram
from tests.bench.machine import describe_machine
from tests.bench.pictures import draw_pictures
from tests.bench.postfix_halt import measure_stop, selector
from tests.bench.results import CaseResult, Results, load_results, save_results
from tests.bench.table import WIDTH, format_value, mark_of, table_lines
from tests.bench.throughput import PARTS, Load, measure_load

ROOT = Path(__file__).parents[2]
MACHINE = {
    "cpu": "A CPU of 2026",
    "cores": 2,
    "memory_gib": 4.0,
    "kernel": "6.1",
    "python": "3.11.9",
    "fsync_ms": {"median": 0.8, "p99": 3.0},
}

needs_postfix = pytest.mark.needs("postfix", "postfix")
needs_source = pytest.mark.needs("smtp-source", "postfix")


def made_up() -> Results:
    """Give figures as a run would."""
    rates = [
        Figure(
            case="rates", what=f"{size}, {part}", unit="/s", value=4_000.0 / n, peer=400.0 / n, peer_name="Postfix 3.7"
        )
        for n, size in enumerate(("10 kB", "100 kB"), 1)
        for part in PARTS
    ]
    halts = [
        Figure(case="halting", what=f"{state}: {what}", unit=unit, value=value + at / 1e6, more=False, at=at)
        for at in (1_000, 100_000, 1_000_000)
        for state in ("idle", "full load")
        for what, unit, value in (("halt of half of them answered", "ms", 4.0), ("half of them completed", "s", 2.0))
    ]
    theirs = [
        Figure(case="postfix_halt", what=f"Postfix, {at} queued: deleted", unit="s", value=at / 3e3, more=False, at=at)
        for at in (1_000, 10_000, 100_000)
    ]
    theirs.append(Figure(case="postfix_halt", what="sent after", unit="mails", value=8_181, more=False, at=100_000))
    case = {"at": "2026-11-23T06:00:00Z", "scale": 1.0}
    return Results(
        dict(MACHINE),
        {
            "rates": CaseResult(**case, figures=rates),
            "halts": CaseResult(**case, figures=halts),
            "postfix_halt": CaseResult(**case, figures=theirs),
        },
    )


@needs_source
def test_rates():
    """If it failed, nobody would know how fast mtactl is beside Postfix."""
    told = []
    postfix = os.geteuid() == 0
    load = Load("10 kB", 10_240, 60, 60)
    figures = {each.what: each for each in measure_load(load, told.append, postfix=postfix, rounds=1)}
    assert len(told) == 1 + postfix
    for part in PARTS:
        rate = figures[f"10 kB, {part}"]
        assert rate.value > 0 and rate.must is not None and (rate.ratio is not None) == postfix
        assert f"10 kB, {part}, CPU a message" in figures
    assert figures["10 kB, source and sink alone"].value > 0


@needs_source
def test_rates_go_on_without_postfix(monkeypatch):
    """If it failed, people who are not root could measure nothing."""
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    monkeypatch.setattr(throughput, "measure_load", lambda *_, postfix, rounds: iter([postfix, rounds]))
    told = []
    assert list(throughput.measure(0.01, told.append)) == [False, 1] * 2
    assert "root" in told[0]


@needs_source
@needs_postfix
@pytest.mark.root_only
def test_postfix_halt():
    """If it failed, nobody would know what a stop costs without mtactl."""
    time, late = measure_stop(100, lambda _: None)
    assert time.at == late.at == 100 and time.value > 0 and 0 <= late.value <= 50


def test_selection_without_jq(monkeypatch):
    """If it failed, the peer's stop could not be measured where jq is missing, or would delete other mail."""
    monkeypatch.setenv("PATH", "/nonexistent")
    command, told = selector("a@x.example")
    assert "not installed" in told
    entries = [{"sender": "a@x.example", "queue_id": "1A"}, {"sender": "b@x.example", "queue_id": "2B"}]
    lines = "".join(f"{json.dumps(each)}\n" for each in entries)
    assert subprocess.run(command, input=lines, capture_output=True, text=True, check=True).stdout == "1A\n"


def test_table():
    """If it failed, the goals could be missed without anybody seeing it, or the table would break a terminal."""
    of_peer = {"case": "rates", "what": "x", "unit": "/s", "value": 600.0, "must": 5.0, "aim": 10.0, "of_peer": True}
    figures = {
        "aim": Figure(**of_peer, peer=60.0),
        "must": Figure(**of_peer, peer=100.0),
        "MISSED": Figure(**of_peer, peer=200.0, note="a long explanation, " * 20),
        "no peer": Figure(**of_peer),
        "": Figure(case="rates", what="a long name of what was measured, " * 4, unit="µs", value=12.3, more=False),
    }
    late = Figure(case="halts", what="answer", unit="ms", value=51.0, more=False, must=50.0, aim=10.0)
    for mark, figure in (*figures.items(), ("MISSED", late)):
        assert mark_of(figure) == mark
    lines = list(table_lines([("rates", figures.values()), ("halts", [late])]))
    assert max(map(len, lines)) <= WIDTH
    assert [line.split()[-1] for line in lines if line.startswith("rates")][:3] == ["aim", "must", "MISSED"]
    assert "6.0x" in lines[3] and "5x" in lines[3]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(4_750.4, "/s", "4,750/s"), (12.34, "ms", "12.3 ms"), (0.5, "s", "0.50 s"), (0.0012, "", "0.0012"), (0, "", "0")],
)
def test_numbers(value, unit, text):
    """If it failed, figures would be read wrong."""
    assert format_value(value, unit) == text


def test_results_come_back_as_they_were(tmp_path):
    """If it failed, pictures could not be drawn again, and published figures would be lost by the next run."""
    results = made_up()
    results.cases["rates"].figures[0] = Figure(case="rates", what="x", unit="/s", value=1.0, samples=(1.0, 2.0))
    save_results(results, tmp_path / "results.json")
    assert load_results(tmp_path / "results.json") == results
    again = Results(dict(MACHINE), {"rates": made_up().cases["rates"]})
    again.add_missing(results)
    assert again == Results(dict(MACHINE), {**results.cases, "rates": made_up().cases["rates"]})
    assert again.same_machine(results) and not again.same_machine(Results({**MACHINE, "cores": 4}))


def test_machine_is_described():
    """If it failed, nobody could tell what published figures were measured on."""
    machine = describe_machine()
    assert machine["cpu"] and machine["fsync_ms"]["median"] > 0 and "GCC" in machine["python_build"]
    json.dumps(machine)


def test_pictures(tmp_path):
    """If it failed, README would show pictures of old figures, or none."""
    pytest.importorskip("matplotlib")
    drawn = draw_pictures(made_up(), tmp_path)
    assert [path.name for path in drawn] == ["throughput.svg", "halt.svg"]
    before = [path.read_bytes() for path in drawn]
    assert all(picture.startswith(b"<?xml") and b"</svg>" in picture for picture in before)
    draw_pictures(made_up(), tmp_path)
    assert [path.read_bytes() for path in drawn] == before
    assert draw_pictures(Results(dict(MACHINE)), tmp_path) == []


def test_pictures_are_redrawn_from_a_file(tmp_path, capsys):
    """If it failed, a picture could be mended only by measuring again."""
    pytest.importorskip("matplotlib")
    save_results(made_up(), tmp_path / "results.json")
    assert bench.main(["--draw", str(tmp_path / "results.json")]) == 0
    assert (tmp_path / "halt.svg").exists() and "throughput.svg" in capsys.readouterr().out


def test_a_case_that_fails_does_not_end_the_others(tmp_path, capsys, monkeypatch):
    """If it failed, an hour of measuring would be lost by one defect."""
    cases = {"rates": ("nothing_of_this_name", "x"), "memory": ("made_up", "y")}
    measured = Figure(case="memory", what="resident", unit="MiB", value=100.0, more=False)

    class MadeUp:
        @staticmethod
        def measure(scale, tell):
            yield measured
            assert scale == 1.0, "too small"

    monkeypatch.setitem(sys.modules, "tests.bench.made_up", MadeUp)
    monkeypatch.setattr(bench, "CASES", cases)
    path = tmp_path / "figures.json"
    assert bench.main(["--json", str(path)]) == 1
    assert "rates FAILED: ModuleNotFoundError" in capsys.readouterr().out
    results = load_results(path)
    assert results.failed == ["rates"] and results.cases["memory"].figures == [measured]
    assert bench.main(["--json", str(path), "--only", "memory"]) == 0
    assert bench.main(["--json", str(path), "--only", "memory", "--scale", "0.1"]) == 1
    assert load_results(path).cases["memory"].figures == [measured]


def test_published_figures_stay_where_a_case_is_not_run(tmp_path, monkeypatch):
    """If it failed, publishing one case again would throw away all others, or mix two machines in one table."""

    class MadeUp:
        @staticmethod
        def measure(scale, tell):
            yield Figure(case="memory", what="resident", unit="MiB", value=100.0, more=False)

    monkeypatch.setitem(sys.modules, "tests.bench.made_up", MadeUp)
    monkeypatch.setattr(bench, "CASES", {**bench.CASES, "memory": ("made_up", "x")})
    path = tmp_path / "bench" / "results.json"
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "bench.json")
    monkeypatch.setattr(bench, "PUBLISHED", path)
    earlier = made_up()
    for machine, kept in ((dict(MACHINE), False), (describe_machine(), True)):
        earlier.machine = machine
        save_results(earlier, path)
        assert bench.main(["--publish", "--only", "memory"]) == 0
        cases = load_results(path).cases
        assert "memory" in cases and ("rates" in cases) == kept
    assert not (tmp_path / "bench.json").exists()


def test_cases_are_listed(capsys):
    """If it failed, nobody would know what can be measured."""
    assert bench.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(bench.CASES)
    missing = [name for name, (module, _) in bench.CASES.items() if not (ROOT / f"tests/bench/{module}.py").exists()]
    assert missing == []


def test_histogram():
    """If it failed, the event loop's lag would be told wrong."""
    text = 'x_bucket{le="0.001"} 90.0\nx_bucket{le="0.01"} 98.0\nx_bucket{le="0.1"} 100.0\nx_bucket{le="+Inf"} 100.0\n'
    histogram = parse_histogram(text, "x")
    assert histogram.count == 100
    assert math.isclose(histogram.quantile(0.99), 0.055)
    assert (histogram + histogram - histogram).buckets == histogram.buckets
    assert Histogram().quantile(0.99) == 0.0
    assert Histogram({0.1: 0.0, math.inf: 5.0}).quantile(0.99) == 0.1


def test_hot_paths():
    """If it failed, `make bench-micro` would measure nothing, or something that no longer works."""
    pytest.importorskip("pytest_benchmark")
    command = [sys.executable, "-m", "pytest", "tests/bench/micro", "-o", "python_files=bench_*.py", "-q"]
    done = subprocess.run(
        [*command, "--benchmark-disable", "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3_000:]
