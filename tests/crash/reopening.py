"""Opens a store in this process as a daemon would after its end, and checks that it is of use."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from queue_store import fsck
from queue_store.records import Recovery
from queue_store.recovery import open_store
from queue_store.store import QueueStore
from tests.crash.ledger import Ledger
from tests.crash.reader import Books, has_index
from tests.crash.store_child import LANES, RESERVE, SEGMENT_SIZE, now

_READ = 3  # bodies that are read through the store; the rest is read by hand


async def reopen(folder: Path) -> Recovery:
    """Open the store, look at what it would send, and close it in order."""
    store = await QueueStore.open(folder, reserve=RESERVE, segment_size=SEGMENT_SIZE)
    try:
        stopped = {record.name for record in store.recovery.campaigns if record.halt is not None or record.held}
        for lane in LANES:
            page = await store.claim(lane, limit=10_000)
            leaked = [claim for claim in page.claims if claim.message.campaign in stopped]
            assert not leaked, f"of a campaign that is halted or held: {leaked[:3]}"
            for claim in page.claims[:_READ]:
                assert await store.load_body(claim.message)
        return store.recovery
    finally:
        await store.close()


def mend(folder: Path) -> None:
    """Open the store, and let go of it as it is: what `reopen` does at first, without its threads."""
    open_store(folder, reserve=RESERVE, segment_size=SEGMENT_SIZE, now=now).abandon()


def examine(folder: Path, ledger: Ledger, *, same_boot: bool, use: bool = True) -> Books | None:
    """Read what the end of a process left, then have the store mend itself, and compare what it was and what it is
    with what was told; give what it is, None where there was no index yet. `use`: see too that it is of use.
    """
    copy = folder.with_name(f"{folder.name}-copy")
    shutil.copytree(folder, copy)
    try:
        if not has_index(copy):
            assert 250 not in ledger.answers.values(), "the index is gone"
            assert not ledger.halted, "the index is gone"
            _open(folder, use=use)
            return None
        before = Books(copy)
        ledger.check_files(before)
        errors = [str(found) for found in fsck.check(folder) if found.severity is fsck.Severity.ERROR]
        assert not errors, f"fsck finds, before the store is opened: {errors}"
        _open(folder, use=use)
        errors = [str(found) for found in fsck.check(folder) if found.severity is fsck.Severity.ERROR]
        assert not errors, f"fsck finds, after the store was opened: {errors}"
        after = Books(folder)
        ledger.check_recovered(before, after, same_boot=same_boot)
    finally:
        shutil.rmtree(copy)
    return after


def _open(folder: Path, *, use: bool) -> None:
    if use:
        asyncio.run(reopen(folder))
    else:
        mend(folder)
