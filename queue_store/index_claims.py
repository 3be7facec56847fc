"""Claims: a page of a lane's READY recipients, fair over its campaigns.

Mail without a campaign comes first. Then the campaigns that have READY recipients in the lane are found by skipping
through the index from one to the next, from the cursor on and around; each gives a like share of the page, and what
some can't fill the others may. A page looks at 64 campaigns at most; the next one goes on behind them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from queue_store.index import Index, as_message, ids
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
_READ = """
SELECT json_group_array(json_array(r.campaign_id, r.id, r.address, r.attempts, r.notify, r.orcpt, m.id, m.reverse_path,
    m.received_at, m.segment, m.offset, m.size, m.eight_bit, m.smtputf8, m.ret, m.envid, r.uncertain))
FROM (
    SELECT campaign_id, id, message_id, address, attempts, notify, orcpt, uncertain FROM recipients INDEXED BY ready
    WHERE state = 0 AND lane_id = ? AND campaign_id = ? ORDER BY id LIMIT ?
) AS r CROSS JOIN messages AS m ON m.id = r.message_id
"""
_MARK = """
UPDATE recipients SET state = 3 WHERE campaign_id = ? AND id IN (SELECT value FROM carray(?))
"""
_EXISTS = (
    "SELECT EXISTS (SELECT 1 FROM recipients INDEXED BY ready WHERE state = 0 AND lane_id = ? AND campaign_id = ?)"
)

_Row = list[Any]


def claim(index: Index, lane: str, limit: int, cursor: int) -> ClaimPage:
    """Mark a page as CLAIMED and give it."""
    lane_id = index.lanes.find(lane)
    if lane_id is None or limit < 1:
        return ClaimPage(lane=lane, claims=(), cursor=cursor, more=False, held=False)
    page = _Page(index, lane, lane_id)
    none = index.campaigns.of_id(0)
    more = held = False
    if none.held or none.halted:
        held = none.held and page.has(0)
    else:
        more = page.take(0, limit) == limit and page.has(0)
    room = limit - page.taken
    if room <= 0:
        more = more or bool(_campaigns_from(index, lane_id, cursor, 1)[0])
        return ClaimPage(lane=lane, claims=page.claims(), cursor=cursor, more=more, held=held)
    campaigns, others, passed_held = _campaigns_from(index, lane_id, cursor, _CAMPAIGNS_IN_PAGE)
    more = more or others
    # A share each, then what is left to those that had more than their share.
    waiting = campaigns
    first_round = True
    while waiting and room > 0:
        share = -(-room // len(waiting))
        hungry = []
        for at, campaign_id in enumerate(waiting):
            if room <= 0:
                more = True
                hungry.extend(waiting[at:])
                break
            asked = min(share, room)
            got = page.take(campaign_id, asked)
            room -= got
            if first_round:
                cursor = campaign_id
            if got == asked:
                hungry.append(campaign_id)
        waiting = hungry
        first_round = False
    more = more or any(page.has(campaign_id) for campaign_id in waiting)
    return ClaimPage(lane=lane, claims=page.claims(), cursor=cursor, more=more, held=held or passed_held)


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
    """The recipients that a claim has taken so far."""

    def __init__(self, index: Index, lane: str, lane_id: int) -> None:
        self._index = index
        self._lane = lane
        self._lane_id = lane_id
        self._claims: list[Claim] = []
        self.taken = 0

    def has(self, campaign_id: int) -> bool:
        return bool(self._index.value(_EXISTS, (self._lane_id, campaign_id)))

    def take(self, campaign_id: int, limit: int) -> int:
        """Claim the campaign's next recipients; give how many there were."""
        rows: list[_Row] = msgspec.json.decode(self._index.value(_READ, (self._lane_id, campaign_id, limit)))
        if not rows:
            return 0
        self._index.db.execute(_MARK, (campaign_id, ids(row[1] for row in rows)))
        name = self._index.campaigns.of_id(campaign_id).name
        first = 0
        for at in range(1, len(rows) + 1):
            if at == len(rows) or rows[at][6] != rows[first][6] or at - first == CLAIM_LIMIT:
                self._claims.append(_as_claim(self._lane, name, rows[first:at]))
                first = at
        self.taken += len(rows)
        return len(rows)

    def claims(self) -> tuple[Claim, ...]:
        return tuple(self._claims)


def _as_claim(lane: str, campaign: str, rows: list[_Row]) -> Claim:
    message = as_message(campaign, rows[0][6:16])
    recipients = tuple(
        Recipient(id=row[1], address=row[2], attempts=row[3], notify=row[4], orcpt=row[5], uncertain=bool(row[16]))
        for row in rows
    )
    return Claim(lane=lane, message=message, recipients=recipients)
