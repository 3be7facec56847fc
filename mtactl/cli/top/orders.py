"""What the live screen can command: hold, release and halt, each with its question, and the answer in words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rich.text import Text
from textual.app import App

from mtactl.cli.client import Client, campaign_path
from mtactl.cli.failures import Failure, Unreachable
from mtactl.cli.figures import count
from mtactl.cli.printable import printable
from mtactl.cli.report import describe_request
from mtactl.cli.top.dialogs import HaltQuestion, YesNo, tell
from mtactl.cli.top.rates import tell_rate
from mtactl.control.types import CampaignReport, HaltBody

__all__ = ["Orders"]

_DURABLE_TIME = 30.0  # seconds that the record of a halt may take to be on disk


class Orders:
    """Asks the person, then the daemon. `say` shows a sentence; `pending` are halts that are not answered yet."""

    def __init__(self, app: App[Any], client: Client, say: Callable[[Text], None]) -> None:
        self.pending: set[str] = set()
        self._app = app
        self._client = client
        self._say = say

    async def begin(self, verb: str, report: CampaignReport, rate: float | None) -> None:
        """Begin with a verb ("hold", "release" or "halt"): ask the question, if there is one.

        It is asked at once, of the figures that are on the screen, and stands when this returns: what is typed next is
        meant for it.
        """
        campaign = printable(report.campaign)
        if report.stop is not None:
            done = "is halted" if report.state == "halted" else "is being halted"
            self._say(Text(f"{campaign} {done}, {describe_request(report.stop)}", style="yellow"))
        elif verb == "halt":
            await self._ask_for_halt(report, rate)
        elif (report.state == "held") == (verb == "hold"):
            told = "is held already" if verb == "hold" else "is not held"
            self._say(Text(f"{campaign} {told}.", style="yellow"))
        else:
            await self._ask_plainly(verb, report)

    async def _ask_plainly(self, verb: str, report: CampaignReport) -> None:
        campaign = report.campaign
        meaning = (
            "Nothing of it begins until it is released; nothing is dropped."
            if verb == "hold"
            else f"{count(report.counts.queued)} queued may go out."
        )
        question = Text(f"{verb.capitalize()} {printable(campaign)}?", style="bold")

        def answered(yes: bool | None) -> None:
            if yes:
                self._app.run_worker(self._carry_out(verb, campaign), group="orders")

        await self._app.push_screen(YesNo(question, _describe(report), Text(meaning)), answered)

    async def _carry_out(self, verb: str, campaign: str) -> None:
        try:
            answer = await asyncio.to_thread(self._client.post, campaign_path(campaign, verb), CampaignReport)
        except Failure as failure:
            self._say(tell(failure))
            return
        counts = answer.value.counts
        if verb == "hold":
            told = f"is held: {count(counts.queued)} queued, {count(counts.in_flight)} in flight."
        else:
            told = f"is {answer.value.state}: {count(counts.queued)} queued may go out."
        self._say(Text(f"{printable(campaign)} {told}", style="green"))

    async def _ask_for_halt(self, report: CampaignReport, rate: float | None) -> None:
        campaign = report.campaign
        lines = [
            Text.assemble((f"Halt {printable(campaign)}", "bold red"), f" on {printable(report.node)}"),
            _describe(report, rate),
            Text("A halt can't be undone: what is queued is dropped, and nothing of it begins on this node again."),
        ]
        question = HaltQuestion(campaign, lines, lambda reason: self._send_halt(campaign, reason))

        def answered(answer: CampaignReport | None) -> None:
            if answer is None:
                self._say(Text("Nothing was halted.", style="yellow"))
                return
            told, stop = "is halted for good", answer.stop
            if stop is not None and answer.state != "halted":
                told += f": {count(stop.queued_at_stop)} queued to drop, {count(stop.in_flight_at_stop)} in flight"
            self._say(Text(f"{printable(campaign)} {told}.", style="bold green"))

        await self._app.push_screen(question, answered)
        question.begin()

    def _send_halt(self, campaign: str, reason: str | None) -> CampaignReport:
        """Ask for the halt; return when it is durable. Runs in a thread."""
        body = HaltBody(confirm=campaign, reason=reason)
        self.pending.add(campaign)
        try:
            return self._client.post(
                campaign_path(campaign, "halt"), CampaignReport, body, patience=_DURABLE_TIME
            ).value
        except Unreachable as failure:
            if not failure.asked:
                raise
            doubt = "Whether the halt was recorded is not known. Halting again does no harm."
            raise Unreachable(failure.sentence, doubt, *failure.hints) from failure
        finally:
            self.pending.discard(campaign)


def _describe(report: CampaignReport, rate: float | None = None) -> Text:
    counts = report.counts
    now = "" if rate is None else f", {tell_rate(rate)} now"
    told = (
        f"{count(counts.queued)} queued, {count(counts.in_flight)} in flight, {count(counts.delivered)} delivered{now}"
    )
    return Text(f"{report.state}: {told}")
