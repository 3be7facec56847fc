"""What a halt is about to do, and how long what it does will take: the rate now, the destinations, the time left."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from mtactl.cli.client import Client, campaign_path
from mtactl.cli.failures import Failure
from mtactl.cli.figures import age, count, duration, plural
from mtactl.control.types import CampaignAnalysis, CampaignReport, LaneCounts, Step

__all__ = ["Estimate", "Outlook", "describe_outlook", "look_ahead"]

_LOOK = 1.0  # seconds over which the rate is measured, while a person reads the first line
_PATIENCE = 2.0  # seconds for an answer
_LANES = 3  # that are named
_SPAN = 10.0  # seconds over which the pace of a step is measured
_LEAST = 0.5  # seconds after which there is a pace


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A campaign a moment ago: `rate` is deliveries a second. None: the daemon did not say in time."""

    report: CampaignReport
    rate: float | None
    lanes: tuple[LaneCounts, ...] | None = None
    more_lanes: int = 0


def look_ahead(client: Client, report: CampaignReport) -> Outlook:
    """Look at a campaign for a second. The destinations of a very large one are left out, not waited for."""
    counted: list[CampaignAnalysis] = []

    def count_lanes() -> None:
        try:
            path = campaign_path(report.campaign, "analysis")
            counted.append(client.get(path, CampaignAnalysis, patience=_PATIENCE).value)
        except Failure:
            return

    counting = threading.Thread(target=count_lanes, daemon=True)
    began = time.monotonic()
    counting.start()
    time.sleep(_LOOK)
    rate = None
    try:
        later = client.get(campaign_path(report.campaign), CampaignReport, patience=_PATIENCE).value
    except Failure:
        later = report
    else:
        seconds = time.monotonic() - began
        rate = max(0, later.counts.delivered - report.counts.delivered) / seconds
    counting.join(max(0.0, _LOOK / 2))
    if not counted:
        return Outlook(report=later, rate=rate)
    waiting = sorted((lane for lane in counted[0].lanes if lane.queued), key=lambda lane: -lane.queued)
    others = counted[0].others
    more = len(waiting[_LANES:]) + (counted[0].other_lanes if others is not None and others.queued else 0)
    return Outlook(report=later, rate=rate, lanes=tuple(waiting[:_LANES]), more_lanes=more)


def describe_outlook(outlook: Outlook) -> list[tuple[str, str]]:
    """Say in a few lines what goes on and what a halt will change, each with its name."""
    counts = outlook.report.counts
    told: list[tuple[str, str]] = []
    if outlook.rate is not None:
        pace = f"{outlook.rate:,.1f}".removesuffix(".0") + " deliveries a second"
        if outlook.rate and counts.queued:
            pace += f"; the queue would last {_about(counts.queued / outlook.rate)}"
        told.append(("rate now", pace))
    if outlook.lanes:
        named = ", ".join(f"{lane.lane} {count(lane.queued)}" for lane in outlook.lanes)
        more = f", and {plural(outlook.more_lanes, 'lane')} more" if outlook.more_lanes else ""
        told.append(("queued for", named + more))
    queued = f"{count(counts.queued)} queued are dropped" if counts.queued else "nothing is queued"
    flying = f"{count(counts.in_flight)} in flight finish" if counts.in_flight else "nothing is in flight"
    told.append(("a halt", f"{queued}, {flying}, new mail of it is refused, for ever"))
    return told


def _about(seconds: float) -> str:
    return duration(seconds) if seconds >= 10 else f"{max(1, round(seconds))} s"


class Estimate:
    """Reckons how long each step under way will still take, from its pace of the last ten seconds."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, int]]] = {}

    def look(self, report: CampaignReport, now: float) -> None:
        """Take the progress of each step at `now` (monotonic seconds)."""
        for step in report.steps:
            if not isinstance(step.done, int):
                continue
            seen = self._seen.setdefault(step.name, deque())
            seen.append((now, step.done))
            while now - seen[0][0] > _SPAN and len(seen) > 2:
                seen.popleft()

    def seconds_left(self, step: Step) -> float | None:
        """Give how long a step will still take, in seconds; None when it is done, stands still, or nobody can know."""
        seen = self._seen.get(step.name)
        if not seen or step.at is not None or not (isinstance(step.done, int) and isinstance(step.total, int)):
            return None
        (then, before), (now, done) = seen[0], seen[-1]
        if now - then < _LEAST or done <= before or step.total <= done:
            return None
        return (step.total - done) * (now - then) / (done - before)

    def tell(self, step: Step) -> str:
        """Say how long a step will still take, in ten columns at most; nothing when it can't be known."""
        left = self.seconds_left(step)
        return "" if left is None else f"~{age(max(1.0, left))} left"
