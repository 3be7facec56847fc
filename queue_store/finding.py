"""What a check of the files finds, what the daemon does about it, and what a person can do."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

__all__ = ["Finding", "Kind", "Severity"]


class Severity(enum.Enum):
    """How bad it is. An ERROR says that a count, a row or a body is not what it must be. A NOTE is what a killed
    process or a power cut leaves behind by rights; opening the store sees to it.
    """

    ERROR = "error"
    NOTE = "note"


class Kind(enum.Enum):
    """The kinds of findings: a name, what the daemon does about it, what a person can do."""

    BOOKS = (
        "books",
        "It goes on with what the index says, and does not mend this: no fault of a disk is known that comes out so.",
        (
            "Keep a copy of the folder and report it. To have the index made anew from its rows, with counts that fit"
            " them, make an empty file `damaged` in the folder before the next start."
        ),
    )
    INDEX = (
        "index",
        (
            "It makes the index anew from what is sound, once it meets the damage, and puts the damaged files in"
            " `quarantine`. Halts come back from their copy, the file `halts`; without either it begins nothing."
        ),
        (
            "To have it done at the next start, make an empty file `damaged` in the folder. To lose nothing, restore"
            " the folder from a backup instead; and look at the disk (smartctl, the kernel's log)."
        ),
    )
    LOG = (
        "log",
        (
            "At the next start it makes the index anew, with all pages in the log that are sound, and puts the damaged"
            " files in `quarantine`."
        ),
        "Start it. Look at the disk (smartctl, the kernel's log).",
    )
    TORN = (
        "torn",
        "It takes it away at the next start: no one was told that it is there.",
        "Nothing is to be done: a killed process or a power cut leaves this behind.",
    )
    BODY = (
        "body",
        (
            "It sends nothing of it: when the mail is due, its recipients are bounced (554 5.3.0), and what is left of"
            " the body is put in `quarantine`. All other mail goes out."
        ),
        "Restore the file from a backup, or inject the mail again. Look at the disk (smartctl, the kernel's log).",
    )
    STRAY = (
        "stray",
        "It removes the file at the next start: nothing points at it.",
        "Nothing is to be done.",
    )
    HALTS = (
        "halts",
        "It takes the halts of both, the index and this copy, and writes the copy anew at the next start.",
        "Start it. If the index is damaged too, restore `halts` from a backup before.",
    )
    HALTS_LOST = (
        "halts-lost",
        "It does not start: what it began could be of a campaign that was halted.",
        (
            "Restore `halts`, or the whole folder, from a backup. Or, to go on without the halts that are lost, make an"
            " empty file `accept-lost-halts` in the folder, start it, and halt again what was halted."
        ),
    )
    ATTEMPTS = (
        "attempts",
        "It believes nothing of it: recipients that were claimed wait again; of halted campaigns they are `unknown`.",
        "Nothing is to be done. Some mail may go out twice.",
    )
    ASIDE = (
        "set-aside",
        "It leaves the folder alone, and says so in its status, until someone has looked at it.",
        "Take from it what is wanted, and remove it.",
    )

    def __init__(self, label: str, daemon: str, person: str) -> None:
        self.label = label
        self.daemon = daemon
        self.person = person


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found: `where` names the file and the row or the octet, `what` is a sentence. `affects` has a sentence
    each about the mail, the campaigns or the recipients that are meant, as far as they are known.
    """

    severity: Severity
    where: str
    what: str
    kind: Kind = field(default=Kind.BOOKS, compare=False)
    affects: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"{self.severity.value}: {self.where}: {self.what}"
