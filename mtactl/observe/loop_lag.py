"""How late the event loop wakes a sleeper: what every reply and every halt has to wait for on top of its own work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["sample_loop_lag"]


async def sample_loop_lag(observe: Callable[[float], None], *, interval: float = 0.1) -> None:
    """Sleep `interval` seconds over and over and tell by how many seconds each sleep was too long, until cancelled."""
    while True:
        asked = time.perf_counter() + interval
        await asyncio.sleep(interval)
        observe(max(0.0, time.perf_counter() - asked))
