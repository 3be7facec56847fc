"""The metrics of CONTRACT.md §6.

Counters and gauges are read from a `Snapshot` when someone scrapes, so that they cost nothing while mail flows, and all
of one scrape belong to one instant. Only what has a distribution is observed as it happens.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

__all__ = ["LATEST_HALTS", "QUEUE_STATES", "Metrics", "Snapshot"]

LATEST_HALTS = 100  # how many halts have a series of their own

QUEUE_STATES = ("ready", "deferred", "scheduled", "held")

_TOTALS = {
    "accepted": "Recipients taken into the queue.",
    "delivered": "Recipients whose peer took the message.",
    "bounced": "Recipients refused for good, by the peer or by this node.",
    "expired": "Recipients given up after too many temporary failures.",
    "dropped": "Recipients removed by a halt or an administrator.",
    "unknown": "Recipients of halted campaigns whose transaction was cut off: nobody can know how it ended.",
    "deferred": "Temporary failures, after each of which the recipient waits again.",
    "delivered_after_stop": "Deliveries whose transaction was in flight when the campaign's gate closed.",
    "refused": "Recipients refused at injection because their campaign is halted.",
    "discarded": "Recipients taken and thrown away at injection because their campaign is halted.",
    "begun_after_stop": "Recipients whose transaction began after their campaign's gate had closed: a leak, always 0.",
}

_GAUGES = {
    "in_flight_recipients": "Recipients in flight.",
    "in_flight_transactions": "SMTP transactions in flight.",
    "outbound_connections": "Connections to peers, open or opening.",
    "inbound_connections": "Connections of clients that inject.",
    "lanes": "Destinations in memory: those that have mail, or had some in the last ten minutes.",
    "lanes_in_backoff": "Destinations that are left alone for now because they were out of reach.",
    "halts_in_progress": "Halts whose gate is closed and that are not completed.",
    "halt_in_progress_age_seconds": "Age of the oldest halt that is not completed; 0 when there is none.",
    "ready": "Whether mail is taken, as /readyz says: 1 or 0.",
    "store_failed": "Whether the store has failed and takes no more writes until a restart: 1 or 0.",
    "store_free_bytes": "Bytes free for mail beside the reserve.",
    "store_size_bytes": "Bytes of the file system that holds the store.",
    "config_last_reload_successful": "Whether the file was good when the configuration was read last: 1 or 0.",
    "config_keys_awaiting_restart": "Keys that had changed at the last reload and are read at the start only.",
}

_omit_created: Callable[[], None] = disable_created_metrics  # the library left this function without types

_FINE = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_COMPLETION = (0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_COMMIT = (0.00025, *_FINE)
_BATCH = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of the node at one instant. What is left out of a mapping counts as 0.

    `totals` has recipients by the names of `mtactl_recipients_*_total`; `queue` recipients by `QUEUE_STATES`; `gauges`
    the plain gauges by name; `halts` halts by kind ("stop", "cancel"); `after_stop` (in flight at the stop, delivered
    after it) by campaign, of the latest halts in order of time.
    """

    totals: Mapping[str, int] = field(default_factory=dict)
    queue: Mapping[str, int] = field(default_factory=dict)
    gauges: Mapping[str, float] = field(default_factory=dict)
    halts: Mapping[str, int] = field(default_factory=dict)
    after_stop: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    log_lines_left_out: int = 0


