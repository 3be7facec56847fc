"""Balance the books of an index that lost rows: each recipient that was accepted is somewhere, once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import apsw

__all__ = ["balance"]

_SHOWN = 20

# Mail that waits though it has an outcome is of an older version of a damaged page.
_ENDED_TWICE = "DELETE FROM recipients WHERE id IN (SELECT id FROM outcomes)"
_NAMELESS = """
SELECT campaign_id, sum(waiting) FROM (
    SELECT campaign_id, 1 AS waiting FROM recipients UNION ALL SELECT campaign_id, 0 FROM outcomes
    UNION ALL SELECT campaign_id, 0 FROM messages UNION ALL SELECT campaign_id, 0 FROM halts
) WHERE campaign_id NOT IN (SELECT id FROM campaigns) GROUP BY campaign_id
"""
_LANELESS = """
SELECT lane_id, max(address) FROM (
    SELECT lane_id, address FROM recipients UNION ALL SELECT lane_id, address FROM outcomes
) WHERE lane_id NOT IN (SELECT id FROM lanes) GROUP BY lane_id
"""
_WITHOUT_ENVELOPE = """
SELECT r.id, r.message_id, r.address, c.name FROM recipients r JOIN campaigns c ON c.id = r.campaign_id
WHERE r.message_id NOT IN (SELECT id FROM messages)
"""
_BOUNCE = """
INSERT INTO outcomes (campaign_id, id, message_id, lane_id, address, outcome, after_stop, at, attempts, code, reply,
    peer)
SELECT campaign_id, id, message_id, lane_id, address, iif(halted, 4 + uncertain, 2), halted, ?1, attempts,
    iif(halted, NULL, 554), iif(halted, '', '5.3.0 Its envelope was damaged in our queue'), ''
FROM (SELECT *, campaign_id IN (SELECT campaign_id FROM halts) AS halted FROM recipients
      WHERE message_id NOT IN (SELECT id FROM messages))
"""
# Of halted campaigns a count is at least what the rows say; what was accepted and is nowhere is unknown.
_COUNT = """
CREATE TEMP TABLE counted AS
SELECT c.id, coalesce(w.live, 0) AS live, coalesce(w.deferred, 0) AS deferred, coalesce(w.scheduled, 0) AS scheduled,
    coalesce(e.delivered, 0) AS delivered, coalesce(e.after_stop, 0) AS after_stop, coalesce(e.bounced, 0) AS bounced,
    coalesce(e.expired, 0) AS expired, coalesce(e.dropped, 0) AS dropped, coalesce(e.unknown, 0) AS unknown,
    coalesce(e.began, 0) AS began
FROM campaigns c
LEFT JOIN (SELECT campaign_id, count(*) AS live, sum(state = 1) AS deferred, sum(state = 2) AS scheduled
           FROM recipients GROUP BY campaign_id) w ON w.campaign_id = c.id
LEFT JOIN (SELECT campaign_id, sum(outcome = 1) AS delivered, sum(outcome = 1 AND after_stop) AS after_stop,
               sum(outcome = 2) AS bounced, sum(outcome = 3) AS expired, sum(outcome = 4) AS dropped,
               sum(outcome = 5) AS unknown, max(attempts > 0) AS began
           FROM outcomes GROUP BY campaign_id) e ON e.campaign_id = c.id;
CREATE UNIQUE INDEX temp.counted_id ON counted (id);
UPDATE campaigns SET delivered = max(campaigns.delivered, n.delivered),
    delivered_after_stop = max(campaigns.delivered_after_stop, n.after_stop),
    bounced = max(campaigns.bounced, n.bounced), expired = max(campaigns.expired, n.expired),
    dropped = max(campaigns.dropped, n.dropped), unknown = max(campaigns.unknown, n.unknown),
    deferred = n.deferred, scheduled = n.scheduled,
    refused = max(0, refused), discarded = max(0, discarded),
    began = iif(campaigns.id IN (SELECT campaign_id FROM halts WHERE kind = 'cancel'), 0, max(campaigns.began, n.began))
