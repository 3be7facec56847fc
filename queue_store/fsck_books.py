"""Check the index against itself: the law, the counts, the identifiers.

Each check is a query that gives a row for each thing that is wrong, and the sentence that tells it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apsw

from queue_store.finding import Finding, Kind, Severity

__all__ = ["check_books"]

_SHOWN = 20  # rows told of one check; the rest is counted

_PREPARE = """
CREATE TEMP TABLE facts AS
SELECT coalesce((SELECT value FROM meta WHERE key = 'pruned'), 1) AS pruned;
CREATE TEMP VIEW named AS
SELECT *, CASE WHEN id = 0 THEN 'mail of no campaign' ELSE 'campaign ' || name END AS who FROM campaigns;
CREATE TEMP TABLE waiting AS
SELECT campaign_id AS id, count(*) AS live, sum(state = 1) AS deferred, sum(state = 2) AS scheduled
FROM recipients GROUP BY campaign_id;
CREATE TEMP TABLE ended AS
SELECT campaign_id AS id, sum(outcome = 1) AS delivered, sum(outcome = 1 AND after_stop) AS delivered_after_stop,
    sum(outcome = 2) AS bounced, sum(outcome = 3) AS expired, sum(outcome = 4) AS dropped, sum(outcome = 5) AS unknown