class Metrics:
    """The node's metrics, on a registry of their own. `snapshot` is called once a scrape, in the thread that asks."""

    def __init__(self, snapshot: Callable[[], Snapshot], *, version: str) -> None:
        # `_created` series would double the number of all series for a time that nobody asks for.
        _omit_created()
        self._registry = CollectorRegistry()
        self._registry.register(_SnapshotCollector(snapshot, version))
        ProcessCollector(registry=self._registry)
        self._halt_ack = self._histogram(
            "halt_ack_seconds", "Time from a halt's request until it was durable and answered.", _FINE
        )
        self._halt_completion = self._histogram(
            "halt_completion_seconds", "Time from a halt's request until nothing was queued or in flight.", _COMPLETION
        )
        self._commit = self._histogram(
            "commit_seconds", "Time of one commit of the store, its fsync included.", _COMMIT
        )
        self._batch = self._histogram("commit_batch_size", "Operations made durable by one commit.", _BATCH)
        self._lag = self._histogram(
            "event_loop_lag_seconds", "How much later than asked the event loop woke a sleeper.", _FINE
        )

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> _Distribution:
        distribution = _Distribution(f"mtactl_{name}", text, bounds)
        self._registry.register(distribution)
        return distribution

    def observe_halt_ack(self, seconds: float) -> None:
        """Note how long a halt took to be answered."""
        self._halt_ack.observe(seconds)

    def observe_halt_completion(self, seconds: float) -> None:
        """Note how long a halt took to be completed."""
        self._halt_completion.observe(seconds)

    def observe_commit(self, seconds: float, operations: int) -> None:
        """Note a commit of the store (its `on_commit`)."""
        self._commit.observe(seconds)
        self._batch.observe(operations)

    def observe_loop_lag(self, seconds: float) -> None:
        """Note by how much the event loop was late."""
        self._lag.observe(seconds)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Give all metrics in the format that an Accept header prefers, and their content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Distribution(Collector):
    """A histogram for one thread that observes, as each commit does, several hundred times a second.

    The library's own, which may be observed from any thread, takes a lock and walks all buckets each time.
    """

    def __init__(self, name: str, text: str, bounds: tuple[float, ...]) -> None:
        self._name = name
        self._text = text
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)  # not cumulative; the last one is above all bounds
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def describe(self) -> list[Metric]:
        """Give the family's name and type."""
        return [HistogramMetricFamily(self._name, self._text)]

    def collect(self) -> Iterator[Metric]:
        """Give the family: cumulative counts by upper bound."""
        below = list(accumulate(self._counts))
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        buckets = list(zip(names, below, strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=self._sum)


class _SnapshotCollector(Collector):
    """Turns a snapshot into metric families."""

    def __init__(self, snapshot: Callable[[], Snapshot], version: str) -> None:
        self._snapshot = snapshot
        self._version = version

    def describe(self) -> list[Metric]:
        """Give nothing: the registry would call `collect` otherwise, before there is anything to take a snapshot of."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give all families of one instant."""
        snapshot = self._snapshot()
        yield InfoMetricFamily(
            "mtactl_build",
            "The version that runs.",
            value={"version": self._version, "python": platform.python_version()},
        )
        for name, text in _TOTALS.items():
            yield CounterMetricFamily(f"mtactl_recipients_{name}", text, value=snapshot.totals.get(name, 0))
        queue = GaugeMetricFamily("mtactl_queue_recipients", "Recipients that wait.", labels=["state"])
        for state in QUEUE_STATES:
            queue.add_metric([state], snapshot.queue.get(state, 0))
        yield queue
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"mtactl_{name}", text, value=snapshot.gauges.get(name, 0))
        halts = CounterMetricFamily("mtactl_halts", "Halts on record, by kind.", labels=["kind"])
        for kind in ("stop", "cancel"):
            halts.add_metric([kind], snapshot.halts.get(kind, 0))
        yield halts
        in_flight_at_stop = _of_campaigns("in_flight_at_stop", "Recipients in flight when the gate closed")
        after_stop = _of_campaigns("delivered_after_stop", "Deliveries after the stop")
        for campaign in list(snapshot.after_stop)[-LATEST_HALTS:]:
            in_flight, delivered = snapshot.after_stop[campaign]
            in_flight_at_stop.add_metric([campaign], in_flight)
            after_stop.add_metric([campaign], delivered)
        yield in_flight_at_stop
        yield after_stop
        yield CounterMetricFamily(
            "mtactl_log_lines_left_out",
            "Log lines left out because their reader was too slow.",
            value=snapshot.log_lines_left_out,
        )


def _of_campaigns(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(
        f"mtactl_campaign_{name}", f"{text}, of the latest {LATEST_HALTS} halts.", labels=["campaign"]
    )
