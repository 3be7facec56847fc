"""All lanes of the node and their windows: pages claimed from disk, claims put back, back-off, and who is woken when.

The windows together are bounded, however long the queue is: the queue does not live in memory. A lane that finds no
room waits its turn (`_starved`) and is fed as windows empty and connections end. The more lanes have mail, the smaller
is the share of each, but never so small that a page's commit is paid for a handful of recipients only.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence

import structlog

from mtactl.campaign.gate import Gate
from mtactl.message.reply import Reply
from mtactl.schedule.idle import IdleConnections
from mtactl.schedule.lane import Lane
from mtactl.settings import Settings
from queue_store.errors import StoreError
from queue_store.records import Claim, ClaimPage
from queue_store.store import QueueStore

__all__ = ["Lanes"]

_WINDOWS = 20_000  # recipients in all windows together, at about 1 kB each
_LEAST_SHARE = 16
_FORGET = 600.0  # seconds without anything to do

_log = structlog.get_logger("lanes")


class Lanes:
    """The lanes by name. Called from the event loop's thread only."""

    def __init__(self, *, store: QueueStore, gate: Gate, settings: Settings, now: Callable[[], int]) -> None:
        self._store = store
        self._gate = gate
        self._settings = settings
        self._now = now
        self._lanes: dict[str, Lane] = {}
        self._idle: dict[str, IdleConnections] = {}
        self._starved: OrderedDict[str, None] = OrderedDict()
        self._alarms: set[str] = set()  # lanes that a timer will pump
        self._backing_off: set[str] = set()  # until a timer, or someone, ends it
        self._in_windows = 0
        self._open = False
        self.on_wanted: Callable[[Lane], bool] | None = None  # opens one connection more; False: none may be opened now
        self.on_backoff: Callable[[Lane, str], None] | None = None

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._lanes.values()))

    def __len__(self) -> int:
        return len(self._lanes)

    def lane(self, name: str) -> Lane:
        """Give a lane, made if need be."""
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name, self._settings.lane_settings(name), time.monotonic())
            self._idle[name] = IdleConnections()
        return lane

    def in_backoff(self) -> int:
        """Give how many lanes back off now."""
        return len(self._backing_off)

    def find(self, name: str) -> Lane | None:
        """Give a lane if it is in memory."""
        return self._lanes.get(name)

    # -- opening and closing --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Let the lanes work."""
        self._open = True
        for lane in self:
            self.pump(lane)

    def stop(self) -> None:
        """Let no lane begin anything more, and wake the connections that are idle."""
        self._open = False
        for idle in self._idle.values():
            idle.wake_all()

    def change(self, settings: Settings) -> None:
        """Apply other settings to all lanes."""
        self._settings = settings
        for lane in self:
            lane.change(settings.lane_settings(lane.name))
            self.pump(lane)

    def forget_idle(self) -> None:
        """Forget the lanes that have had nothing to do for a while."""
        now = time.monotonic()
        for lane in self:
            if lane.is_forgettable(now, _FORGET):
                del self._lanes[lane.name]
                del self._idle[lane.name]

    # -- what comes in --------------------------------------------------------------------------------------------

    def has_room(self, name: str, campaign: str, recipients: int) -> bool:
        """Whether a recipient that arrives may be stored as claimed, for the lane's window."""
        return (
            self._open
            and self._in_windows + recipients <= _WINDOWS
            and self._gate.lets_begin(campaign)
            and self.lane(name).has_room(time.monotonic())
        )

    def push(self, claim: Claim) -> None:
        """Take a claim into its lane's window; back to disk if the gate or the end of the run came in between."""
        lane = self.lane(claim.lane)
        lane.window.push(claim)
        self._in_windows += len(claim.recipients)
        if not self._gate.lets_begin(claim.message.campaign):
            self.put_on_disk(lane, lane.window.evict(claim.message.campaign), stopped=True)
        elif not self._open:
            self.put_on_disk(lane, lane.window.drain())
        else:
            self.pump(lane)

    def wake(self, name: str) -> None:
        """Note that recipients of a lane are READY on disk."""
        lane = self.lane(name)
        lane.backlog = True
        self.pump(lane)

    def wake_held_back(self) -> None:
        """Look again at the lanes that passed over a held campaign, after a release."""
        for lane in self:
            if lane.held_back:
                lane.held_back = False
                self.wake(lane.name)

    # -- what goes out --------------------------------------------------------------------------------------------

    def pop(self, lane: Lane) -> Claim | None:
        """Take the next claim that the gate lets begin, and see to the next page."""
        claim = lane.window.pop(self._gate.lets_begin, most=lane.settings.max_recipients_per_transaction)
        if claim is not None:
            self._in_windows -= len(claim.recipients)
        if lane.backlog and lane.wants_page(time.monotonic(), self._share()):
            self._claim_page(lane)
        if self._starved and self._in_windows <= _WINDOWS - _LEAST_SHARE:
            self.feed_starved()
        return claim

    def _share(self) -> int:
        """Give how many recipients each lane may hold when all lanes that are known have mail."""
        return max(_LEAST_SHARE, _WINDOWS // max(1, len(self._lanes)))

    def put_back(self, lane: Lane, claim: Claim) -> None:
        """Give back a claim that was popped in this tick: it is next again."""
        lane.window.put_back(claim)
        self._in_windows += len(claim.recipients)

    def remove(self, lane: Lane, fits: Callable[[Claim], bool] | None = None) -> list[Claim]:
        """Take claims out of a window (all of them, without `fits`), to be settled by the caller."""
        claims = lane.window.drain() if fits is None else lane.window.remove(fits)
        self._in_windows -= sum(len(claim.recipients) for claim in claims)
        return claims

    # -- what goes back to disk -----------------------------------------------------------------------------------

    def evict(self, fits: Callable[[Claim], bool]) -> bool:
        """Put the claims that fit back on disk as READY; give whether there were any.

        Nothing is claimed anew before `pump_all`: the caller submits, in the same tick, what is to be done with them.
        """
        found = False
        for lane in self:
            if lane.window:
                claims = lane.window.remove(fits)
                found = found or bool(claims)
                self.put_on_disk(lane, claims)
        return found

    def pump_all(self) -> None:
        """Give each lane what it can use now."""
        for lane in self:
            self.pump(lane)

    def evict_campaign(self, campaign: str) -> None:
        """Put the claims of a campaign that the gate stops back on disk as READY."""
        for lane in self:
            if lane.window.holds(campaign):
                self.put_on_disk(lane, lane.window.evict(campaign), stopped=True)
                self.pump(lane)

    def put_on_disk(self, lane: Lane, claims: Sequence[Claim], *, stopped: bool = False, popped: bool = False) -> None:
        """Put claims that left the window back on disk as READY.

        `stopped`: the gate stops them, so they are no reason to claim a page. `popped`: `pop` or `remove` took them.
        """
        if not claims:
            return
        returned = [(claim.message.campaign, recipient.id) for claim in claims for recipient in claim.recipients]
        if not popped:
            self._in_windows -= len(returned)
        if stopped:
            lane.held_back = True
        else:
            lane.backlog = True
        self._store.unclaim(returned).add_done_callback(_retrieve)

    # -- turning ----------------------------------------------------------------------------------------------------

    def pump(self, lane: Lane) -> None:
        """Give a lane what it can use now: a page, its idle connections, more connections."""
        if not self._open:
            return
        now = time.monotonic()
        if lane.backlog and lane.wants_page(now, self._share()):
            self._claim_page(lane)
        if not lane.window:
            return
        if not lane.connections and (pause := lane.throttle.wait(now)) > 0.0:
            self._pump_later(lane, pause)
        self._idle[lane.name].wake(lane.window.recipients)
        while lane.wants_connection(now) and self.on_wanted is not None:
            if not self.on_wanted(lane):
                self._starved[lane.name] = None
                return

    def feed_starved(self) -> None:
        """Let lanes that found no room try again, some at a time and in turn."""
        for _ in range(min(len(self._starved), 8)):
            name, _none = self._starved.popitem(last=False)
            lane = self._lanes.get(name)
            if lane is not None:
                self.pump(lane)

    def pump_starved(self) -> None:
        """Let all lanes that found no room try again, once each."""
        waiting, self._starved = self._starved, OrderedDict()
        for name in waiting:
            lane = self._lanes.get(name)
            if lane is not None:
                self.pump(lane)

    def wait_for_work(self, lane: Lane, seconds: float) -> Awaitable[bool]:
        """Give what is True when the lane has work, False when none came in that time; await it at once."""
        return self._idle[lane.name].wait(seconds)

    def fail(self, lane: Lane, why: Reply, peer: str) -> None:
        """Account for a session that failed. A lane that backs off puts its window back on disk."""
        lane.last_said = why
        lane.last_peer = peer or lane.last_peer
        if not lane.fail(time.monotonic(), self._now()):
            return
        _log.warning("lane backs off", lane=lane.name, reply=lane.last_reply, peer=peer, step=lane.backoff_step)
        self._backing_off.add(lane.name)
        self.put_on_disk(lane, lane.window.drain())
        self._pump_later(lane, lane.backoff_until - time.monotonic())
        if self.on_backoff is not None:
            self.on_backoff(lane, lane.last_reply)

    def end_backoff(self, lane: Lane) -> None:
        """Let a lane try again at once."""
        lane.end_backoff()
        self._backing_off.discard(lane.name)
        self.pump(lane)

    def _pump_later(self, lane: Lane, seconds: float) -> None:
        if lane.name not in self._alarms:
            self._alarms.add(lane.name)
            asyncio.get_running_loop().call_later(seconds + 0.001, self._ring, lane.name)

    def _ring(self, name: str) -> None:
        self._alarms.discard(name)
        lane = self._lanes.get(name)
        if lane is None:
            return
        remaining = lane.backoff_until - time.monotonic()
        if remaining > 0.0:
            self._pump_later(lane, remaining)
        else:
            self.end_backoff(lane)

    # -- pages ------------------------------------------------------------------------------------------------------

    def _claim_page(self, lane: Lane) -> None:
        page = lane.page(self._share())
        room = min(page - lane.window.recipients, _WINDOWS - self._in_windows)
        if room * 2 < page:
            self._starved[lane.name] = None  # a page that small is not worth a commit; others will make room
            return
        lane.claiming = True
        lane.backlog = False
        self._in_windows += room  # reserved until the page is there
        future = self._store.claim(lane.name, limit=room, cursor=lane.cursor)
        future.add_done_callback(lambda done: self._claimed(lane, room, done))

    def _claimed(self, lane: Lane, reserved: int, done: asyncio.Future[ClaimPage]) -> None:
        lane.claiming = False
        self._in_windows -= reserved
        if done.cancelled() or isinstance(done.exception(), StoreError):
            lane.backlog = True
            return
        page = done.result()
        lane.cursor = page.cursor
        lane.backlog = lane.backlog or page.more
        lane.held_back = lane.held_back or page.held
        for claim in page.claims:
            self._in_windows += len(claim.recipients)
            lane.window.push(claim)
        if not self._open or lane.in_backoff(time.monotonic()):
            self.put_on_disk(lane, lane.window.drain())
            return
        for campaign in {claim.message.campaign for claim in page.claims}:
            if not self._gate.lets_begin(campaign):
                # Held or closed since the page was asked for: nothing of it may go out now.
                self.put_on_disk(lane, lane.window.evict(campaign), stopped=True)
        if page.claims or page.more:
            self.pump(lane)


def _retrieve(done: asyncio.Future[None]) -> None:
    """Look at a result that nobody waits for; a failed store has said so through on_failed."""
    if not done.cancelled():
        done.exception()
