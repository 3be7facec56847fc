"""The instruments, wired to the core: what its parts tell goes to the log, the events and the metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import islice

import structlog

from mtactl.campaign.halt import Halt, HaltStep
from mtactl.core import Core
from mtactl.observe.events import EventBus
from mtactl.observe.health import Health
from mtactl.observe.http import MonitoringServer
from mtactl.observe.log import configure_log, timestamp
from mtactl.observe.loop_lag import sample_loop_lag
from mtactl.observe.metrics import LATEST_HALTS, Metrics, Snapshot
from mtactl.observe.outcomes import OutcomeLog
from mtactl.observe.writer import LineWriter
from mtactl.schedule.lane import Lane
from mtactl.settings import LogSettings, Settings

__all__ = ["Instruments"]

_log = structlog.get_logger("halt")

_COUNTED = (
    "accepted",
    "delivered",
    "bounced",
    "expired",
    "dropped",
    "unknown",
    "delivered_after_stop",
    "refused",
    "discarded",
    "begun_after_stop",
)


class Instruments:
    """Log, events, metrics and health of one run."""

    def __init__(
        self,
        writer: LineWriter,
        settings: Settings,
        *,
        problems: Callable[[], Sequence[str]],
        ready: Callable[[], bool],
    ) -> None:
        self._writer = writer
        self._problems = problems
        self._ready = ready
        self._core: Core | None = None
        self.inbound_connections: Callable[[], int] = lambda: 0
        self.store_failed: Callable[[], bool] = lambda: False
        self._reload_failed = False
        self._awaiting_restart = 0
        self.events = EventBus()
        self.metrics = Metrics(self._snapshot, version=version("mtactl"))
        self._outcomes = OutcomeLog(writer, self.events, form=settings.log.format, level=settings.log.level)

    def watch(self, core: Core) -> None:
        """Listen to what a core tells."""
        self._core = core
        core.settler.on_settled = self._outcomes.write
        core.halter.on_recorded = self._halt_recorded
        core.halter.on_step = self._halt_step
        core.halter.on_completed = self._halt_completed
        core.lanes.on_backoff = self._backoff

    def change(self, settings: LogSettings) -> None:
        """Log in another form or at another level."""
        configure_log(self._writer, form=settings.format, level=settings.level)
        self._outcomes.change(form=settings.format, level=settings.level)

    def note_reload(self, awaiting_restart: int | None) -> None:
        """Note that the file was read again, and how many of its changes wait for a restart (None: it was bad)."""
        self._reload_failed = awaiting_restart is None
        if awaiting_restart is not None:
            self._awaiting_restart = awaiting_restart

    def server(self, *, most: int, backlog: int) -> MonitoringServer:
        """Give the HTTP server for /metrics, /healthz and /readyz, for so many connections."""
        return MonitoringServer(self.metrics, Health(self._reasons), most=most, backlog=backlog)

    async def sample(self) -> None:
        """Measure the event loop's lag until cancelled."""
        await sample_loop_lag(self.metrics.observe_loop_lag)

    def _reasons(self) -> Sequence[str]:
        return self._problems() if self._ready() else ["not accepting mail: starting or stopping"]

    def _halt_recorded(self, halt: Halt, seconds: float) -> None:
        self.metrics.observe_halt_ack(seconds)
        facts = {
            "campaign": halt.campaign,
            "kind": halt.kind,
            "reason": halt.reason,
            "by": halt.requested_user,
            "queued_at_stop": halt.queued_at_stop,
            "in_flight_at_stop": halt.in_flight_at_stop,
            "seconds": round(seconds, 6),
        }
        self.events.publish("halt", facts)
        _log.info("halted", **facts)

    def _halt_step(self, halt: Halt, step: HaltStep) -> None:
        self.events.publish(
            "halt_step", {"campaign": halt.campaign, "step": step.value, "at": timestamp(halt.steps[step])}
        )

    def _halt_completed(self, halt: Halt, seconds: float) -> None:
        self.metrics.observe_halt_completion(seconds)
        if self._core is not None:
            account = self._core.ledger.account(halt.campaign)
            _log.info(
                "halt completed",
                campaign=halt.campaign,
                dropped=account.dropped,
                delivered=account.delivered,
                delivered_after_stop=account.delivered_after_stop,
                unknown=account.unknown,
                seconds=round(seconds, 3),
            )

    def _backoff(self, lane: Lane, reply: str) -> None:
        until = None if lane.backoff_until_wall is None else timestamp(lane.backoff_until_wall)
        self.events.publish("backoff", {"lane": lane.name, "reply": reply, "until": until})

    def _snapshot(self) -> Snapshot:
        core = self._core
        if core is None:
            return Snapshot()
        total = core.ledger.total
        halter = core.halter
        latest = tuple(islice(reversed(halter.halts.values()), LATEST_HALTS))[::-1]
        return Snapshot(
            totals={**{name: getattr(total, name) for name in _COUNTED}, "deferred": total.deferrals},
            queue=core.queue_states(),
            gauges={
                "in_flight_recipients": total.in_flight,
                "in_flight_transactions": core.dispatcher.transactions,
                "outbound_connections": core.dispatcher.connections,
                "inbound_connections": self.inbound_connections(),
                "lanes": len(core.lanes),
                "lanes_in_backoff": core.lanes.in_backoff(),
                "halts_in_progress": len(halter.in_progress),
                "halt_in_progress_age_seconds": halter.oldest_age(),
                "ready": not self._reasons(),
                "store_failed": self.store_failed(),
                "store_free_bytes": core.store.free_bytes(),
                "store_size_bytes": core.store.size_bytes(),
                "config_last_reload_successful": not self._reload_failed,
                "config_keys_awaiting_restart": self._awaiting_restart,
            },
            halts=halter.kinds,
            after_stop={
                halt.campaign: (
                    halt.in_flight_at_stop,
                    core.ledger.account(halt.campaign).delivered_after_stop,
                )
                for halt in latest
            },
            log_lines_left_out=self._writer.left_out,
        )
