"""kill -9 of the daemon, at random moments and at failpoints, and what must be true after each of them."""

from __future__ import annotations

import pytest

from tests.crash.harness import endure

KILLS = 6


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("seed", "pipelining"), [(1, True), (2, False)], ids=["pipelining", "one at a time"])
async def test_nothing_is_lost_and_nothing_leaks(tmp_path, seed, pipelining):
    """If it failed, a 250, a halt, a hold or a figure that the daemon gave was a lie after the next crash."""
    summary = await endure(tmp_path, seed, kills=KILLS, pipelining=pipelining)
    print(summary)
    assert summary.kills.total() >= KILLS
    assert summary.facts["acknowledged"] > 100, "the daemon was under load"
    assert summary.facts["halts asked"] > 0
