"""A lane: the queue towards one destination, with its window, limits and back-off. Values and rules, no I/O.

What waits in a lane is on disk; `backlog` says that there is more of it than the window holds. A lane in back-off holds
nothing at all.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from mtactl.message.reply import Reply
from mtactl.schedule.concurrency import Concurrency
from mtactl.schedule.retry import step_of
from mtactl.schedule.throttle import Throttle
from mtactl.schedule.window import Window
from queue_store.records import Outcome

if TYPE_CHECKING:
    from mtactl.settings import LaneSettings

__all__ = ["Lane", "LaneState"]

_PAGE = 400  # recipients: a claim's commit is shared by that many, and they are a few hundred kB of memory
_LEAST = 20


class LaneState(enum.Enum):
    """What a lane does, as the control API calls it."""

    IDLE = "idle"
    OPEN = "open"
    THROTTLED = "throttled"
    BACKOFF = "backoff"


class Lane:
    """The state of one destination. Times are monotonic seconds, but `backoff_until_wall` (µs since the epoch)."""

    __slots__ = (
        "backlog",
        "backoff_step",
        "backoff_until",
        "backoff_until_wall",
        "bounced",
        "busy",
        "claiming",
        "concurrency",
        "connecting",
        "connections",
        "cursor",
        "deferred",
        "delivered",
        "held_back",
        "in_flight",
        "last_active",
        "last_peer",
        "last_said",
        "name",
        "settings",
        "throttle",
        "window",
    )

    def __init__(self, name: str, settings: LaneSettings, now: float) -> None:
        self.name = name
        self.settings = settings
        self.window = Window()
        self.throttle = Throttle(settings.rate, settings.burst)
        self.concurrency = Concurrency(settings.max_connections)
        self.backlog = False  # READY recipients may be left on disk
        self.held_back = False  # some were passed over because their campaign is held
        self.claiming = False
        self.cursor = 0
        self.connections = 0  # open or being opened
        self.connecting = 0
        self.busy = 0  # with a transaction
        self.in_flight = 0  # recipients
        self.backoff_until = float("-inf")
        self.backoff_until_wall: int | None = None
        self.backoff_step = 0
        self.delivered = 0
        self.deferred = 0
        self.bounced = 0
        self.last_said: Reply | str = ""  # by the peer, or by us of it
        self.last_peer = ""
        self.last_active = now

    @property
    def last_reply(self) -> str:
        """The last thing that the peer said, or that we have to say of it."""
        return str(self.last_said)

    def page(self, share: int = _PAGE) -> int:
        """Give how many recipients a full window holds: what the destination may take in about five seconds, but not
        more than the lane's share of all windows.
        """
        rate = self.settings.rate
        page = _PAGE if rate is None else int(max(_LEAST, min(_PAGE, rate * 5)))
        return min(page, share)

    def wants_page(self, now: float, share: int = _PAGE) -> bool:
        """Whether the next page should be claimed: more is on disk, and three quarters of the window are used up."""
        return (
            self.backlog
            and not self.claiming
            and not self.in_backoff(now)
            and self.window.recipients * 4 <= self.page(share)
        )

    def has_room(self, now: float) -> bool:
        """Whether mail that arrives may go straight into the window: nothing older waits on disk."""
        return not (self.backlog or self.claiming or self.in_backoff(now)) and self.window.recipients < self.page()

    def wants_connection(self, now: float) -> bool:
        """Whether one connection more would have something to do now."""
        if self.connections > self.connecting + self.busy:
            return False  # there is an idle one
        return (
            self.connections < self.concurrency.allowance
            and self.connecting < self.window.recipients
            and not self.in_backoff(now)
            and self.throttle.wait(now) <= 0.0
        )

    def keeps_connection(self, opened_under: LaneSettings, served: int) -> bool:
        """Whether a connection that has carried so many messages may carry one more, also after a reload."""
        now = self.settings
        if now is opened_under:
            return served < now.max_deliveries_per_connection
        same = (now.route, now.pipelining) == (opened_under.route, opened_under.pipelining)
        return same and served < now.max_deliveries_per_connection and self.connections <= now.max_connections

    def in_backoff(self, now: float) -> bool:
        """Whether the destination is left alone at present."""
        return now < self.backoff_until

    def note(self, outcome: Outcome | None, said: Reply | str) -> None:
        """Count what became of a recipient (None: it waits again), and keep what was said."""
        if outcome is Outcome.DELIVERED:
            self.delivered += 1
        elif outcome is Outcome.BOUNCED:
            self.bounced += 1
        elif outcome is None:
            self.deferred += 1
        self.last_said = said

    def succeed(self) -> None:
        """Account for a transaction that the destination answered."""
        self.concurrency.succeed()
        self.backoff_step = 0

    def fail(self, now: float, wall: int) -> bool:
        """Account for a session that failed; give whether the lane backs off from now on."""
        if self.in_backoff(now):
            return False
        self.concurrency.fail()
        if not self.concurrency.dead:
            return False
        pause = step_of(self.settings.backoff, self.backoff_step)
        self.backoff_step += 1
        self.backoff_until = now + pause
        self.backoff_until_wall = wall + int(pause * 1_000_000)
        self.concurrency.probe()
        return True

    def end_backoff(self) -> None:
        """Let the lane try again at once."""
        self.backoff_until = float("-inf")
        self.backoff_until_wall = None

    def change(self, settings: LaneSettings) -> None:
        """Apply other limits."""
        self.settings = settings
        self.throttle.change(settings.rate, settings.burst)
        self.concurrency.change(settings.max_connections)

    def state(self, now: float) -> LaneState:
        """Give what the lane does now."""
        if self.in_backoff(now):
            return LaneState.BACKOFF
        if not self.window and not self.in_flight:
            return LaneState.IDLE
        return LaneState.THROTTLED if self.throttle.wait(now) > 0.0 else LaneState.OPEN

    def is_forgettable(self, now: float, idle: float) -> bool:
        """Whether nothing would be lost if the lane were forgotten: it has done nothing for `idle` seconds."""
        return (
            not (self.connections or self.window or self.backlog or self.claiming or self.held_back)
            and not self.in_backoff(now)
            and now - self.last_active > idle
        )
