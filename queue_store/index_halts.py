"""Halts, holds, and what is counted of refused mail: the statements about whole campaigns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apsw
from msgspec import to_builtins
from msgspec.structs import replace

from queue_store.errors import CampaignHalted, StoreError
from queue_store.failpoints import ARMED, reach
from queue_store.index import BatchRows, Index
from queue_store.records import CampaignRecord, HaltRecord, HaltRequest, Tally

__all__ = [
    "STEPS",
    "count_refused",
    "load_campaigns",
    "load_halt",
    "promised",
    "put_back_halts",
    "record_halt",
    "record_halt_step",
    "record_hold",
]

STEPS = ("queue_dropped", "in_flight_finished", "completed")

_HALT_COLUMNS = (
    "kind, reason, requested_uid, requested_user, requested_at, recorded_at, queued_at_stop, in_flight_at_stop,"
    " queue_dropped_at, in_flight_finished_at, completed_at"
)
_HALT_FIELDS = tuple(_HALT_COLUMNS.split(", "))
_TALLY_FIELDS = tuple(Tally.__dataclass_fields__)


def record_halt(index: Index, request: HaltRequest) -> HaltRecord:
    """Put a halt on record, or give the one that is there."""
    campaign = index.campaigns.intern(request.campaign)
    if campaign.halted:
        return replace(load_halt(index.db, campaign.id, request.campaign), already=True)
    index.write(BatchRows())
    live, began = index.row(
        "SELECT accepted - delivered - bounced - expired - dropped - unknown, began FROM campaigns WHERE id = ?",
        (campaign.id,),
    )
    halt = HaltRecord(
        campaign=request.campaign,
        kind="stop" if began or request.in_flight else "cancel",
        reason=request.reason,
        requested_uid=request.requested_uid,
        requested_user=request.requested_user,
        requested_at=request.closed_at,
        recorded_at=index.now(),
        queued_at_stop=max(0, live - request.in_flight),
        in_flight_at_stop=request.in_flight,
    )
    values = [getattr(halt, field) for field in _HALT_FIELDS]
    index.db.execute(
        f"INSERT INTO halts (campaign_id, {_HALT_COLUMNS}) VALUES (?{', ?' * len(values)})", (campaign.id, *values)
    )
    if ARMED:
        reach("halt-inserted")
    index.db.execute(
        "UPDATE campaigns SET held = 0, began = max(began, ?) WHERE id = ?", (request.in_flight > 0, campaign.id)
    )
    if ARMED:
        reach("halt-marked")
    _note(index, (request.requested_uid, request.requested_user, "halt", campaign.id, request.reason or ""))
    if ARMED:
        reach("halt-noted")
    index.campaigns.mark(campaign, held=False, halted=True)
    _tell_journal(index, campaign.id, halt)
    return halt


def record_halt_step(index: Index, campaign: str, step: str, at: int) -> HaltRecord:
    """Put the time of a step on record, if it is not there; give the halt."""
    if step not in STEPS:
        raise StoreError(f"a halt has no step {step}")
    entry = index.campaigns.find(campaign)
    if entry is None or not entry.halted:
        raise StoreError(f"campaign {campaign} is not halted")
    column = f"{step}_at"
    index.db.execute(f"UPDATE halts SET {column} = coalesce({column}, ?) WHERE campaign_id = ?", (at, entry.id))
    if ARMED:
        reach("halt-step-written")
    halt = load_halt(index.db, entry.id, campaign)
    _tell_journal(index, entry.id, halt)
    return halt


def record_hold(index: Index, campaign: str, *, held: bool, uid: int | None, user: str) -> None:
    """Hold or release a campaign. Raises CampaignHalted before anything is written."""
    entry = index.campaigns.find(campaign)
    if entry is not None and entry.halted:
        raise CampaignHalted(campaign)
    entry = index.campaigns.intern(campaign)
    index.db.execute("UPDATE campaigns SET held = ? WHERE id = ?", (int(held), entry.id))
    _note(index, (uid, user, "hold" if held else "release", entry.id, ""))
    if ARMED:
        reach("hold-written")
    index.campaigns.mark(entry, held=held)
    journal = index.journal
    if journal is not None:
        index.after_commit(lambda: journal.note_hold(entry.id, campaign, held=held))


def put_back_halts(index: Index, halts: Mapping[str, HaltRecord]) -> list[str]:
    """Put on record the halts that their copy has and the index lacks; give a sentence for each."""
    told = []
    for name, halt in halts.items():
        entry = index.campaigns.intern(name)
        if entry.halted:
            continue
        values = [getattr(halt, field) for field in _HALT_FIELDS]
        index.db.execute(
            f"INSERT INTO halts (campaign_id, {_HALT_COLUMNS}) VALUES (?{', ?' * len(values)})", (entry.id, *values)
        )
        # What is queued is to be dropped, and an index that is older than the halt may have some.
        index.db.execute(
            "UPDATE halts SET queue_dropped_at = NULL, completed_at = NULL WHERE campaign_id = ?", (entry.id,)
        )
        index.db.execute(
            "UPDATE campaigns SET held = 0, began = max(began, ?) WHERE id = ?", (halt.kind == "stop", entry.id)
        )
        index.campaigns.mark(entry, held=False, halted=True)
        told.append(f"the halt of campaign {name} was missing from the index, and was put back from its copy")
    return told


def promised(db: apsw.Connection) -> Iterator[list[Any]]:
    """Give what the journal is to say, as its records."""
    halts = {row[0]: row[1:] for row in db.execute(f"SELECT campaign_id, {_HALT_COLUMNS} FROM halts")}
    for number, name, held in db.execute("SELECT id, name, held FROM campaigns WHERE id > 0 ORDER BY id"):
        if number in halts:
            yield ["halt", number, to_builtins(_as_halt(name, halts[number]))]
        else:
            yield ["hold", number, name, True] if held else ["campaign", number, name]


def count_refused(index: Index, campaign: str, recipients: int, *, discarded: bool) -> None:
    """Add to the refused or the discarded."""
    entry = index.campaigns.intern(campaign)
    index.deltas.add(entry.id, "discarded" if discarded else "refused", recipients)


def load_halt(db: apsw.Connection, campaign_id: int, name: str) -> HaltRecord:
    """Read the halt of a campaign that has one."""
    row = db.execute(f"SELECT {_HALT_COLUMNS} FROM halts WHERE campaign_id = ?", (campaign_id,)).fetchone()
    assert row is not None, name
    return _as_halt(name, row)


def load_campaigns(db: apsw.Connection) -> Sequence[CampaignRecord]:
    """Read all campaigns, with their counts and halts."""
    halts = {row[0]: row[1:] for row in db.execute(f"SELECT campaign_id, {_HALT_COLUMNS} FROM halts")}
    rows = db.execute(
        f"SELECT id, name, held, began, deferred, scheduled, {', '.join(_TALLY_FIELDS)} FROM campaigns ORDER BY id"
    )
    return [
        CampaignRecord(
            name=name,
            tally=Tally(**dict(zip(_TALLY_FIELDS, counts, strict=True))),
            held=bool(held),
            began=bool(began),
            halt=_as_halt(name, halts[number]) if number in halts else None,
            deferred=deferred,
            scheduled=scheduled,
        )
        for number, name, held, began, deferred, scheduled, *counts in rows
    ]


def _as_halt(name: str, row: Sequence[Any]) -> HaltRecord:
    return HaltRecord(campaign=name, **dict(zip(_HALT_FIELDS, row, strict=True)))


def _tell_journal(index: Index, number: int, halt: HaltRecord) -> None:
    journal = index.journal
    if journal is not None:
        index.after_commit(lambda: journal.note_halt(number, halt))


def _note(index: Index, what: tuple[int | None, str, str, int, str]) -> None:
    index.db.execute(
        "INSERT INTO audit (at, uid, user, action, campaign_id, detail) VALUES (?, ?, ?, ?, ?, ?)", (index.now(), *what)
    )
