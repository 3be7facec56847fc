"""mtactl status: the node at a glance."""

from __future__ import annotations

import click
from rich.text import Text

from mtactl.cli.facts import draw_facts
from mtactl.cli.figures import count, duration, plural, size
from mtactl.cli.lanes import LANE_COLUMNS, lane_cells
from mtactl.cli.printable import printable
from mtactl.cli.screen import Screen
from mtactl.cli.session import Session, takes_session
from mtactl.cli.table import Table
from mtactl.control.types import Counts
from mtactl.control.types import Status as NodeStatus

__all__ = ["status"]

_HEALTH_STYLES = {"ok": "bold green", "degraded": "bold yellow", "failed": "bold red"}
_MOST_LANES = 8


@click.command()
@takes_session
def status(session: Session) -> None:
    """Show the node at a glance: totals, health, lanes in back-off."""
    answer = session.client.get("/v1/status", NodeStatus)
    if session.json:
        session.write_json(answer.raw)
        return
    screen = Screen()
    node = answer.value
    screen.show(*_describe(node, screen))
    backoff = node.lanes_in_backoff
    if backoff:
        screen.show("", f"{plural(len(backoff), 'lane')} in back-off:")
        Table(screen, LANE_COLUMNS).show(lane_cells(row) for row in backoff[:_MOST_LANES])
        if len(backoff) > _MOST_LANES:
            screen.show(f"and {count(len(backoff) - _MOST_LANES)} more: mtactl lanes")


def _describe(node: NodeStatus, screen: Screen) -> list[Text]:
    version = f"mtactld {node.version}, up {duration(node.uptime_seconds)}"
    head = Text.assemble(
        (printable(node.node), "bold"), f"  {printable(version)}  ", (node.health, _HEALTH_STYLES.get(node.health, ""))
    )
    lines = [head]
    for problem in node.problems:
        lines += draw_facts(screen, [("!", problem)], label=1, style="yellow")
    totals = node.totals
    facts = {
        "campaigns": _by_name(node.campaigns),
        "queued": f"{count(totals.queued)}: {_by_name(node.queue)}",
        "in flight": f"{plural(totals.in_flight, 'recipient')} in "
        f"{plural(node.in_flight_transactions, 'transaction')}, {plural(node.connections, 'connection')}",
        "delivered": count(totals.delivered) + _after_stop(totals),
        "failed": f"{count(totals.bounced)} bounced, {count(totals.expired)} expired",
        "dropped": count(totals.dropped),
        "unknown": count(totals.unknown),
        "accepted": count(totals.accepted),
        "turned away": f"{count(totals.refused)} refused, {count(totals.discarded)} discarded, after a halt",
        "lanes": f"{count(node.lanes)}, {count(len(node.lanes_in_backoff))} in back-off",
        "disk": f"{size(node.store_free_bytes)} free",
    }
    return lines + draw_facts(screen, facts.items(), label=12)


def _by_name(numbers: dict[str, int]) -> str:
    return ", ".join(f"{count(number)} {name.replace('_', ' ')}" for name, number in numbers.items())


def _after_stop(totals: Counts) -> str:
    number = totals.delivered_after_stop
    return f", {count(number)} of them after a stop" if number else ""
