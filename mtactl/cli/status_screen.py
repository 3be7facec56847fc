"""The node at a glance, as a person sees it."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.text import Text

from mtactl.cli.lanes_screen import render_backoff
from mtactl.cli.screen import STATES, framed, grid, plain, state_text
from mtactl.cli.text import duration, number, plural, size
from mtactl.control.types import Status

__all__ = ["render_status"]

_QUEUE = ("ready", "deferred", "scheduled", "held")
_CAMPAIGNS = ("active", "held", "halting", "halted")
_OUTCOMES = ("delivered", "bounced", "expired", "dropped", "unknown")


def render_status(console: Console, status: Status) -> RenderableType:
    """Give the status."""
    title = Text.assemble(plain(status.node, "bold"), ": ", state_text(status.health), no_wrap=True)
    title.overflow = "ellipsis"
    table = grid(False, True, False)
    totals = status.totals
    table.add_row(Text("Accepted"), Text(number(totals.accepted), "bold"), Text("recipients"))
    table.add_row(Text("Queued"), Text(number(totals.queued), "cyan"), _parts(status.queue, _QUEUE))
    flying = f"{plural(status.connections, 'connection')}, {plural(status.in_flight_transactions, 'transaction')}"
    table.add_row(Text("In flight"), Text(number(totals.in_flight), "yellow"), Text(flying))
    for name in _OUTCOMES:
        count = getattr(totals, name)
        after = totals.delivered_after_stop if name == "delivered" else 0
        table.add_row(
            Text(name.capitalize()),
            Text(number(count), STATES[name] if count else "dim"),
            Text(f"{number(after)} of them after a stop" if after else ""),
        )
    for name in ("refused", "discarded"):
        if count := getattr(totals, name):
            table.add_row(Text(name.capitalize()), Text(number(count)), Text("after a halt"))
    table.add_row(
        Text("Campaigns"), Text(number(sum(status.campaigns.values()))), _parts(status.campaigns, _CAMPAIGNS)
    )
    backoff = len(status.lanes_in_backoff)
    table.add_row(
        Text("Lanes"),
        Text(number(status.lanes)),
        Text(f"{number(backoff)} in back-off" if backoff else "none in back-off", "yellow" if backoff else ""),
    )
    head = plain(
        f"mtactld {status.version}, up {duration(status.uptime_seconds)}, {size(status.store_free_bytes)} free"
    )
    parts: list[RenderableType] = [] if console.is_terminal else [title]
    parts.append(head)
    parts += [Text(f"! {plain(problem)}", style="bold red", overflow="fold") for problem in status.problems]
    parts += [Text(), table]
    if status.lanes_in_backoff:
        parts += [Text(), render_backoff(status.lanes_in_backoff)]
    return framed(console, title, Group(*parts))


def _parts(counts: dict[str, int], order: tuple[str, ...]) -> Text:
    """Give the counts that are not nothing, in the order that people expect, then those that are new to this client."""
    names = [*order, *(name for name in counts if name not in order)]
    return Text(", ").join(
        Text.assemble(number(counts[name]), " ", state_text(name)) for name in names if counts.get(name)
    )
