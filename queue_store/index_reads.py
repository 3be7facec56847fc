"""What an administrator reads: a read-only connection of its own, a snapshot a page.

Pages are short, so that the log can be checkpointed between them and commits are never held up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from queue_store import index_analysis
from queue_store.index import as_json, as_message, connect
from queue_store.index_filters import Conditions, conditions
from queue_store.records import AnalysisPage, Outcome, OutcomeRow, QueuedState, QueueFilter, QueueRow, Recipient

__all__ = ["IndexReader"]

_END = (1 << 63) - 1
_MESSAGES_IN_PAGE = 5_000  # looked at
_RECIPIENTS_IN_PAGE = 20_000  # looked at

_QUEUE = (
    "SELECT m.id, c.name, m.reverse_path, m.received_at, m.segment, m.offset, m.size, m.eight_bit, m.smtputf8, m.ret,"
    " m.envid, r.id, r.address, r.attempts, r.notify, r.orcpt, l.name, r.state, r.due, r.last_code, r.last_reply"
)
_NAMES = " CROSS JOIN campaigns AS c ON c.id = r.campaign_id CROSS JOIN lanes AS l ON l.id = r.lane_id"
_OUTCOME_COLUMNS = (
    "o.id, o.message_id, o.address, l.name, o.outcome, o.after_stop, o.at, o.attempts, o.code, o.reply, o.peer"
)
_OUTCOMES = f"SELECT {_OUTCOME_COLUMNS} FROM outcomes AS o CROSS JOIN lanes AS l ON l.id = o.lane_id"


class IndexReader:
    """The reader's side of the index. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._db = connect(path, read_only=True)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def locate(self, message_id: int) -> tuple[int, int, int] | None:
        """Give segment, offset and size of a message's body as they are now."""
        return self._db.execute("SELECT segment, offset, size FROM messages WHERE id = ?", (message_id,)).fetchone()

    def queue(self, which: QueueFilter, limit: int) -> Sequence[QueueRow]:
        """Give queued recipients that fit, the oldest first."""
        asked = conditions(self._db, which)
        if not asked.possible or limit < 1:
            return []
        if which.state is QueuedState.CLAIMED:
            return self._queue_claimed(asked, limit)
        rows: list[QueueRow] = []
        low = 0 if asked.message is None else asked.message[0]
        while len(rows) < limit:
            # One snapshot holds where the page ends, and the page.
            self._db.execute("BEGIN")
            try:
                if asked.campaign_id is not None:
                    high = self._page_of_campaign(asked, low, limit, rows)
                else:
                    high = self._page_of_messages(asked, low, limit, rows)
            finally:
                self._db.execute("COMMIT")
            if high is None:
                break
            low = high
        return rows

    def _queue_claimed(self, asked: Conditions, limit: int) -> Sequence[QueueRow]:
        sql = (
            f"{_QUEUE} FROM recipients AS r INDEXED BY claimed CROSS JOIN messages AS m ON m.id = r.message_id{_NAMES}"
        )
        bindings = list(asked.bindings)
        sql += f" WHERE r.state = 3 AND {asked.sql}"
        if asked.campaign_id is not None:
            sql += " AND r.campaign_id = ?"
            bindings.append(asked.campaign_id)
        if asked.message is not None:
            sql += " AND r.message_id = ?"
            bindings.append(asked.message[0])
        found = self._db.execute(f"{sql} ORDER BY r.id LIMIT ?", (*bindings, limit)).fetchall()
        return [_as_queued(row) for row in found]

    def _page_of_campaign(self, asked: Conditions, low: int, limit: int, rows: list[QueueRow]) -> int | None:
        """Add a page of a campaign's recipients, which lie in the order of arrival; give where the next one begins."""
        end = _END if asked.message is None else asked.message[1]
        high = self._value(
            "SELECT id FROM recipients WHERE campaign_id = ? AND id > ? AND id <= ? ORDER BY id LIMIT 1 OFFSET ?",
            (asked.campaign_id, low, end, _RECIPIENTS_IN_PAGE - 1),
        )
        found = self._db.execute(
            f"{_QUEUE} FROM recipients AS r CROSS JOIN messages AS m ON m.id = r.message_id{_NAMES}"
            f" WHERE r.campaign_id = ? AND r.id > ? AND r.id <= ? AND {asked.sql} ORDER BY r.id LIMIT ?",
            (asked.campaign_id, low, end if high is None else high, *asked.bindings, limit - len(rows)),
        ).fetchall()
        rows += [_as_queued(row) for row in found]
        return high

    def _page_of_messages(self, asked: Conditions, low: int, limit: int, rows: list[QueueRow]) -> int | None:
        """Add a page of all recipients, walking the messages; give where the next one begins."""
        high = self._value(
            "SELECT id FROM messages WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?", (low, _MESSAGES_IN_PAGE - 1)
        )
        found = self._db.execute(
            f"{_QUEUE} FROM messages AS m CROSS JOIN recipients AS r ON r.campaign_id = m.campaign_id AND r.id > m.id"
            f" AND r.id <= m.id + m.recipients{_NAMES}"
            f" WHERE m.id > ? AND m.id <= ? AND {asked.sql} ORDER BY m.id, r.id LIMIT ?",
            (low, _END if high is None else high, *asked.bindings, limit - len(rows)),
        ).fetchall()
        rows += [_as_queued(row) for row in found]
        return high

    def _value(self, sql: str, bindings: Sequence[Any]) -> int | None:
        row = self._db.execute(sql, bindings).fetchone()
        return None if row is None else int(row[0])

    def outcomes(
        self, campaign: str, outcomes: Collection[Outcome] | None, *, after_stop: bool, above: int, limit: int
    ) -> Sequence[OutcomeRow]:
        """Give a page of a campaign's outcomes, behind recipient `above`."""
        sql = f"{_OUTCOMES} WHERE o.campaign_id = (SELECT id FROM campaigns WHERE name = ?) AND o.id > ?"
        bindings: list[Any] = [campaign, above]
        if outcomes is not None:
            sql += " AND o.outcome IN (SELECT value FROM json_each(?))"
            bindings.append(as_json([int(outcome) for outcome in outcomes]))
        if after_stop:
            sql += " AND o.after_stop"
        rows = self._db.execute(f"{sql} ORDER BY o.id LIMIT ?", (*bindings, limit)).fetchall()
        return [_as_outcome(row) for row in rows]

    def analyse(self, campaign: str, one_in: Mapping[Outcome | None, int], *, above: int, limit: int) -> AnalysisPage:
        """Count a page of a campaign's recipients, behind recipient `above`."""
        return index_analysis.analyse(self._db, campaign, one_in, above, limit)

    def message_outcomes(self, message_id: int) -> Sequence[OutcomeRow]:
        """Give the outcomes of a message's recipients.

        The message may be gone, and its campaign with it: but in the campaign that it was of, the first outcome behind
        its id is its own. A seek for each campaign costs a reader less than an index on message ids costs each mail.
        """
        campaign_id = self._db.execute(
            "SELECT c.id FROM campaigns AS c WHERE (SELECT o.message_id FROM outcomes AS o WHERE o.campaign_id = c.id"
            " AND o.id > ?1 ORDER BY o.id LIMIT 1) = ?1",
            (message_id,),
        ).fetchone()
        if campaign_id is None:
            return []
        rows: list[OutcomeRow] = []
        cursor = self._db.execute(
            f"{_OUTCOMES} WHERE o.campaign_id = ? AND o.id > ? ORDER BY o.id", (*campaign_id, message_id)
        )
        for row in cursor:
            if row[1] != message_id:
                break
            rows.append(_as_outcome(row))
        cursor.close(True)
        return rows


def _as_outcome(row: Sequence[Any]) -> OutcomeRow:
    number, message_id, address, lane, outcome, after_stop, at, attempts, code, reply, peer = row
    return OutcomeRow(
        recipient_id=number,
        message_id=message_id,
        address=address,
        lane=lane,
        outcome=Outcome(outcome),
        after_stop=bool(after_stop),
        at=at,
        attempts=attempts,
        code=code,
        reply=reply,
        peer=peer,
    )


def _as_queued(row: Sequence[Any]) -> QueueRow:
    campaign, *columns = row[1], row[0], *row[2:11]
    (recipient_id, address, attempts, notify, orcpt, lane, state, due, last_code, last_reply) = row[11:]
    return QueueRow(
        message=as_message(campaign, columns),
        recipient=Recipient(id=recipient_id, address=address, attempts=attempts, notify=notify, orcpt=orcpt),
        lane=lane,
        state=QueuedState(state),
        due=due,
        last_code=last_code,
        last_reply=last_reply,
    )
