"""Stores that are damaged at random, with fixed seeds: the short form of `make corruption`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corruption.stores import Truth, make_stores
from tests.corruption.trial import run_trial

SEEDS = range(9_000, 9_010)


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, tuple[Path, Truth]]:
    """Stores to copy, each with the truth about it."""
    return make_stores(tmp_path_factory.mktemp("stores"))


@pytest.mark.parametrize("kind", ["index", "log", "segments", "halts", "others"])
def test_damage_is_survived(stores, tmp_path, kind):
    """If it failed, a bad block would send mail to whom it was not meant for, forget a halt, or keep all mail back."""
    kinds = ("attempts", "reserve", "lock") if kind == "others" else (kind,)
    ends = ["small-killed"] if kind == "log" else ["small-closed", "small-killed"]
    for seed in SEEDS:
        source, truth = stores[ends[seed % len(ends)]]
        run_trial(source, truth, tmp_path / "work", seed, kinds)


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_damage_to_a_larger_store_is_survived(stores, tmp_path, end):
    """If it failed, what is true of an index of a few pages would not be true of one with pages above pages."""
    source, truth = stores[f"large-{end}"]
    for seed in SEEDS[:3]:
        run_trial(source, truth, tmp_path / "work", seed, ("index",))
