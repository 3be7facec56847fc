"""Reads one histogram from the daemon's /metrics."""

from __future__ import annotations

import math
import re
import urllib.request
from dataclasses import dataclass, field

__all__ = ["Histogram", "fetch_histogram", "parse_histogram"]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Cumulative counts by upper bound, as Prometheus tells them."""

    buckets: dict[float, float] = field(default_factory=dict)

    def __add__(self, other: Histogram) -> Histogram:
        bounds = sorted({*self.buckets, *other.buckets})
        return Histogram({bound: self.buckets.get(bound, 0) + other.buckets.get(bound, 0) for bound in bounds})

    def __sub__(self, earlier: Histogram) -> Histogram:
        return Histogram({bound: count - earlier.buckets.get(bound, 0) for bound, count in self.buckets.items()})

    @property
    def count(self) -> float:
        """How many samples there are."""
        return self.buckets.get(math.inf, 0.0)

    def quantile(self, share: float) -> float:
        """Give the value below which this share lies, by straight lines within buckets (the last: its lower bound)."""
        wanted, bound_below, count_below = share * self.count, 0.0, 0.0
        for bound, count in sorted(self.buckets.items()):
            if count >= wanted and count > count_below:
                if math.isinf(bound):
                    return bound_below
                return bound_below + (bound - bound_below) * (wanted - count_below) / (count - count_below)
            bound_below, count_below = bound, count
        return bound_below


def parse_histogram(text: str, name: str) -> Histogram:
    """Take a histogram without labels from the text of /metrics."""
    lines = re.findall(rf'^{re.escape(name)}_bucket{{le="([^"]+)"}} (\S+)$', text, re.MULTILINE)
    return Histogram({float(bound): float(count) for bound, count in lines})


def fetch_histogram(port: int, name: str) -> Histogram:
    """Ask a daemon of this machine."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return parse_histogram(answer.read().decode(), name)
