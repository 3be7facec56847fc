"""`make bench`, with next to no load: that it measures at all. Its figures are for people to judge."""

import os

import pytest

from tests.bench.__main__ import show_halts, show_rates
from tests.bench.halting import measure_halts
from tests.bench.throughput import PARTS, compare

pytestmark = pytest.mark.needs("smtp-source", "postfix")


def test_rates(capsys):
    """If it failed, nobody would know how fast mtactl is beside Postfix."""
    told = []
    postfix = os.geteuid() == 0
    figures, alone = compare(postfix=postfix, messages=40, size=10_240, rounds=1, tell=told.append)
    assert len(figures) == len(told) == 1 + postfix
    for each in figures.values():
        assert all(each.median(part) > 0 for part in PARTS)
    show_rates(figures, alone)
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 5 and max(map(len, shown)) < 80
    assert postfix == shown[1].endswith("x")


def test_halts(capsys):
    """If it failed, nobody would know how long a halt takes, and what it costs the others."""
    figures = measure_halts(queued=2_000, small=1, tell=lambda _: None, alone=0.5)
    assert figures.leaked == []
    assert figures.queued > 0 and figures.large > 0 and figures.flow_before > 0 and len(figures.small) == 1
    show_halts(figures)
    assert "not counted in flight: 0\n" in capsys.readouterr().out
