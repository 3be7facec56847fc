"""What became of a campaign, counted in SQL, a page of its recipients at a time.

A page is what lies in a range of recipient ids, waiting or settled, in one snapshot: each recipient is counted exactly
once, whatever happens to it between two pages. Replies are handed out as they are; of an outcome that very many have
they may be asked for in part, one recipient in so many, chosen by its id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import apsw

from queue_store.records import AnalysisPage, Outcome, QueuedState

__all__ = ["analyse"]

_END = (1 << 63) - 1

# Ids of recipients come in patterns (one message takes two ids, or eleven): what is chosen must not follow them.
_CHOSEN = "((id * 40503) >> 7) % ? = 0"

_WAITING = (
    "SELECT l.name, r.state, r.n FROM (SELECT lane_id, state, count(*) AS n FROM recipients"
    " WHERE campaign_id = ?1 AND id > ?2 AND id <= ?3 GROUP BY lane_id, state) AS r JOIN lanes AS l ON l.id = r.lane_id"
)
_SETTLED = (
    "SELECT l.name, o.outcome, o.n FROM (SELECT lane_id, outcome, count(*) AS n FROM outcomes"
    " WHERE campaign_id = ?1 AND id > ?2 AND id <= ?3 GROUP BY lane_id, outcome) AS o"
    " JOIN lanes AS l ON l.id = o.lane_id"
)
_TIMES = (
    "SELECT at / 1000000 AS second, outcome, after_stop, count(*) FROM outcomes"
    " WHERE campaign_id = ?1 AND id > ?2 AND id <= ?3 GROUP BY second, outcome, after_stop"
)
_REPLIES = (
    "SELECT code, reply, count(*) FROM outcomes WHERE campaign_id = ? AND id > ? AND id <= ? AND outcome = ?"
    f" AND {_CHOSEN} GROUP BY code, reply"
)
_DEFERRALS = (
    "SELECT last_code, last_reply, count(*) FROM recipients WHERE campaign_id = ? AND id > ? AND id <= ? AND state = ?"
    f" AND {_CHOSEN} GROUP BY last_code, last_reply"
)


def analyse(
    db: apsw.Connection, campaign: str, one_in: Mapping[Outcome | None, int], above: int, limit: int
) -> AnalysisPage:
    """Count a page of about `limit` recipients behind recipient `above`.

    `one_in` says of each outcome (None: of those deferred) that the replies of one recipient in so many are wanted.
    """
    db.execute("BEGIN")
    try:
        row = db.execute("SELECT id FROM campaigns WHERE name = ?", (campaign,)).fetchone()
        if row is None:
            return AnalysisPage(above=None)
        ends = [
            found[0]
            for table in ("recipients", "outcomes")
            if (
                found := db.execute(
                    f"SELECT id FROM {table} WHERE campaign_id = ? AND id > ? ORDER BY id LIMIT 1 OFFSET ?",
                    (row[0], above, limit - 1),
                ).fetchone()
            )
        ]
        page = row[0], above, min(ends, default=_END)
        waiting: list[Any] = db.execute(_WAITING, page).fetchall()
        settled: list[Any] = db.execute(_SETTLED, page).fetchall()
        replies = [
            (outcome, *found)
            for outcome in sorted({outcome for _, outcome, _ in settled})
            for found in db.execute(_REPLIES, (*page, outcome, one_in.get(Outcome(outcome), 1)))
        ]
        if any(state == QueuedState.DEFERRED for _, state, _ in waiting):
            replies += [
                (None, *found)
                for found in db.execute(_DEFERRALS, (*page, int(QueuedState.DEFERRED), one_in.get(None, 1)))
            ]
        return AnalysisPage(
            above=page[2] if ends else None,
            waiting=[(lane, QueuedState(state), number) for lane, state, number in waiting],
            settled=[(lane, Outcome(outcome), number) for lane, outcome, number in settled],
            times=[
                (at, Outcome(outcome), bool(after), number) for at, outcome, after, number in db.execute(_TIMES, page)
            ],
            replies=[
                (None if outcome is None else Outcome(outcome), code, reply, number)
                for outcome, code, reply, number in replies
            ],
        )
    finally:
        db.execute("COMMIT")
