"""What is done to the queue in chunks: drops, expiry, retries, promotions and the forgetting of old outcomes.

Each chunk is a few big statements over the rows put in `chosen`, short enough that other mail hardly waits. A walk that
is to be gone on with (the administrator's filters, expiry) remembers where its last chunk ended, so that its chunks
together pass over the queue once; a walk that no one went on with for ten seconds begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from queue_store.errors import StoreError
from queue_store.failpoints import ARMED, reach
from queue_store.index import Index
from queue_store.index_filters import Conditions, conditions
from queue_store.records import Dropped, Outcome, Promoted, QueuedDelta, QueueFilter

__all__ = ["drop", "drop_campaign", "expire", "promote", "prune", "recall", "retry"]

_ROWS_IN_CHUNK = 20_000  # recipients looked at
_MESSAGES_IN_CHUNK = 10_000  # messages looked at by an expiry
_CAMPAIGNS_IN_CHUNK = 1_000  # campaigns looked at by a pruning
_WALK_KEPT = 10_000_000  # µs
_WALKS = 32

_CHOOSE = "INSERT INTO temp.chosen (campaign_id, id, message_id, state, outcome, after_stop, at, tries, reply, peer)"
_IS_HALTED = "EXISTS (SELECT 1 FROM halts WHERE halts.campaign_id = r.campaign_id)"
_SUMMED = f"sum(state = 0), sum(state = 1), sum(state = 2), sum(outcome = {int(Outcome.UNKNOWN)})"
# What may have been delivered before the stop is not said to be dropped by it.
_BY_HALT = f"iif(r.uncertain, {int(Outcome.UNKNOWN)}, {int(Outcome.DROPPED)})"
_READY_CHOSEN = """
UPDATE recipients SET state = 0, due = NULL WHERE (campaign_id, id) IN (SELECT campaign_id, id FROM temp.chosen)
"""
_LANES_CHOSEN = """
SELECT DISTINCT r.lane_id FROM temp.chosen AS c CROSS JOIN recipients AS r
WHERE r.campaign_id = c.campaign_id AND r.id = c.id
"""
_NEXT_DUE = "SELECT due FROM recipients INDEXED BY due WHERE state IN (1, 2) ORDER BY due LIMIT 1"


def drop_campaign(index: Index, campaign: str, limit: int) -> Dropped:
    """Settle as DROPPED, after the stop, up to `limit` recipients of a halted campaign that are not claimed; as UNKNOWN
    those of which an earlier attempt was lost after the end of the message.
    """
    entry = index.campaigns.find(campaign)
    if entry is None or not entry.halted:
        raise StoreError(f"campaign {campaign} is not halted")
    index.db.execute(
        "INSERT INTO temp.dropping (campaign_id, recipients, at) VALUES (?, ?, ?)", (entry.id, limit, index.now())
    )
    if ARMED:
        reach("drop-chunk-written")
    ready, deferred, scheduled, unknown, more = index.row(
        f"SELECT {_SUMMED}, EXISTS (SELECT 1 FROM recipients WHERE campaign_id = ? AND state <> 3) FROM temp.chosen",
        (entry.id,),
    )
    if ready is None:
        return Dropped(by_campaign={}, more=bool(more))
    was = QueuedDelta(ready=ready, deferred=deferred, scheduled=scheduled, unknown=unknown)
    return Dropped(by_campaign={campaign: was}, more=bool(more))


def drop(index: Index, which: QueueFilter, limit: int) -> Dropped:
    """Settle as DROPPED what fits and is not claimed: a chunk of a walk."""
    asked = conditions(index.db, which)
    asked.require("r.state <> 3")
    outcome = f"iif({_IS_HALTED}, {_BY_HALT}, {int(Outcome.DROPPED)})"
    ending = f"{outcome}, {_IS_HALTED}, {index.now()}, 0, 'dropped by an administrator', ''"
    number, more = _choose_walking(index, ("drop", which), asked, ending, limit)
    return Dropped(by_campaign=_end_chosen(index, number, Outcome.DROPPED), more=more)


def expire(index: Index, received_before: int, limit: int) -> Dropped:
    """Settle as EXPIRED what is not claimed and was received before, the oldest message first: a chunk of a walk.

    Ids grow with the time of arrival, so that no index on it is needed: the first message that is young ends the walk.
    """
    walk = ("expire",)
    _, low = _resume(index, walk)
    _choose_none(index)
    oldest = index.value("SELECT received_at FROM messages WHERE id > ? ORDER BY id LIMIT 1", (low,))
    if oldest is None or oldest >= received_before:
        index.scans.pop(walk, None)
        return Dropped(by_campaign={}, more=False)
    seen, young, high = index.row(
        "SELECT count(*), sum(received_at >= ?), max(id) FROM"
        " (SELECT id, received_at FROM messages WHERE id > ? ORDER BY id LIMIT ?)",
        (received_before, low, _MESSAGES_IN_CHUNK),
    )
    number = index.change(
        f"{_CHOOSE} SELECT r.campaign_id, r.id, r.message_id, r.state, {int(Outcome.EXPIRED)}, 0, ?, 0,"
        " 'not delivered in time', '' FROM messages AS m CROSS JOIN recipients AS r"
        " WHERE m.id > ? AND m.id <= ? AND m.received_at < ?"
        " AND r.campaign_id = m.campaign_id AND r.id > m.id AND r.id <= m.id + m.recipients AND r.state <> 3"
        f" AND NOT {_IS_HALTED} ORDER BY m.id, r.id LIMIT ?",
        (index.now(), low, high, received_before, limit),
    )
    more = True
    if number == limit:  # the last message chosen may have recipients left
        last = index.value("SELECT message_id FROM temp.chosen ORDER BY rowid DESC LIMIT 1")
        _keep_place(index, walk, 0, last - 1)
    elif seen == _MESSAGES_IN_CHUNK and not young:
        _keep_place(index, walk, 0, high)
    else:
        index.scans.pop(walk, None)
        more = False
    return Dropped(by_campaign=_end_chosen(index, number, Outcome.EXPIRED), more=more)


def promote(index: Index, now: int, limit: int) -> Promoted:
    """Make recipients that are due READY, the earliest first."""
    _choose_none(index)
    number = index.change(
        f"{_CHOOSE} SELECT campaign_id, id, message_id, state, 0, 0, 0, 0, '', '' FROM recipients INDEXED BY due"
        " WHERE state IN (1, 2) AND due <= ? ORDER BY due LIMIT ?",
        (now, limit),
    )
    moved, lanes = _make_ready(index, number)
    next_due = index.value(_NEXT_DUE)
    more = next_due is not None and next_due <= now
    return Promoted(by_campaign=moved, lanes=lanes, next_due=next_due, more=more)


def recall(index: Index, due_after: int, limit: int) -> Promoted:
    """Make DEFERRED recipients that are due after `due_after` READY."""
    _choose_none(index)
    number = index.change(
        f"{_CHOOSE} SELECT campaign_id, id, message_id, state, 0, 0, 0, 0, '', '' FROM recipients INDEXED BY due"
        " WHERE state IN (1, 2) AND due > ? AND state = 1 LIMIT ?",
        (due_after, limit),
    )
    moved, lanes = _make_ready(index, number)
    return Promoted(by_campaign=moved, lanes=lanes, next_due=None, more=number == limit)


def retry(index: Index, which: QueueFilter, limit: int) -> Promoted:
    """Make DEFERRED recipients that fit READY: a chunk of a walk."""
    asked = conditions(index.db, which, state=False)
    asked.require("r.state = 1")
    number, more = _choose_walking(index, ("retry", which), asked, "0, 0, 0, 0, '', ''", limit)
    moved, lanes = _make_ready(index, number)
    return Promoted(by_campaign=moved, lanes=lanes, next_due=index.value(_NEXT_DUE), more=more)


def prune(index: Index, before: int, limit: int) -> bool:
    """Forget outcomes older than `before`; give whether to go on.

    In each campaign from the oldest recipient on, up to the first whose outcome is young: one that waited long keeps
    those behind it for as long as it waited.
    """
    walk = ("prune",)
    first, _ = _resume(index, walk)
    room = limit
    for _ in range(_CAMPAIGNS_IN_CHUNK):
        campaign_id = index.value("SELECT min(campaign_id) FROM outcomes WHERE campaign_id >= ?", (first,))
        if campaign_id is None:
            index.scans.pop(walk, None)
            return False
        young, last, seen = index.row(
            "SELECT min(id) FILTER (WHERE at >= ?), max(id), count(*) FROM"
            " (SELECT id, at FROM outcomes WHERE campaign_id = ? ORDER BY id LIMIT ?)",
            (before, campaign_id, room),
        )
        end = last + 1 if young is None else young
        first = campaign_id if young is None and seen == room else campaign_id + 1
        removed = index.change("DELETE FROM outcomes WHERE campaign_id = ? AND id < ?", (campaign_id, end))
        if removed:
            index.db.execute("UPDATE meta SET value = 1 WHERE key = 'pruned' AND value = 0")
        room -= removed
        if room <= 0:
            break
    _keep_place(index, walk, first, 0)
    return True


# -- the rows chosen ----------------------------------------------------------------------------------------------


def _choose_none(index: Index) -> None:
    index.db.execute("DELETE FROM temp.chosen")


def _end_chosen(index: Index, number: int, outcome: Outcome, *, after_stop: bool = False) -> Mapping[str, QueuedDelta]:
    """Move the chosen to the outcomes, and count them."""
    if not number:
        return {}
    moved = _sum_chosen(index)
    for campaign_id, was in moved.items():
        index.deltas.add_outcome(campaign_id, outcome, after_stop=after_stop, number=was.total - was.unknown)
        index.deltas.add_outcome(campaign_id, Outcome.UNKNOWN, after_stop=True, number=was.unknown)
        index.deltas.add(campaign_id, "deferred", -was.deferred)
        index.deltas.add(campaign_id, "scheduled", -was.scheduled)
    index.db.execute("INSERT INTO temp.ending (number) VALUES (?)", (number,))
    return _by_name(index, moved)


def _make_ready(index: Index, number: int) -> tuple[Mapping[str, QueuedDelta], frozenset[str]]:
    """Make the chosen READY, and count them; give also their lanes."""
    if not number:
        return {}, frozenset()
    moved = _sum_chosen(index)
    for campaign_id, was in moved.items():
        index.deltas.add(campaign_id, "deferred", -was.deferred)
        index.deltas.add(campaign_id, "scheduled", -was.scheduled)
    lanes = index.lanes.names(lane_id for (lane_id,) in index.db.execute(_LANES_CHOSEN))
    index.db.execute(_READY_CHOSEN)
    return _by_name(index, moved), lanes


def _sum_chosen(index: Index) -> dict[int, QueuedDelta]:
    return {
        campaign_id: QueuedDelta(ready=ready, deferred=deferred, scheduled=scheduled, unknown=unknown)
        for campaign_id, ready, deferred, scheduled, unknown in index.db.execute(
            f"SELECT campaign_id, {_SUMMED} FROM temp.chosen GROUP BY campaign_id"
        )
    }


def _by_name(index: Index, moved: Mapping[int, QueuedDelta]) -> Mapping[str, QueuedDelta]:
    return {index.campaigns.of_id(campaign_id).name: was for campaign_id, was in moved.items()}


# -- walks --------------------------------------------------------------------------------------------------------


def _choose_walking(
    index: Index, walk: tuple[Any, ...], asked: Conditions, ending: str, limit: int
) -> tuple[int, bool]:
    """Choose the walk's next recipients that fit, among the next 20,000; give how many, and whether to go on."""
    _choose_none(index)
    if not asked.possible or limit < 1:
        return 0, False
    place = _resume(index, walk)
    if asked.campaign_id is not None:
        within = "r.campaign_id = ? AND r.id > ?"
        bindings: list[Any] = [asked.campaign_id, place[1]]
    else:
        within = "(r.campaign_id, r.id) > (?, ?)"
        bindings = [*place]
    if asked.message is not None:
        within += " AND r.id > ? AND r.id <= ?"
        bindings += asked.message
    end = index.db.execute(
        f"SELECT r.campaign_id, r.id FROM recipients AS r WHERE {within} ORDER BY r.campaign_id, r.id LIMIT 1 OFFSET ?",
        (*bindings, _ROWS_IN_CHUNK - 1),
    ).fetchone()
    if end is not None and asked.campaign_id is not None:
        within += " AND r.id <= ?"
        bindings.append(end[1])
    elif end is not None:
        within += " AND (r.campaign_id, r.id) <= (?, ?)"
        bindings += end
    tables = "recipients AS r"
    if asked.sender:
        tables += " CROSS JOIN messages AS m ON m.id = r.message_id"
    number = index.change(
        f"{_CHOOSE} SELECT r.campaign_id, r.id, r.message_id, r.state, {ending} FROM {tables}"
        f" WHERE {within} AND {asked.sql} ORDER BY r.campaign_id, r.id LIMIT ?",
        (*bindings, *asked.bindings, limit),
    )
    if number == limit:
        end = index.db.execute("SELECT campaign_id, id FROM temp.chosen ORDER BY rowid DESC LIMIT 1").fetchone()
    if end is None:
        index.scans.pop(walk, None)
        return number, False
    _keep_place(index, walk, *end)
    return number, True


def _resume(index: Index, walk: tuple[Any, ...]) -> tuple[int, int]:
    """Give where a walk goes on: behind (campaign id, id)."""
    campaign_id, number, when = index.scans.get(walk, (0, 0, 0))
    if not 0 <= index.now() - when < _WALK_KEPT:
        return 0, 0
    return campaign_id, number


def _keep_place(index: Index, walk: tuple[Any, ...], campaign_id: int, number: int) -> None:
    if walk not in index.scans and len(index.scans) >= _WALKS:
        index.scans.pop(next(iter(index.scans)))
    before = index.scans.get(walk, (0, 0, 0))
    index.on_rollback(lambda: index.scans.__setitem__(walk, before))
    index.scans[walk] = (campaign_id, number, index.now())