FROM outcomes GROUP BY campaign_id;
CREATE TEMP TABLE waiting_of AS
SELECT message_id AS id, count(*) AS live FROM recipients GROUP BY message_id;
CREATE UNIQUE INDEX temp.waiting_of_id ON waiting_of (id);
"""


@dataclass(frozen=True, slots=True)
class _Check:
    """`where` and `what` are filled from the columns of a row, by number."""

    where: str
    what: str
    sql: str


_CAMPAIGNS = (
    _Check(
        "{0}",
        "{1} were accepted, but {2} wait and {3} have an outcome",
        """
        SELECT c.who, c.accepted, coalesce(w.live, 0) AS wait,
            c.delivered + c.bounced + c.expired + c.dropped + c.unknown AS ended
        FROM temp.named c LEFT JOIN temp.waiting w ON w.id = c.id WHERE c.accepted <> wait + ended
        """,
    ),
    _Check(
        "{0}",
        "its count says {2} {1}, but {3} are",
        """
        SELECT c.who, 'deferred', c.deferred AS said, coalesce(w.deferred, 0) AS found
        FROM temp.named c LEFT JOIN temp.waiting w ON w.id = c.id WHERE said <> found
        UNION ALL
        SELECT c.who, 'scheduled', c.scheduled AS said, coalesce(w.scheduled, 0) AS found
        FROM temp.named c LEFT JOIN temp.waiting w ON w.id = c.id WHERE said <> found
        """,
    ),
    _Check(
        "{0}",
        "its count says {2} {1}, but there are {3} such outcomes",
        # Fewer there may be where some were pruned.
        """
        SELECT who, outcome, said, coalesce(found, 0) FROM (
            SELECT c.who, 'delivered' AS outcome, c.delivered AS said, e.delivered AS found
            FROM temp.named c LEFT JOIN temp.ended e ON e.id = c.id
            UNION ALL
            SELECT c.who, 'delivered after the stop', c.delivered_after_stop, e.delivered_after_stop
            FROM temp.named c LEFT JOIN temp.ended e ON e.id = c.id
            UNION ALL
            SELECT c.who, 'bounced', c.bounced, e.bounced FROM temp.named c LEFT JOIN temp.ended e ON e.id = c.id
            UNION ALL
            SELECT c.who, 'expired', c.expired, e.expired FROM temp.named c LEFT JOIN temp.ended e ON e.id = c.id
            UNION ALL
            SELECT c.who, 'dropped', c.dropped, e.dropped FROM temp.named c LEFT JOIN temp.ended e ON e.id = c.id
            UNION ALL
            SELECT c.who, 'unknown', c.unknown, e.unknown FROM temp.named c LEFT JOIN temp.ended e ON e.id = c.id
        ) WHERE coalesce(found, 0) > said OR coalesce(found, 0) < said AND NOT (SELECT pruned FROM temp.facts)
        """,
    ),
    _Check(
        "{0}",
        "a count of it is less than none, or {1} delivered after the stop are more than the {2} delivered",
        """
        SELECT who, delivered_after_stop, delivered FROM temp.named
        WHERE delivered_after_stop > delivered OR 0 > min(accepted, delivered, delivered_after_stop, bounced, expired,
            dropped, unknown, refused, discarded, deferred, scheduled)
        """,
    ),
    _Check(
        "campaigns",
        "row 0, which stands for mail of no campaign, is missing or has a name",
        "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM campaigns WHERE id = 0 AND name = '')",
    ),
    _Check(
        "campaign row {0}",
        "{1} {2} belong to it, but there is no such campaign",
        """
        SELECT id, live, 'waiting recipients' FROM temp.waiting WHERE id NOT IN (SELECT id FROM campaigns)
        UNION ALL
        SELECT campaign_id, count(*), 'outcomes' FROM outcomes
        WHERE campaign_id NOT IN (SELECT id FROM campaigns) GROUP BY campaign_id
        UNION ALL
        SELECT campaign_id, count(*), 'halts' FROM halts
        WHERE campaign_id NOT IN (SELECT id FROM campaigns) GROUP BY campaign_id
        """,
    ),
)

_HALTS = (
    _Check(
        "{0}",
        "its halt is completed, but {1} of its recipients wait",
        """
        SELECT c.who, w.live FROM halts h JOIN temp.named c ON c.id = h.campaign_id JOIN temp.waiting w ON w.id = c.id
        WHERE h.completed_at IS NOT NULL
        """,
    ),
    _Check(
        "{0}",
        "its halt is completed, but a step before that was not reached",
        """
        SELECT c.who FROM halts h JOIN temp.named c ON c.id = h.campaign_id
        WHERE h.completed_at IS NOT NULL AND (h.queue_dropped_at IS NULL OR h.in_flight_finished_at IS NULL)
        """,
    ),
    _Check(
        "{0}",
        "its halt is a {1}, but a transaction of it {2}",
        """
        SELECT c.who, h.kind, CASE WHEN c.began THEN 'had begun' ELSE 'never began' END
        FROM halts h JOIN temp.named c ON c.id = h.campaign_id
        WHERE h.kind NOT IN ('stop', 'cancel') OR h.kind = 'cancel' AND c.began
        """,
    ),
)

_MESSAGES = (
    _Check(
        "message {0}",
        "its row says that {1} of its recipients wait, but {2} do",
        """
        SELECT m.id, m.live, coalesce(w.live, 0) FROM messages m LEFT JOIN temp.waiting_of w ON w.id = m.id
        WHERE m.live <> coalesce(w.live, 0)
        """,
    ),
    _Check(
        "message {0}",
        "none of its recipients wait, but it is still there",
        "SELECT id FROM messages WHERE live = 0 AND id NOT IN (SELECT id FROM temp.waiting_of)",
    ),
    _Check(
        "message {0}",
        "it is gone, but {1} of its recipients wait",
        "SELECT id, live FROM temp.waiting_of WHERE id NOT IN (SELECT id FROM messages)",
    ),
    _Check(
        "recipient {0}",
        "it is filed under campaign row {1}, but its message {2} under {3}",
        """
        SELECT r.id, r.campaign_id, m.id, m.campaign_id FROM recipients r JOIN messages m ON m.id = r.message_id
        WHERE r.campaign_id <> m.campaign_id
        """,
    ),
    _Check(
        "recipient {0}",
        "its state is {1} and the time at which it is due is {2}",
        """
        SELECT id, state, coalesce(due, 'not set') FROM recipients
        WHERE state NOT IN (0, 1, 2, 3) OR state IN (1, 2) AND due IS NULL
        """,
    ),
    _Check(
        "recipient {0}",
        "its outcome is {1}, which is none",
        "SELECT id, outcome FROM outcomes WHERE outcome NOT IN (1, 2, 3, 4, 5)",
    ),
    _Check(
        "recipient {0}",
        "its lane {1} is not there",
        """
        SELECT id, lane_id FROM recipients WHERE lane_id NOT IN (SELECT id FROM lanes)
        UNION ALL SELECT id, lane_id FROM outcomes WHERE lane_id NOT IN (SELECT id FROM lanes)
        """,
    ),
)

_IDS = (
    _Check(
        "meta",
        "the next id, {0}, is not above {1}, which was given",
        """
        SELECT coalesce((SELECT value FROM meta WHERE key = 'next_id'), 'missing') AS next, max(id) AS given FROM (
            SELECT max(id) AS id FROM recipients UNION ALL SELECT max(id) FROM outcomes
            UNION ALL SELECT max(id + recipients) FROM messages UNION ALL SELECT max(last_message) FROM segments
            UNION ALL SELECT 0
        ) HAVING next = 'missing' OR next <= given
        """,
    ),
    _Check(
        "recipient {0}",
        "the id is there {1} times, among those that wait and the outcomes",
        """
        SELECT id, count(*) FROM (SELECT id FROM recipients UNION ALL SELECT id FROM outcomes)
        GROUP BY id HAVING count(*) > 1
        """,
    ),
    _Check(
        "message {0}",
        "its ids run up to {1}, into those of message {2}",
        """
        SELECT id, last, following FROM (
            SELECT id, id + recipients AS last, lead(id) OVER (ORDER BY id) AS following FROM messages
        ) WHERE following <= last
        """,
    ),
    _Check(
        "recipient {0}",
        "the id is not one of its message {1}, which has {2} recipients",
        """
        SELECT r.id, m.id, m.recipients
        FROM (SELECT id, message_id FROM recipients UNION ALL SELECT id, message_id FROM outcomes) r
        JOIN messages m ON m.id = r.message_id WHERE r.id <= m.id OR r.id > m.id + m.recipients
        UNION ALL
        SELECT id, message_id, 'no' FROM outcomes
        WHERE id <= message_id AND message_id NOT IN (SELECT id FROM messages)
        """,
    ),
)


_TOTALS = _Check(
    "message {0}",
    "it was accepted for {1} recipients, but {2} wait and {3} have an outcome",
    """
    SELECT m.id, m.recipients, m.live, count(o.id) AS ended
    FROM messages m LEFT JOIN outcomes o ON o.campaign_id = m.campaign_id AND o.id > m.id
        AND o.id <= m.id + m.recipients
    GROUP BY m.id
    HAVING m.live + ended > m.recipients OR m.live + ended < m.recipients AND NOT (SELECT pruned FROM temp.facts)
    """,
)

_SEGMENTS = _Check(
    "segment {0}",
    "its row says {1} messages with {2} octets, but there are {3} with {4}",
    """
    SELECT s.id, s.live_messages, s.live_bytes, count(m.id) AS messages, coalesce(sum(m.size), 0) AS octets
    FROM segments s LEFT JOIN messages m ON m.segment = s.id GROUP BY s.id
    HAVING s.live_messages <> messages OR s.live_bytes <> octets
    """,
)

_CLEAN = _Check(
    "meta",
    "it says that the store was closed in order, but {0} recipients are claimed",
    """
    SELECT count(*) AS claimed FROM recipients
    WHERE state = 3 AND (SELECT value FROM meta WHERE key = 'clean') = 1 HAVING claimed > 0
    """,
)


def check_books(db: apsw.Connection, name: str) -> Iterator[Finding]:
    """Find what does not add up in the index; `name` is the file's. Raises apsw.Error."""
    for (text,) in db.execute("PRAGMA integrity_check"):
        if text != "ok":
            yield Finding(severity=Severity.ERROR, where=name, what=str(text), kind=Kind.INDEX)
    db.execute(_PREPARE)
    for check in (*_CAMPAIGNS, *_HALTS, *_MESSAGES, *_IDS, _TOTALS, _SEGMENTS, _CLEAN):
        more = 0
        for number, row in enumerate(db.execute(check.sql)):
            if number < _SHOWN:
                where = f"{name}, {check.where.format(*row)}"
                yield Finding(severity=Severity.ERROR, where=where, what=check.what.format(*row))
            else:
                more += 1
        if more:
            yield Finding(
                severity=Severity.ERROR, where=name, what=f"and {more} more like that: {check.what.format(*row)}"
            )
