"""The live screen. It reads one snapshot after another, and never shows a figure that is not fresh as if it were."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.events import Resize
from textual.widgets import ContentSwitcher, Input, RichLog, Static

from mtactl.cli.client import Client
from mtactl.cli.failures import Failure
from mtactl.cli.printable import elide, printable
from mtactl.cli.top.bars import VIEWS, draw_keys, draw_views
from mtactl.cli.top.canvas import Canvas
from mtactl.cli.top.dialogs import Details, Help
from mtactl.cli.top.follower import EventFollower
from mtactl.cli.top.grid import Grid
from mtactl.cli.top.journal import KEPT, Journal
from mtactl.cli.top.orders import Orders
from mtactl.cli.top.overview import Overview
from mtactl.cli.top.pages import draw_panels, draw_report_page
from mtactl.cli.top.snapshot import Poller, Snapshot, Wanted
from mtactl.cli.top.style import SHEET
from mtactl.cli.top.tables import CAMPAIGN_ORDERS, LANE_ORDERS, lay_out_campaigns, lay_out_lanes
from mtactl.control.types import CampaignReport

__all__ = ["TopApp"]

_LOOK = 0.25  # seconds between two looks at what has arrived
_SHORTEST = 0.2  # seconds between two polls, however much happens
_LATE = 3.0  # seconds, or so many intervals, without an answer after which figures are not fresh
_LOG_STRIP = {28: 4, 40: 8}  # lines of a screen from which the log always has so many of them below the table
_LONGEST_STRIP = 12  # lines that it gets at most where the table leaves them free
_OWN_ACTIONS = frozenset(
    {"view", "next_view", "filter", "clear", "sort", "order", "details", "outcomes", "pause", "help", "leave"}
)


class TopApp(App[None]):
    """Watches the daemon behind `client`, whose first answer is there already. `interval` is in seconds."""

    CSS = SHEET
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key, action, show=False, priority=True)
        for key, action in (
            *((str(number), f"view('{name}')") for number, name in enumerate(VIEWS, 1)),
            ("tab", "next_view(1)"),
            ("shift+tab", "next_view(-1)"),
            ("slash", "filter"),
            ("escape", "clear"),
            ("s", "sort(1)"),
            ("S", "sort(-1)"),
            ("h", "order('hold')"),
            ("r", "order('release')"),
            ("x", "order('halt')"),
            ("enter", "details"),
            ("o", "outcomes"),
            ("p", "pause"),
            ("question_mark", "help"),
            ("q", "leave"),
            ("ctrl+c", "quit"),
        )
    ]

    def __init__(self, client: Client, poller: Poller, first: Snapshot, *, interval: float = 1.0) -> None:
        super().__init__(ansi_color=True)  # the terminal's own colours; with NO_COLOR none
        self.theme = "ansi-dark"
        self.animation_level = "none"
        self.unanswered: tuple[str, ...] = ()  # halts that the daemon had not answered when the screen was left
        self._client = client
        self._poller = poller
        self._follower = EventFollower(client.path)
        self._orders = Orders(self, client, self.say)
        self._interval = interval
        self._snapshot = first
        self._answered = time.monotonic()
        self._failure: Failure | None = None
        self._paused = False
        self._view = "campaigns"
        self._sorts = {"campaigns": "queued", "lanes": "in_flight"}
        self._matches = dict.fromkeys(VIEWS, "")
        self._journal = Journal()
        self._details: Details | None = None
        self._woken = asyncio.Event()
        self._standing = False
        self._rows = 0

    def compose(self) -> ComposeResult:
        """Make room for everything."""
        yield Overview(id="overview")
        yield Static(id="views")
        with ContentSwitcher(initial="campaigns", id="body"):
            yield Grid(id="campaigns")
            yield Grid(id="lanes")
            yield RichLog(id="log", max_lines=KEPT, min_width=1)
            with VerticalScroll(id="halts-view"):
                yield Static(id="panels")
        yield Static(id="strip")
        yield Input(id="filter", compact=True, placeholder="a part of the id; Enter keeps it, Esc clears it")
        yield Static(id="message")
        yield Static(id="keys")

    def on_mount(self) -> None:
        """Begin to read."""
        self.query_one("#filter").display = False
        self.query_one("#message").display = False
        self.query_one("#campaigns").focus()
        self._standing = True
        self._follower.start()
        self.set_interval(_LOOK, self._look)
        self.run_worker(self._poll_for_ever(), group="poll")
        self._draw()

    def on_unmount(self) -> None:
        """End what waits for the daemon."""
        self._standing = False
        self._follower.stop()
        self._client.hang_up()

    # -- reading ----------------------------------------------------------------------------------------------------

    async def _poll_for_ever(self) -> None:
        while True:
            if not self._paused:
                wanted = self._wanted()
                try:
                    snapshot = await asyncio.to_thread(self._poller.poll, wanted)
                except Failure as failure:
                    self._failure = failure
                else:
                    self._take(snapshot)
                self._draw()
            await asyncio.sleep(_SHORTEST)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._interval - _SHORTEST)):
                    await self._woken.wait()
            self._woken.clear()

    def _wanted(self) -> Wanted:
        return Wanted(
            lanes=self._view == "lanes",
            campaign_sort=self._sorts["campaigns"],
            campaign_match=self._matches["campaigns"],
            lane_sort=self._sorts["lanes"],
            lane_match=self._matches["lanes"],
            detail=None if self._details is None else self._details.campaign,
            watch=self._journal.take_halts(),
        )

    def _take(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if self._failure is not None:
            away = now - self._answered
            restarted = snapshot.status.uptime_seconds < away + (self._interval + _LATE)
            told = "; it was restarted" if restarted else ""
            self.say(Text(f"The daemon is back after {away:.0f} s{told}.", style="green"))
        self._snapshot, self._answered, self._failure = snapshot, now, None

    def _look(self) -> None:
        """See what happened meanwhile, also that nothing did."""
        if not self._is_standing():
            return
        fresh, telling = self._journal.take(self._follower.take())
        for line in fresh:
            self._write_log(line)
        if fresh:
            self._draw_strip()
        if telling:
            self._woken.set()
        if self._is_late():
            self._draw()

    def _is_late(self) -> bool:
        return time.monotonic() - self._answered > max(_LATE, _LATE * self._interval)

    # -- showing ----------------------------------------------------------------------------------------------------

    def _banner(self) -> Text | None:
        """Say why the figures are not fresh, if they are not."""
        then = time.strftime("%H:%M:%S", time.localtime(self._snapshot.at))
        away = f"{time.monotonic() - self._answered:.0f} s"
        if self._failure is not None:
            why = printable(self._failure.sentence)
            why = elide(why[:1].upper() + why[1:], self.size.width, middle=False)
            return Text(f"{why}\nTrying again; the figures are of {then}, {away} ago.", style="bold red")
        if self._paused:
            return Text(f"Paused: the figures are of {then}, {away} ago. p goes on.", style="bold yellow")
        if self._is_late():
            return Text(f"No answer from the daemon; the figures are of {then}, {away} ago.", style="bold red")
        return None

    def _is_standing(self) -> bool:
        """Whether there is a screen to draw on: an answer may come before it or behind it."""
        return self._standing and self.is_running and bool(self.screen_stack)

    def _draw(self) -> None:
        """Draw everything anew."""
        snapshot, banner = self._snapshot, self._banner()
        if not self._is_standing():
            return
        base = self.screen_stack[0]
        base.query_one(Overview).show(snapshot, self._poller.meter, banner=banner, with_halts=self._view != "halts")
        stale = banner is not None
        for name, lay_out in (("campaigns", lay_out_campaigns), ("lanes", lay_out_lanes)):
            if name == self._view:
                grid = base.query_one(f"#{name}", Grid)
                told = snapshot if not stale else snapshot.without_rates()
                rows = lay_out(told, self._sorts[name], max(1, self.size.width - 1))
                self._rows = len(rows.keys)
                grid.show(rows.titles, rows.keys, rows.lines, stale=stale)
        if self._view == "halts":
            panels = draw_panels(snapshot, self._matches["halts"], Canvas(self.size.width - 2))
            base.query_one("#panels", Static).update(panels)
        self._draw_bars()
        self._draw_strip()
        if self._details is not None and self._details.is_mounted:
            page = draw_report_page(snapshot, self._details.campaign, banner, Canvas(self.size.width - 6))
            self._details.show(page)

    def _draw_bars(self) -> None:
        view, width = self._view, self.size.width
        views = draw_views(
            self._snapshot,
            view,
            sort=self._sorts.get(view),
            match=self._matches[view],
            outcomes=self._follower.outcomes,
            width=width,
        )
        base = self.screen_stack[0]
        base.query_one("#views", Static).update(views)
        base.query_one("#keys", Static).update(draw_keys(width))

    # -- the log ----------------------------------------------------------------------------------------------------

    def _write_log(self, line: Text) -> None:
        if self._fits(line.plain, "log"):
            self.screen_stack[0].query_one(RichLog).write(line)

    def _fits(self, text: str, view: str | None = None) -> bool:
        return self._matches[view or self._view].lower() in text.lower()

    def _draw_strip(self) -> None:
        strip = self.screen_stack[0].query_one("#strip", Static)
        room = max((lines for least, lines in _LOG_STRIP.items() if self.size.height >= least), default=0)
        if self._view in self._sorts:
            body = self.screen_stack[0].query_one("#body").size.height
            free = body + (strip.size.height + 1 if strip.display else 0) - self._rows - 3
            room = max(room, min(free, _LONGEST_STRIP))
        lines = self._journal.last(room, self.size.width) if self._view != "log" else []
        strip.display = bool(lines)
        strip.update(Text("\n").join(lines))

    # -- what keys do -----------------------------------------------------------------------------------------------

    def say(self, text: Text) -> None:
        """Say something at the bottom of the screen, until the next thing is said or asked for."""
        if not self._is_standing():
            return
        message = self.screen_stack[0].query_one("#message", Static)
        message.display = bool(text.plain)
        message.update(Text().append_text(text))  # textual has colours of its own for the names in a text's own style
        self._woken.set()

    def action_view(self, view: str) -> None:
        """Show another view."""
        self._view = view
        self.query_one("#body", ContentSwitcher).current = "halts-view" if view == "halts" else view
        self.query_one("#filter").display = False
        self.screen.set_focus(self.query_one("#halts-view" if view == "halts" else f"#{view}"))
        self._woken.set()
        self._draw()

    def action_next_view(self, step: int) -> None:
        """Show the view beside."""
        self.action_view(VIEWS[(VIEWS.index(self._view) + step) % len(VIEWS)])

    def action_sort(self, step: int) -> None:
        """Sort by another column."""
        if self._view in self._sorts:
            orders = list(CAMPAIGN_ORDERS if self._view == "campaigns" else LANE_ORDERS)
            at = orders.index(self._sorts[self._view])
            self._sorts[self._view] = orders[(at + step) % len(orders)]
            self._woken.set()
            self._draw_bars()

    def action_filter(self) -> None:
        """Let a filter be typed."""
        field = self.query_one("#filter", Input)
        field.value = self._matches[self._view]
        field.display = True
        self.screen.set_focus(field)

    @on(Input.Changed, "#filter")
    def apply_filter(self, changed: Input.Changed) -> None:
        """Show what fits, while it is typed."""
        self._match(changed.value)

    def _match(self, text: str) -> None:
        if text == self._matches[self._view]:
            return
        self._matches[self._view] = text
        if self._view == "log":
            log = self.query_one(RichLog)
            log.clear()
            for line in self._journal.matching(text):
                log.write(line)
        self._woken.set()
        self._draw()

    def action_clear(self) -> None:
        """Clear the filter and what was said."""
        self.say(Text())
        self._match("")
        self.action_view(self._view)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether a key means this action now: not while a question stands or a text is typed.

        All keys are taken here, before the next one is looked at: in what is typed ahead, each key then goes to
        where it would go if it were typed slowly.
        """
        if action not in _OWN_ACTIONS or action == "quit":
            return super().check_action(action, parameters)
        if len(self.screen_stack) > 1:
            return False
        return action in {"clear", "details"} or not isinstance(self.focused, Input)

    async def action_order(self, verb: str) -> None:
        """Hold, release or halt the campaign that the cursor is on."""
        key = self.query_one("#campaigns", Grid).key if self._view == "campaigns" else None
        report = next((each for each in self._snapshot.campaigns if each.campaign == key), None)
        if report is None:
            self.say(Text("No campaign is chosen: 1 shows them.", style="yellow"))
        else:
            await self._order(verb, report)

    async def _order(self, verb: str, report: CampaignReport) -> None:
        fresh = self._banner() is None
        self._paused = False
        self.say(Text())
        rate = self._snapshot.campaign_rates.get(report.campaign) if fresh else None
        await self._orders.begin(verb, report, rate)

    async def action_details(self) -> None:
        """Show the report of the campaign that the cursor is on; or have done with typing a filter."""
        if isinstance(self.focused, Input):
            self.action_view(self._view)
            return
        key = self.query_one("#campaigns", Grid).key if self._view == "campaigns" else None
        if key is None:
            return
        details = self._details = Details(key)

        async def close(verb: str | None) -> None:
            report, self._details = self._snapshot.detail, None
            if verb and report is not None and report.campaign == details.campaign:
                await self._order(verb, report)

        await self.push_screen(details, close)
        self._woken.set()

    def action_outcomes(self) -> None:
        """Show what became of each recipient in the log, or show it no more."""
        self._follower.outcomes = not self._follower.outcomes
        told = "The log shows what becomes of each recipient." if self._follower.outcomes else "Outcomes are left out."
        self.say(Text(told))
        self._draw_bars()

    def action_pause(self) -> None:
        """Stop reading, or go on."""
        self._paused = not self._paused
        self._woken.set()
        self._draw()

    async def action_help(self) -> None:
        """Say which key does what."""
        await self.push_screen(Help())

    async def action_leave(self) -> None:
        """Leave the screen."""
        await self.action_quit()

    async def action_quit(self) -> None:
        """Leave the screen."""
        self.unanswered = tuple(self._orders.pending)
        self.exit()

    def on_resize(self, _event: Resize) -> None:
        """Draw for the new size."""
        self._draw()
