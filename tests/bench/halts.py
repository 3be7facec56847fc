"""Halts as they are measured: asked for, followed until the queue is dropped and the disk's space is back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.queue_fill import disk_usage
from tests.world.daemon import Daemon, check_law

__all__ = [
    "Dropping",
    "Halted",
    "ended_after_stop",
    "follow",
    "halt",
    "quantile",
    "set_held",
    "wait_for_delivery",
    "wait_until_idle",
]

PATIENCE = 300.0  # seconds for a drop
SPACE_PATIENCE = 60.0  # seconds, from the request on, for the space of what was dropped
RETURNED = 0.9  # of the dropped bodies' octets: the segment being written can't go, and outcomes take some
_LOOK, _LOOK_OFTEN = 0.1, 0.005  # seconds between looks at the report, at most and at least
_LOOK_SHARE = 0.05  # of the time gone by: so exactly is the end known, and a long drop is not slowed by looks
_LOOK_AT_DISK = 0.5


@dataclass(frozen=True, slots=True)
class Halted:
    """A halt that was answered; stamps are ns of CLOCK_MONOTONIC."""

    campaign: str
    asked: int
    answered: int

    @property
    def milliseconds(self) -> float:
        """How long the answer took."""
        return (self.answered - self.asked) / 1e6


@dataclass(slots=True)
class Dropping:
    """What became of a halted campaign's queue. Seconds from the request on; octets."""

    halted: Halted
    completed: float = 0.0
    dropped: int = 0
    in_flight: int = 0
    to_return: int = 0
    returned_after: float = 0.0  # when all was, or else when the patience ended
    returned: int = 0

    @property
    def share_returned(self) -> float:
        """How much of the space was back."""
        return self.returned / self.to_return if self.to_return else 0.0

    @property
    def has_returned(self) -> bool:
        """Whether as much of the space is back as can be asked for."""
        return self.share_returned >= RETURNED


def halt(node: Daemon, campaign: str) -> Halted:
    """Halt a campaign."""
    _, asked, answered = node.halt(campaign)
    return Halted(campaign, asked, answered)


def set_held(node: Daemon, campaign: str, *, held: bool) -> None:
    """Hold or release a campaign. Raises RuntimeError."""
    status, answer = node.call("POST", f"/v1/campaigns/{campaign}/{'hold' if held else 'release'}")
    if status != 200:
        raise RuntimeError(f"{campaign} could not be held or released: {answer}")


def follow(
    node: Daemon,
    store: Path,
    halted: Halted,
    used: int,
    to_return: int,
    *,
    meanwhile: Callable[[], None] = lambda: None,
) -> Dropping:
    """Wait until a halt is completed and its space is back. `used` is what the store took before.

    `meanwhile` is called once a second until it is completed. Space that isn't back in time is said so in what is
    given; a halt that isn't completed raises TimeoutError.
    """
    dropping = Dropping(halted, to_return=to_return)
    next_look_at_disk = next_second = 0.0
    while not dropping.completed or (to_return and not dropping.returned_after):
        now = time.monotonic()
        seconds = now - halted.asked / 1e9
        if not dropping.completed:
            report = node.report(halted.campaign)
            check_law(report["counts"])
            if report["state"] == "halted":
                dropping.completed = time.monotonic() - halted.asked / 1e9
                dropping.dropped = report["counts"]["dropped"]
                dropping.in_flight = report["stop"]["in_flight_at_stop"]
            elif seconds > PATIENCE:
                raise TimeoutError(f"the halt of {halted.campaign} is not completed: {report}")
            elif now >= next_second:
                meanwhile()
                next_second = now + 1.0
        if to_return and not dropping.returned_after and now >= next_look_at_disk:
            next_look_at_disk = now + _LOOK_AT_DISK
            dropping.returned = used - disk_usage(store)
            if dropping.has_returned or (dropping.completed and seconds > SPACE_PATIENCE):
                dropping.returned_after = seconds
        time.sleep(min(_LOOK, max(_LOOK_OFTEN, _LOOK_SHARE * seconds)))
    return dropping


def ended_after_stop(node: Daemon, campaign: str) -> list[dict]:
    """Give the recipients who were in flight when the campaign was halted. Raises RuntimeError.

    All others are dropped, and too many to be asked for.
    """
    query = "outcome=delivered,bounced,unknown&after_stop=true"
    status, rows = node.call("GET", f"/v1/campaigns/{campaign}/recipients?{query}")
    if status != 200:
        raise RuntimeError(f"no outcomes of {campaign}: {rows}")
    return [json.loads(row) for row in str(rows).splitlines()]


def wait_for_delivery(node: Daemon, campaign: str, count: int, patience: float = 60.0) -> None:
    """Wait until so many recipients of a campaign have got it. Raises TimeoutError."""
    deadline = time.monotonic() + patience
    while node.report(campaign)["counts"]["delivered"] < max(1, count):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{campaign} is not being delivered")
        time.sleep(0.01)


def wait_until_idle(node: Daemon, lanes: int, patience: float = 120.0) -> None:
    """Wait until so many lanes back off and no connection is being tried any more. Raises TimeoutError."""
    deadline = time.monotonic() + patience
    while True:
        status = node.status()
        if not status["connections"] and len(status["lanes_in_backoff"]) >= lanes:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{status['connections']} connections are being tried still,"
                f" {len(status['lanes_in_backoff'])} of {lanes} lanes back off"
            )
        time.sleep(0.2)


def quantile(samples: Sequence[float], share: float) -> float:
    """Give the value below which this share of the samples lies, by a straight line between neighbours."""
    ordered = sorted(samples)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)
