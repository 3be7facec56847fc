"""When a deferred recipient is due again, and when waiting has lasted long enough. Times are µs since the epoch."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["due_after", "is_expired", "step_of"]

_SECOND = 1_000_000


def step_of(schedule: Sequence[float], attempts: int) -> float:
    """Give the seconds to wait after so many failures (the first is 0); the last entry of the schedule repeats."""
    return schedule[min(attempts, len(schedule) - 1)]


def due_after(schedule: Sequence[float], attempts: int, now: int, seed: int) -> int:
    """Give when a recipient with so many earlier deferrals is due again.

    Up to an eighth of the step is added, by the seed (the recipient's id), so that what failed together does not come
    back together.
    """
    step = int(step_of(schedule, attempts) * _SECOND)
    spread = step >> 3
    jitter = (seed * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) * spread >> 64
    return now + step + jitter


def is_expired(received_at: int, expire_after: float, now: int) -> bool:
    """Whether a message has waited for longer than `expire_after` seconds."""
    return now - received_at >= expire_after * _SECOND
