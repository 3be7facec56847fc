"""Messages for the store's tests, and the audit of its books from the files alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import apsw

from queue_store.body_records import segment_files
from queue_store.records import Claim, NewMessage, NewRecipient, Outcome, Settlement

BODY = b"Subject: hello\r\n\r\nhello\r\n.\r\n"


def new_message(
    campaign: str = "c1",
    lanes: str | Sequence[str] = "example.com",
    *,
    recipients: int = 1,
    at: int = 1_000,
    sender: str = "bounces@example.org",
    body: bytes = BODY,
    claimed: bool = False,
    due: int | None = None,
) -> NewMessage:
    """Make a message with so many recipients in each lane."""
    lanes = [lanes] if isinstance(lanes, str) else lanes
    return NewMessage(
        campaign=campaign,
        reverse_path=sender,
        received_at=at,
        body=(body[:7], memoryview(body)[7:]),
        recipients=[
            NewRecipient(address=f"user{number}@{lane}", lane=lane, claimed=claimed, due=due)
            for lane in lanes
            for number in range(recipients)
        ],
    )


def settled(claim: Claim, outcome: Outcome | None, **facts) -> list[Settlement]:
    """Make a settlement for each recipient of a claim."""
    return [
        Settlement(
            recipient_id=recipient.id,
            message_id=claim.message.id,
            campaign=claim.message.campaign,
            outcome=outcome,
            **{"at": 2_000, "code": 250, "reply": "2.0.0 Ok", "peer": "mx[192.0.2.1]:25", **facts},
        )
        for recipient in claim.recipients
    ]


def pairs(claims: Iterable[Claim]) -> list[tuple[str, int]]:
    """Give the claims as `unclaim` takes them."""
    return [(claim.message.campaign, recipient.id) for claim in claims for recipient in claim.recipients]


def rows(folder: Path, sql: str, *bindings) -> list[tuple]:
    """Ask the index of a store, open or not, from outside."""
    db = apsw.Connection(str(folder / "queue.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return db.execute(sql, bindings).fetchall()
    finally:
        db.close()


IMBALANCES = {
    "accepted = live + outcomes": """
        SELECT name, accepted, live, gone FROM (
            SELECT name, accepted, delivered + bounced + expired + dropped + unknown AS gone,
                (SELECT count(*) FROM recipients AS r WHERE r.campaign_id = c.id) AS live FROM campaigns AS c)
        WHERE accepted <> live + gone""",
    "deferred and scheduled": """
        SELECT name FROM campaigns AS c
        WHERE deferred <> (SELECT count(*) FROM recipients AS r WHERE r.campaign_id = c.id AND r.state = 1)
        OR scheduled <> (SELECT count(*) FROM recipients AS r WHERE r.campaign_id = c.id AND r.state = 2)""",
    "no more outcomes than counted": """
        SELECT name FROM campaigns AS c WHERE delivered + bounced + expired + dropped + unknown
            < (SELECT count(*) FROM outcomes AS o WHERE o.campaign_id = c.id)""",
    "the living of a message": """
        SELECT id FROM messages AS m WHERE live = 0 OR live <> (
            SELECT count(*) FROM recipients AS r
            WHERE r.campaign_id = m.campaign_id AND r.id > m.id AND r.id <= m.id + m.recipients
            AND r.message_id = m.id)""",
    "recipients have a message": """
        SELECT id FROM recipients WHERE message_id NOT IN (SELECT id FROM messages)""",
    "the living of a segment": """
        SELECT id FROM segments AS s
        WHERE live_messages <> (SELECT count(*) FROM messages AS m WHERE m.segment = s.id)
        OR live_bytes <> (SELECT total(size) FROM messages AS m WHERE m.segment = s.id)""",
    "messages have a segment": """
        SELECT id FROM messages WHERE segment NOT IN (SELECT id FROM segments)""",
    "due where it waits for a time": """
        SELECT id FROM recipients WHERE (state IN (1, 2)) <> (due IS NOT NULL)""",
    "the file": "SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
}


def check_index(folder: Path) -> None:
    """Fail if anything in the index contradicts anything else in it."""
    for what, sql in IMBALANCES.items():
        assert rows(folder, sql) == [], what


def check_books(folder: Path) -> None:
    """Fail if anything in the index contradicts anything else in it, or the segment files."""
    check_index(folder)
    files = segment_files(folder / "segments")
    for segment, length, living in rows(folder, "SELECT id, length, live_messages FROM segments"):
        if living:
            assert files[segment].stat().st_size >= length
