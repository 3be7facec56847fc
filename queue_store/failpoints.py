"""Places between two writes of the store at which a test has the process kill itself: MTACTL_FAILPOINT=name[:nth].

The variable is read once, when the program starts. Where it is not set, a failpoint is a look at a constant. Where it
is, the process ends with SIGKILL the nth time that it comes to the point of that name; nothing is flushed or said.
"""

from __future__ import annotations

import os
import signal
from typing import Final

__all__ = ["ARMED", "FAILPOINTS", "reach"]

# By name: what has been written when it is reached, and, where it is not plain, what has not.
FAILPOINTS: Final = {
    # opening
    "folder-made": "the store's folder, not yet synced",
    "lock-emptied": "the lock file, without the process id",
    "lock-taken": "the lock file",
    "index-file-made": "an index file without a schema",
    "index-log-begun": "an index file in WAL mode without a schema",
    "index-schema-written": "the schema, not its commit",
    "index-schema-made": "the schema",
    "segments-folder-made": "the folder of the segments, not yet synced",
    "segments-folder-synced": "the folder of the segments",
    # recovery
    "recover-unlinked": "a segment that no commit knows is unlinked",
    "recover-cut": "a torn tail is cut off, not synced",
    "recover-cut-synced": "a torn tail is cut off",
    "recover-segments-done": "the segments fit the index",
    "attempts-allocated": "the blocks of a new attempt log",
    "recovery-written": "what became of the claimed recipients, not its commit",
    "recovery-committed": "what became of the claimed recipients; the attempt log has it too",
    "attempts-slot-cleared": "one slot of the attempt log is cleared",
    "attempts-cleared": "all slots are cleared, the boot is not named",
    "attempts-named": "the boot is named in the attempt log",
    # the reserve
    "reserve-file-made": "the reserve's file without blocks",
    "reserve-restored": "the reserve's blocks",
    "reserve-spent": "the reserve is unlinked",
    # a commit
    "segment-file-made": "a new segment's file, empty",
    "segment-piece-written": "a part of a batch's bodies",
    "bodies-written": "a batch's bodies, not its rows",
    "segment-synced": "a batch's bodies; a new segment's folder is not synced",
    "bodies-synced": "a batch's bodies, durable",
    "batch-written": "a batch's rows, not their commit (where it is one write, that is the commit)",
    "batch-committed": "a batch; nobody was told",
    "batch-rolled-back": "a batch's rows are rolled back, its bodies are there",
    "segment-cut-back": "a batch's rows and bodies are rolled back",
    "segment-sealed": "a batch; its segment was full and is closed",
    "claims-marked": "a page of claims, not its commit",
    "claims-committed": "a commit of claims",
    "walk-committed": "a chunk of a walk",
    # halts
    "halt-inserted": "a halt's row",
    "halt-marked": "a halt's row, and the campaign's",
    "halt-noted": "a halt's rows, not their commit",
    "halt-committed": "a halt; nobody was told",
    "halt-step-written": "a step of a halt, not its commit",
    "hold-written": "a hold or a release, not its commit",
    "drop-chunk-written": "a chunk of a drop, not its commit",
    # the attempt log
    "slot-begun": "the fields of a slot, which is still free",
    "slot-open": "a slot that is open",
    "slot-ending": "a slot whose message is ending",
    "slot-reply-written": "the reply of an outcome",
    "slot-outcome-written": "all fields of an outcome; the slot does not vouch for them",
    "slot-done": "a slot with its outcome",
    "slot-freed": "a slot whose outcome is durable is free",
    "attempts-grown": "more blocks of the attempt log, not in use",
    "attempts-mapped": "more slots of the attempt log",
    # upkeep
    "log-copied": "the log is copied into the index's file, beside the commits",
    "log-copied-synced": "the log is copied beside the commits, and the file is synced",
    "log-checkpointed": "the log is copied",
    "segments-forgotten": "the index has forgotten dead segments, whose files are there",
    "segment-unlinked": "a dead segment is unlinked",
    "copy-appended": "bodies that were copied forward, durable; nothing points at them",
    "copy-pointed": "rows that point at the copies, not their commit",
    "copy-committed": "rows that point at the copies",
    "pages-vacuumed": "free pages of the index are given back",
    # an orderly end
    "claims-returned": "the claimed recipients are ready again, not marked clean",
    "clean-marked": "the mark of an orderly end",
    "clean-log-copied": "the mark of an orderly end, and no log",
    "segments-closed": "the last segment is closed",
    "index-closed": "the index is closed",
}


def _parse(text: str) -> tuple[str, int]:
    name, _, number = text.partition(":")
    if name and (name not in FAILPOINTS or not (number or "1").isdigit()):
        raise ValueError(f"MTACTL_FAILPOINT: there is no failpoint {text}")
    return name, int(number or "1")


_name, _left = _parse(os.environ.get("MTACTL_FAILPOINT", ""))

ARMED: Final = bool(_name)


def reach(name: str) -> None:
    """Come to a failpoint. To be asked only if ARMED."""
    global _left  # noqa: PLW0603 - one process, one point
    if name == _name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
