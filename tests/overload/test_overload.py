"""The short form of an overload; the long one is `make overload`."""

from __future__ import annotations

import pytest

from tests.overload.course import endure

SECONDS = 15.0
GROWTH = 60.0  # MiB: windows and caches fill in the first minutes, whatever the length of the queue


@pytest.mark.timeout(200)
def test_more_mail_than_can_be_delivered(tmp_path):
    """If it failed, a flood of mail would take the memory, or the command to halt a part of it would go unheard."""
    course = endure(tmp_path, SECONDS, pause=0.2, connections=1)
    print(course)
    assert course.wrong == []
    assert course.halts.failures == course.health.failures == []
    assert len(course.halts.seconds) > 10 and len(course.health.seconds) > 20
    assert course.counts["queued"] + course.counts["dropped"] > course.counts["delivered"] > 0, "it was overloaded"
    assert course.memory_of_part(9) - course.memory_of_part(1) < GROWTH
