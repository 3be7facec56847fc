"""A disk that is full, or fails, at any call that the store makes: what was promised is there when it is opened again.

Here at some calls of a run; at each of them by `make corruption ARGS="--calls"`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.world.disk_trial import STORE_FILES, count_calls, fails_at, full_at, spread
from tests.world.failing_disk import Calls, Files

pytestmark = pytest.mark.needs("gcc", "gcc")


def test_full_at_any_moment(tmp_path: Path):
    """A disk that fills up would lose mail, forget a halt, or need a person after there is room again."""
    total = count_calls(tmp_path, Calls.WRITES | Calls.SIZES, Files.ALL)
    for point in spread(total, 6):
        full_at(tmp_path, point)


@pytest.mark.parametrize(("calls", "times"), [(Calls.WRITES, 1), (Calls.SYNCS, 1), (Calls.WRITES | Calls.SYNCS, -1)])
def test_an_error_at_any_moment(tmp_path: Path, calls: Calls, times: int):
    """A write or a sync that failed would be passed over, and what was acknowledged since would not be there."""
    total = count_calls(tmp_path, calls, STORE_FILES)
    failed = [fails_at(tmp_path, calls, STORE_FILES, point, times=times) for point in spread(total, 4)]
    assert any(failed)
