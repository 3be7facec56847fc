"""Claims: a page of a lane's READY recipients, fair over its campaigns.

Mail without a campaign comes first. Then the campaigns that have READY recipients in the lane are found by skipping
through the index from one to the next, from the cursor on and around; each gives a like share of the page, and what
some can't fill the others may. A page looks at 64 campaigns at most; the next one goes on behind them.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import msgspec

from queue_store.failpoints import ARMED, reach
from queue_store.index import Index, as_json, as_message
from queue_store.index_mail import CLAIM_LIMIT
from queue_store.records import Claim, ClaimPage, Recipient

__all__ = ["claim"]

_CAMPAIGNS_IN_PAGE = 64
_SKIPS = 256  # campaigns that one statement skips through

_SKIP_SCAN = f"""
WITH RECURSIVE found (id) AS (
    SELECT (SELECT campaign_id FROM recipients INDEXED BY ready
            WHERE state = 0 AND lane_id = ?1 AND campaign_id > ?2 ORDER BY campaign_id LIMIT 1)
    UNION ALL
    SELECT (SELECT campaign_id FROM recipients INDEXED BY ready
            WHERE state = 0 AND lane_id = ?1 AND campaign_id > found.id ORDER BY campaign_id LIMIT 1)
    FROM found WHERE found.id IS NOT NULL
    LIMIT {_SKIPS}
)
SELECT group_concat(id) FROM found WHERE id IS NOT NULL
"""
# What each of the campaigns that are asked for, as [id, the last recipient already read], has next: an array of rows.
_READ = """
SELECT '[' || group_concat((
    SELECT json_group_array(json_array(r.campaign_id, r.id, r.address, r.attempts, r.notify, r.orcpt, m.id,
        m.reverse_path, m.received_at, m.segment, m.offset, m.size, m.eight_bit, m.smtputf8, m.ret, m.envid,
        r.uncertain))
    FROM (
        SELECT campaign_id, id, message_id, address, attempts, notify, orcpt, uncertain
        FROM recipients INDEXED BY ready
        WHERE state = 0 AND lane_id = ?1 AND campaign_id = asked.value ->> 0 AND id > asked.value ->> 1
        ORDER BY id LIMIT ?2
    ) AS r CROSS JOIN messages AS m ON m.id = r.message_id
)) || ']'
FROM json_each(?3) AS asked
"""
_MARK = """
UPDATE recipients SET state = 3
WHERE (campaign_id, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))
"""

_Row = list[Any]


def claim(index: Index, lane: str, limit: int, cursor: int) -> ClaimPage:
    """Mark a page as CLAIMED and give it."""
    lane_id = index.lanes.find(lane)
    if lane_id is None or limit < 1:
        return ClaimPage(lane=lane, claims=(), cursor=cursor, more=False, held=False)
    page = _Page(index, lane_id, limit)
    none = index.campaigns.of_id(0)
    held = none.held and page.has(0)
    if not (none.held or none.halted):
        page.take([0])
    if page.room:
        campaigns, others, passed_held = _campaigns_from(index, lane_id, cursor, _CAMPAIGNS_IN_PAGE)
        page.take(campaigns)
        cursor, held = page.last or cursor, held or passed_held
    else:
        others = bool(_campaigns_from(index, lane_id, cursor, 1)[0])
    return ClaimPage(lane=lane, claims=page.mark(lane), cursor=cursor, more=page.left or others, held=held)


def _campaigns_from(index: Index, lane_id: int, cursor: int, wanted: int) -> tuple[list[int], bool, bool]:
    """Give up to so many campaigns that may be claimed from, from the cursor on and around; whether there are others;
    whether held ones were passed over.
    """
    found: list[int] = []
    held = False
    for low, high in ((cursor, None), (0, cursor)):
        after = low
        while True:
            text = index.value(_SKIP_SCAN, (lane_id, after))
            numbers = [int(number) for number in text.split(",")] if text else []
            for number in numbers:
                if high is not None and number > high:
                    return found, False, held
                entry = index.campaigns.of_id(number)
                if entry.halted:
                    continue
                if entry.held:
                    held = True
                    continue
                if len(found) == wanted:
                    return found, True, held
                found.append(number)
            if len(numbers) < _SKIPS - 1:
                break
            after = numbers[-1]
        if cursor == 0:
            break
    return found, False, held


class _Page:
    """The recipients that a claim takes.

    A statement for all campaigns at once, not one for each: a statement gives up the interpreter's lock, and a page of
    80 recipients of 40 campaigns held up the commits behind it for up to half a second on a busy node.
    """

    def __init__(self, index: Index, lane_id: int, limit: int) -> None:
        self._index = index
        self._lane_id = lane_id
        self._rows: list[_Row] = []
        self.room = limit
        self.left = False  # READY recipients that there was no room for
        self.last = 0  # the campaign that had its share last

    def has(self, campaign_id: int) -> bool:
        """Whether the lane has a READY recipient of the campaign."""
        return bool(self._read([[campaign_id, 0]], 1)[0])

    def take(self, campaigns: list[int]) -> None:
        """Take a like share of what each has, and what some can't fill from the others."""
        asked = [[campaign_id, 0] for campaign_id in campaigns]
        first_round = True
        while asked and self.room:
            share = -(-self.room // len(asked))
            hungry = []
            for (campaign_id, _), rows in zip(asked, self._read(asked, share + 1), strict=True):
                taken = rows[: min(share, self.room)]
                self._rows += taken
                self.room -= len(taken)
                if first_round and taken:
                    self.last = campaign_id
                if len(rows) > len(taken):
                    hungry.append([campaign_id, taken[-1][1] if taken else 0])
            asked = hungry
            first_round = False
        self.left = self.left or bool(asked)

    def _read(self, asked: list[list[int]], limit: int) -> list[list[_Row]]:
        text = self._index.value(_READ, (self._lane_id, limit, as_json(asked)))
        pages: list[list[_Row]] = msgspec.json.decode(text)
        return pages

    def mark(self, lane: str) -> tuple[Claim, ...]:
        """Mark what was taken as CLAIMED; give it, recipients of one message together."""
        rows = sorted(self._rows, key=_by_campaign_and_id)
        if not rows:
            return ()
        self._index.db.execute(_MARK, (as_json([row[:2] for row in rows]),))
        if ARMED:
            reach("claims-marked")
        claims = []
        first = 0
        for at in range(1, len(rows) + 1):
            if at == len(rows) or rows[at][6] != rows[first][6] or at - first == CLAIM_LIMIT:
                name = self._index.campaigns.of_id(rows[first][0]).name
                claims.append(_as_claim(lane, name, rows[first:at]))
                first = at
        return tuple(claims)


_by_campaign_and_id = itemgetter(0, 1)


def _as_claim(lane: str, campaign: str, rows: list[_Row]) -> Claim:
    message = as_message(campaign, rows[0][6:16])
    recipients = tuple(
        Recipient(id=row[1], address=row[2], attempts=row[3], notify=row[4], orcpt=row[5], uncertain=bool(row[16]))
        for row in rows
    )
    return Claim(lane=lane, message=message, recipients=recipients)
