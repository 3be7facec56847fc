"""Compares what the daemon says of a campaign with what the world saw of it, recipient by recipient."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from tests.world.record import Record


def monotonic_ns(at: str) -> int:
    """Give an RFC 3339 time of this machine as ns of CLOCK_MONOTONIC."""
    return int(datetime.fromisoformat(at).timestamp() * 1e9) - time.time_ns() + time.monotonic_ns()


def disagreements(report: dict, rows: list[dict], record: Record) -> Iterator[str]:
    """Give a sentence for each thing that the report, the outcomes and the world's record do not agree on.

    The campaign is at rest: all of its recipients have an outcome.
    """
    campaign, counts = report["campaign"], report["counts"]
    taken, rejected, broken_off = record.delivered(campaign), record.rejected(campaign), record.broken_off(campaign)
    for row in rows:
        address, outcome = row["recipient"], row["outcome"]
        fits = {
            "delivered": taken[address] == 1,
            "bounced": taken[address] == 0 and address in rejected,
            "unknown": address in broken_off or taken[address] == 1,
            "dropped": taken[address] == 0 and address not in rejected,
            "expired": taken[address] == 0 and address not in rejected,
        }[outcome]
        if not fits:
            refused = ", refused it for good" if address in rejected else ""
            yield f"{address}: {outcome} here; the world took it {taken[address]} times{refused}"
    addresses = Counter(row["recipient"] for row in rows)
    yield from (f"{address}: {times} outcomes" for address, times in addresses.items() if times > 1)
    yield from (f"{address}: the world took it; no outcome here" for address in taken if address not in addresses)

    outcomes = Counter(row["outcome"] for row in rows)
    for outcome in ("delivered", "bounced", "expired", "dropped", "unknown"):
        if counts[outcome] != outcomes[outcome]:
            yield f"the report counts {counts[outcome]} {outcome}; the list of recipients has {outcomes[outcome]}"
    if counts["accepted"] != len(rows) or counts["queued"] or counts["in_flight"]:
        yield f"{counts['accepted']} were accepted, and {len(rows)} have an outcome"
    late = sum(row["after_stop"] for row in rows if row["outcome"] == "delivered")
    if counts["delivered_after_stop"] != late:
        yield f"the report counts {counts['delivered_after_stop']} after the stop; the list of recipients has {late}"


def leaks(report: dict, rows: list[dict], record: Record, answered: int, *, grace: float = 1.0) -> Iterator[str]:
    """Give a sentence for each transaction that began after the halt was answered (ns of CLOCK_MONOTONIC).

    What the world read after the answer may have been written before it: then it was in flight, and is counted as such.
    `grace` seconds later there is nothing left to be read.
    """
    campaign = report["campaign"]
    after_stop = {row["recipient"] for row in rows if row["after_stop"]}
    late = [(each, address) for each in record.begun_after(campaign, answered) for address in each.recipients]
    for each, address in late:
        delay = (each.began - answered) / 1e9
        if address not in after_stop or delay > grace:
            yield f"{address}: began {delay * 1e3:.1f} ms after the halt was answered"
    open_then = {address for each in record.open_at(campaign, answered) for address in each.recipients}
    seen, counted = len(open_then | {address for _, address in late}), report["stop"]["in_flight_at_stop"]
    if seen > counted:
        yield f"the world saw {seen} recipients in flight after the halt; the report counts {counted}"
    # Unknown are also those in the queue whose attempt before the halt broke off at its end.
    ended = sum(row["after_stop"] and row["outcome"] in ("delivered", "bounced") for row in rows)
    if ended > counted:
        yield f"{ended} recipients were delivered or bounced after the halt; the report counts {counted} in flight"
