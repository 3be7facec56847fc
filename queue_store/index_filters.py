"""QueueFilter as SQL: which rows of `recipients AS r` (with `messages AS m` where a sender is asked) fit."""

from __future__ import annotations

from typing import Any

import apsw

from queue_store.records import QueuedState, QueueFilter

__all__ = ["Conditions", "conditions"]


class Conditions:
    """An SQL condition with its bindings. `possible` is False when nothing can fit (an unknown campaign or lane);
    `message` and `campaign_id` narrow the walk where they are known.
    """

    __slots__ = ("bindings", "campaign_id", "message", "possible", "sender", "sql")

    def __init__(self) -> None:
        self.sql = "TRUE"
        self.bindings: list[Any] = []
        self.possible = True
        self.sender = False
        self.campaign_id: int | None = None
        self.message: tuple[int, int] | None = None  # its id, and its last recipient's

    def require(self, sql: str, *bindings: Any) -> None:
        """Add a condition that must hold too."""
        self.sql += f" AND {sql}"
        self.bindings += bindings


def conditions(db: apsw.Connection, which: QueueFilter, *, state: bool = True) -> Conditions:
    """Translate a filter, looking up the names in it. `state` False: its state is not asked."""
    made = Conditions()
    if which.campaign is not None:
        made.campaign_id = _look_up(db, made, "SELECT id FROM campaigns WHERE name = ?", which.campaign)
    if which.message_id is not None:
        row = db.execute("SELECT campaign_id, recipients FROM messages WHERE id = ?", (which.message_id,)).fetchone()
        if row is None or made.campaign_id not in (None, row[0]):
            made.possible = False
        else:
            made.campaign_id = row[0]
            made.message = which.message_id, which.message_id + row[1]
    if which.lane is not None:
        made.require("r.lane_id = ?", _look_up(db, made, "SELECT id FROM lanes WHERE name = ?", which.lane))
    if which.domain is not None:
        pattern = which.domain.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        made.require("r.address LIKE ? ESCAPE '\\'", f"%@{pattern}")
    if which.sender is not None:
        made.sender = True
        made.require("m.reverse_path = ?", which.sender)
    if state and which.state is not None:
        made.require("r.state = ?", int(QueuedState(which.state)))
    return made


def _look_up(db: apsw.Connection, made: Conditions, sql: str, name: str) -> int | None:
    row = db.execute(sql, (name,)).fetchone()
    if row is None:
        made.possible = False
        return None
    return int(row[0])
