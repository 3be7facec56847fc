"""One damaged store, opened, drained and judged.

What is promised, whatever was damaged: no other error than the store's own; no halt is forgotten (else it does not
open); nothing of a halted or held campaign is handed out; nothing is handed out that is not what was accepted, to the
octet; the books balance and no recipient of the accepted is missing from them; fsck sees damage that costs anything.
What was not damaged costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from queue_store.errors import HaltsLost, StoreCorrupt, StoreDamaged, StoreError, StoreFailed
from queue_store.fsck import Severity, check
from queue_store.mending import note_damage
from queue_store.records import Claim, Outcome, Settlement
from queue_store.store import QueueStore
from tests.corruption.damage import damage
from tests.corruption.stores import CLOCK, LANES, SECOND, Truth
from tests.unit.store_books import check_index, new_message

_OPENINGS = 4


@dataclass(slots=True)
class Verdict:
    """What came of one trial."""

    told: str
    kinds: set[str]
    opened: bool = False
    refused: str = ""
    sendable: int = 0
    sent: Counter[int] = field(default_factory=Counter)
    damaged_bodies: set[int] = field(default_factory=set)
    again: int = 0  # sent though it was done
    rebuilt: bool = False


class Broken(AssertionError):
    """A promise was not kept."""


def run_trial(source: Path, truth: Truth, work: Path, seed: int, kinds: tuple[str, ...] | None = None) -> Verdict:
    """Damage a copy of a store and see what becomes of it. Raises Broken."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work)
    draw = random.Random(seed)
    done = damage(work, draw, kinds)
    told = "; ".join(text for _, _, text in done)
    verdict = Verdict(told=told, kinds={kind for kind, _, _ in done})
    verdict.sendable = len(truth.sendable())
    try:
        found = _fsck(work)
        asyncio.run(asyncio.wait_for(_live(work, truth, verdict), 120))
        _judge(work, truth, verdict, found)
    except Exception as error:
        raise Broken(f"seed {seed}, {source.name}: {told}: {type(error).__name__}: {error}") from error
    return verdict


def _fsck(folder: Path) -> list[str] | None:
    """Check; None where it says that it can't."""
    try:
        return [str(found) for found in check(folder) if found.severity is Severity.ERROR]
    except (OSError, StoreError):
        return None


async def _live(folder: Path, truth: Truth, verdict: Verdict) -> None:
    """Open the store, as often as it takes, and send all that there is."""
    for _ in range(_OPENINGS):
        try:
            store = await QueueStore.open(folder, reserve=1 << 16, segment_size=1 << 14, now=lambda: CLOCK)
        except (HaltsLost, StoreCorrupt) as error:
            verdict.refused = f"{type(error).__name__}: {error}"
            return
        verdict.opened = True
        verdict.rebuilt |= any("made anew" in text for text in store.recovery.repairs)
        try:
            await _check_promises(store, truth)
            await _drain(store, truth, verdict)
            await store.close()
        except (StoreDamaged, StoreFailed):
            with contextlib.suppress(StoreError):
                await store.close()
            continue
        return
    raise Broken(f"it was opened {_OPENINGS} times, and is damaged still")


async def _check_promises(store: QueueStore, truth: Truth) -> None:
    records = {record.name: record for record in store.recovery.campaigns}
    halted = {name for name, record in records.items() if record.halt is not None}
    assert truth.halted <= halted, f"forgotten: {truth.halted - halted}"
    for name in sorted(truth.halted):
        try:
            await store.append(new_message(name))
        except StoreError as error:
            if isinstance(error, StoreFailed):
                raise
        else:
            raise Broken(f"mail of {name} was taken")


async def _drain(store: QueueStore, truth: Truth, verdict: Verdict) -> None:
    while (await store.promote(CLOCK + 60 * SECOND)).more:
        pass
    for lane in LANES:
        cursor = 0
        more = True
        while more:
            page = await store.claim(lane, limit=200, cursor=cursor)
            for claim in page.claims:
                await _send(store, claim, truth, verdict)
            cursor, more = page.cursor, bool(page.claims)


async def _send(store: QueueStore, claim: Claim, truth: Truth, verdict: Verdict) -> None:
    outcome = Outcome.DELIVERED
    message = claim.message
    assert message.campaign not in truth.halted, f"of halted {message.campaign}"
    try:
        body = store.read_body_nowait(message)
        if body is None:
            body = await store.load_body(message)
    except StoreDamaged:
        raise
    except StoreCorrupt:
        body, outcome = None, Outcome.BOUNCED
    for recipient in claim.recipients:
        mail = truth.waiting.get(recipient.id) or truth.done.get(recipient.id)
        assert mail is not None, f"recipient {recipient.id} was never accepted"
        assert mail.campaign not in truth.halted | truth.held, f"of {mail.campaign}"
        asked = (message.campaign, message.id, message.reverse_path, recipient.address)
        assert asked == (mail.campaign, mail.message, mail.sender, mail.address), f"{asked} is not {mail}"
        if body is None:
            verdict.damaged_bodies.add(recipient.id)
            continue
        assert body == mail.body, f"another body of message {message.id}"
        verdict.sent[recipient.id] += 1
        verdict.again += recipient.id in truth.done
    await store.settle(
        [
            Settlement(
                recipient_id=recipient.id,
                message_id=message.id,
                campaign=message.campaign,
                outcome=outcome,
                at=CLOCK,
            )
            for recipient in claim.recipients
        ]
    )


def _judge(folder: Path, truth: Truth, verdict: Verdict, found: list[str] | None) -> None:
    kinds = verdict.kinds
    harmless = kinds <= {"attempts", "reserve", "lock", "halts"}
    if not verdict.opened:
        assert not harmless | (kinds <= {"segments"}), verdict.refused
        assert found is None or found, f"fsck saw nothing, and it does not open: {verdict.refused}"
        return
    sendable = truth.sendable()
    if harmless:
        assert set(verdict.sent) == set(sendable), "not all was sent"
        assert not verdict.again and max(verdict.sent.values()) == 1, "sent twice"
    lost = set(sendable) - set(verdict.sent)
    if kinds == {"segments"}:
        assert lost == verdict.damaged_bodies, "more is lost than bodies that are damaged"
    if lost and found is not None:
        assert found or "queue.db-wal deleted" in verdict.told or "cut" in verdict.told, f"fsck saw nothing: {lost}"
    after = _errors(folder)
    if after:  # damage that nothing has read yet: looked for on demand
        note_damage(folder, "a test")
        asyncio.run(_open_and_close(folder, truth))
        after = _errors(folder)
    assert after == [], after
    check_index(folder)


def _errors(folder: Path) -> list[str]:
    found = _fsck(folder)
    assert found is not None
    return [text for text in found if ".seg" not in text]


async def _open_and_close(folder: Path, truth: Truth) -> None:
    store = await QueueStore.open(folder, reserve=1 << 16, segment_size=1 << 14, now=lambda: CLOCK)
    await _check_promises(store, truth)
    await store.close()