FROM temp.counted AS n WHERE n.id = campaigns.id;
UPDATE campaigns SET delivered_after_stop = min(delivered, delivered_after_stop);
"""
_LOST = """
SELECT c.id, c.name, c.accepted - n.live - c.delivered - c.bounced - c.expired - c.dropped - c.unknown AS lost
FROM campaigns c JOIN temp.counted n ON n.id = c.id WHERE lost <> 0
"""


def balance(db: apsw.Connection, names: Mapping[int, str], *, now: int, lost: set[str], told: list[str]) -> bool:
    """Make it all fit. `names` has campaigns by number; what is lost goes to `told`; `lost` names the tables that may
    lack rows. Gives whether there may be bodies that have lost their mail. Raises apsw.Error.
    """
    db.execute(_ENDED_TWICE)
    _name_campaigns(db, names, told)
    _name_lanes(db)
    homeless = _bounce_without_envelope(db, now, told)
    # A state that is none waits again; a halt with mail left is not completed.
    db.execute("UPDATE recipients SET state = 0 WHERE state NOT IN (0, 1, 2, 3)")
    db.execute("UPDATE recipients SET due = ? WHERE state IN (1, 2) AND due IS NULL", (now,))
    db.execute("UPDATE recipients SET due = NULL WHERE state IN (0, 3) AND due IS NOT NULL")
    db.execute(
        "UPDATE halts SET completed_at = NULL, queue_dropped_at = NULL"
        " WHERE campaign_id IN (SELECT campaign_id FROM recipients)"
    )
    robbed = _count_messages(db)
    _count_segments(db)
    missing = _count_campaigns(db, told)
    pruned = db.execute("SELECT value FROM meta WHERE key = 'pruned'").fetchone()
    if lost & {"outcomes", "meta", "campaigns", "recipients"} or missing or pruned is None:
        db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('pruned', 1)")
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('clean', 0)")
    return homeless or robbed or missing


def _name_campaigns(db: apsw.Connection, names: Mapping[int, str], told: list[str]) -> None:
    for number, waiting in _rows(db, _NAMELESS):
        name = names.get(number)
        if name is not None:
            db.execute("INSERT OR IGNORE INTO campaigns (id, name) VALUES (?, ?)", (number, name))
            if db.changes():
                continue
        name = f"lost-campaign-{number}"
        db.execute("INSERT INTO campaigns (id, name, held) VALUES (?, ?, 1)", (number, name))
        told.append(f"the name of a campaign is lost: its mail ({waiting} recipients wait) is held as {name}")


def _name_lanes(db: apsw.Connection) -> None:
    """Name lanes anew: a lane is the domain of its recipients."""
    for number, address in _rows(db, _LANELESS):
        name = address.rpartition("@")[2].lower() or f"lost-lane-{number}"
        db.execute("INSERT OR IGNORE INTO lanes (id, name) VALUES (?, ?)", (number, name))
        if not db.changes():  # it has another number by now
            for table in ("recipients", "outcomes"):
                db.execute(
                    f"UPDATE {table} SET lane_id = (SELECT id FROM lanes WHERE name = ?) WHERE lane_id = ?",
                    (name, number),
                )


def _bounce_without_envelope(db: apsw.Connection, now: int, told: list[str]) -> bool:
    found = _rows(db, _WITHOUT_ENVELOPE)
    db.execute(_BOUNCE, (now,))
    db.execute("DELETE FROM recipients WHERE message_id NOT IN (SELECT id FROM messages)")
    told += _listed(
        f"message {message} of {_of(campaign)} lost its envelope and can't be sent: {address} is settled without it"
        for _, message, address, campaign in found
    )
    return bool(found)


def _count_messages(db: apsw.Connection) -> bool:
    """Give whether a message is let go of as all of its recipients are lost or done."""
    db.execute(
        "CREATE TEMP TABLE living AS SELECT message_id AS id, count(*) AS live FROM recipients GROUP BY message_id"
    )
    db.execute("CREATE UNIQUE INDEX temp.living_id ON living (id)")
    db.execute("UPDATE messages SET live = coalesce((SELECT live FROM temp.living l WHERE l.id = messages.id), 0)")
    db.execute("DELETE FROM messages WHERE live = 0")
    return bool(db.changes())


def _count_segments(db: apsw.Connection) -> None:
    db.execute(
        "INSERT OR IGNORE INTO segments (id, length, live_bytes, live_messages, first_message, last_message)"
        " SELECT segment, max(offset + size + 28), 0, 0, 0, 0 FROM messages GROUP BY segment"
    )
    db.execute(
        "UPDATE segments SET live_messages = (SELECT count(*) FROM messages WHERE segment = segments.id),"
        " live_bytes = (SELECT coalesce(sum(size), 0) FROM messages WHERE segment = segments.id),"
        " first_message = (SELECT coalesce(min(id), first_message) FROM messages WHERE segment = segments.id),"
        " last_message = max(last_message,"
        " (SELECT coalesce(max(id), 0) FROM messages WHERE segment = segments.id))"
    )


def _count_campaigns(db: apsw.Connection, told: list[str]) -> bool:
    """Give whether recipients are lost."""
    db.execute(_COUNT)
    missing = False
    for number, name, lost in _rows(db, _LOST):
        if lost > 0:
            missing = True
            told.append(f"{lost} recipients of {_of(name)} are lost from the queue: they are counted as unknown")
            db.execute("UPDATE campaigns SET unknown = unknown + ? WHERE id = ?", (lost, number))
        else:
            db.execute("UPDATE campaigns SET accepted = accepted - ? WHERE id = ?", (lost, number))
    return missing


def _rows(db: apsw.Connection, sql: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = db.execute(sql).fetchall()
    return rows


def _of(campaign: str) -> str:
    return f"campaign {campaign}" if campaign else "no campaign"


def _listed(sentences: Iterator[str]) -> list[str]:
    found = list(sentences)
    if len(found) > _SHOWN:
        return [*found[:_SHOWN], f"and {len(found) - _SHOWN} more like that"]
    return found
