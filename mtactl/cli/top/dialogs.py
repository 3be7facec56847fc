"""The questions that the live screen asks. Each is bound to a campaign when it is opened, wherever the cursor goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from mtactl.cli.failures import Failure
from mtactl.cli.printable import printable
from mtactl.control.types import CampaignReport

__all__ = ["Details", "HaltQuestion", "Help", "YesNo", "tell"]

_LONGEST_REASON = 500  # characters; the daemon takes no more

Asking = Callable[[str | None], CampaignReport]


def tell(failure: Failure) -> Text:
    """Say why something failed, with what to look at."""
    text = Text(printable(failure.sentence), style="bold red")
    for hint in failure.hints:
        text.append(f"\n{printable(hint)}", style="not bold")
    return text


class YesNo(ModalScreen[bool]):
    """A plain question: y does it, everything else does not."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,Y", "dismiss(True)", show=False),
        Binding("n,N,escape,enter,q", "dismiss(False)", show=False),
        Binding("ctrl+c", "app.quit", show=False, priority=True),
    ]

    def __init__(self, *lines: Text) -> None:
        super().__init__()
        self._lines = lines

    def compose(self) -> ComposeResult:
        """Show the question."""
        with VerticalScroll(classes="dialog"):
            yield Static(Text("\n").join(self._lines))
            yield Static(Text.assemble("\n", ("y", "bold"), " yes   ", ("n", "bold"), " no"))


class HaltQuestion(ModalScreen[CampaignReport | None]):
    """Has the Campaign ID typed, and asks the daemon for the halt.

    `ask` is called in a thread, with the reason; it gives the report when the halt is durable. What goes wrong is said
    here, where the one who asked looks.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False),
        Binding("tab,shift+tab,up,down", "other_field", show=False, priority=True),
        Binding("ctrl+c", "app.quit", show=False, priority=True),
    ]

    def __init__(self, campaign: str, lines: list[Text], ask: Asking) -> None:
        super().__init__()
        self._campaign = campaign
        self._lines = lines
        self._ask = ask
        self.asking = False

    def compose(self) -> ComposeResult:
        """Show what is about to happen, and the two fields."""
        with VerticalScroll(classes="dialog danger"):
            yield Static(Text("\n").join(self._lines))
            yield Static(Text("\nType the Campaign ID to go on; a reason is kept with the halt.\n"))
            with Horizontal(classes="field"):
                yield Static(Text("Campaign ID > ", style="bold"), classes="label")
                yield Input(id="confirm", compact=True, max_length=200)
            with Horizontal(classes="field"):
                yield Static(Text("Reason      > ", style="bold"), classes="label")
                yield Input(id="reason", compact=True, max_length=_LONGEST_REASON)
            yield Static(id="said")
            yield Static(Text.assemble(("Enter", "bold"), " halt   ", ("Tab", "bold"), " next field   ", *_LEAVE))

    def begin(self) -> None:
        """Take what is typed, from now on."""
        self.set_focus(self.query_one("#confirm", Input))

    def action_other_field(self) -> None:
        """Go to the other field."""
        here = self.focused is not None and self.focused.id == "confirm"
        self.set_focus(self.query_one("#reason" if here else "#confirm", Input))

    @on(Input.Submitted)
    async def submit(self) -> None:
        """Halt, if what was typed is the id."""
        typed = self.query_one("#confirm", Input).value.strip()
        if self.asking:
            return
        if typed != self._campaign:
            why = "What was typed is not" if typed else "No Campaign ID was typed. It is"
            self._say(Text(f"{why} {printable(self._campaign)}. Nothing was halted.", style="bold red"))
            self.query_one("#confirm", Input).focus()
            return
        self.asking = True
        self._say(Text("Asking the daemon…", style="yellow"))
        self.run_worker(self._halt(self.query_one("#reason", Input).value.strip() or None), exit_on_error=True)

    async def _halt(self, reason: str | None) -> None:
        try:
            report = await asyncio.to_thread(self._ask, reason)
        except Failure as failure:
            self.asking = False
            if self.app.is_running:  # or it was left meanwhile, and there is nothing to say it on
                self._say(tell(failure))
        else:
            if self.app.is_running:
                self.dismiss(report)

    def action_leave(self) -> None:
        """Close it; while the daemon is being asked there is no way back."""
        if not self.asking:
            self.dismiss(None)

    def _say(self, text: Text) -> None:
        said = self.query_one("#said", Static)
        said.update(Text().append_text(text))
        said.scroll_visible(animate=False)


class Details(ModalScreen[str | None]):
    """The report of a campaign, kept up to date. Ends with the verb to go on with, if any."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q", "leave('')", show=False),
        Binding("h", "leave('hold')", show=False),
        Binding("r", "leave('release')", show=False),
        Binding("x", "leave('halt')", show=False),
        Binding("ctrl+c", "app.quit", show=False, priority=True),
    ]

    def __init__(self, campaign: str) -> None:
        super().__init__()
        self.campaign = campaign

    def compose(self) -> ComposeResult:
        """Make room for the report."""
        with VerticalScroll(classes="page"):
            yield Static(Text("Asking the daemon…", style="dim"), id="report")
        yield Static(
            Text.assemble(
                *(("h", "bold"), " hold   ", ("r", "bold"), " release   ", ("x", "bold"), " halt   "), *_LEAVE
            ),
            classes="keys",
        )

    def show(self, report: RenderableType) -> None:
        """Show the report as it is now."""
        self.query_one("#report", Static).update(report)

    def action_leave(self, verb: str) -> None:
        """Close it."""
        self.dismiss(verb or None)


class Help(ModalScreen[None]):
    """Says which key does what."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,question_mark", "dismiss(None)", show=False),
        Binding("ctrl+c", "app.quit", show=False, priority=True),
    ]

    def compose(self) -> ComposeResult:
        """Show the list."""
        text = Text()
        for keys, told in _HELP:
            text.append(f"{keys:<14}", style="bold")
            text.append(f"{told}\n")
        text.append(_WORDS, style="dim")
        with VerticalScroll(classes="page"):
            yield Static(text)
        yield Static(Text.assemble(*_LEAVE), classes="keys")


_LEAVE = (("Esc", "bold"), " leave")
_HELP = (
    ("1 2 3 4, Tab", "campaigns, lanes, log, halts"),
    ("↑ ↓ PgUp PgDn", "move; Home: the first row, whatever comes to be the first"),
    ("Enter", "the report of a campaign"),
    ("/", "filter by a part of the id, or of the line; Esc clears it"),
    ("s S", "sort by the next column, by the one before"),
    ("h r", "hold, release: nothing begins, nothing is dropped"),
    ("x", "halt, for ever; the Campaign ID has to be typed"),
    ("o", "log with or without what became of each recipient"),
    ("p", "pause, and go on"),
    ("q, Ctrl-C", "quit; a halt goes on"),
)
_WORDS = (
    "\nflying: in flight. window: what a lane has in memory, the rest is on disk. rate: delivered a second. "
    "after stop: delivered after the gate closed. Figures that are not fresh are dim, with - for each rate."
)
