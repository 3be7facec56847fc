"""How a command of the client ends when it does not end well. Each way has its exit code (CONTRACT.md §3)."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import msgspec

from mtactl.control.types import Problem

__all__ = ["ExitCode", "Failure", "NotPermitted", "ReaderGone", "Refused", "Unconfirmed", "Unfinished", "Unreachable"]


class ExitCode(enum.IntEnum):
    """The exit codes. INTERRUPTED is the shell's word for Ctrl-C, where nothing else was agreed on."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_PERMITTED = 4
    UNFINISHED = 5
    INTERRUPTED = 130


class Failure(Exception):
    """The command did not do what was asked. `sentence` says why, `hints` what to look at, a line each."""

    code = ExitCode.REFUSED
    kind = "failed"
    title = "The command failed"

    def __init__(self, sentence: str, *hints: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hints: Sequence[str] = hints

    def document(self) -> bytes:
        """Give the failure as a problem document, for `--json`. No HTTP status: it was found on this side."""
        facts: dict[str, Any] = {"type": f"urn:mtactl:problem:{self.kind}", "title": self.title}
        facts |= {"detail": self.sentence, "problems": list(self.hints)}
        return msgspec.json.encode(facts)


class Refused(Failure):
    """The daemon says no."""

    def __init__(self, problem: Problem, raw: bytes) -> None:
        detail = problem.detail or problem.title
        # A detail that strings the problems together would say them twice.
        shown = problem.title if problem.problems and all(text in detail for text in problem.problems) else detail
        super().__init__(shown, *problem.problems)
        self.problem = problem
        self._raw = raw
        if problem.status == 403:
            self.code = ExitCode.NOT_PERMITTED

    @property
    def is_unknown_campaign(self) -> bool:
        """Whether the daemon does not know the campaign."""
        return self.problem.type == "urn:mtactl:problem:unknown-campaign"

    def suggest(self, campaigns: Sequence[str]) -> None:
        """Say which campaigns may have been meant, or where to look."""
        if campaigns:
            self.hints = (*self.hints, f"Did you mean {' or '.join(campaigns)}?")
        else:
            self.hints = (*self.hints, "mtactl campaigns lists those that are known.")

    def document(self) -> bytes:
        """Give the problem document as the daemon wrote it."""
        return self._raw


class Unconfirmed(Failure):
    """What can't be undone was not confirmed; nothing was sent."""

    code = ExitCode.USAGE
    kind = "not-confirmed"
    title = "The command is not confirmed"


class Unreachable(Failure):
    """The daemon can't be reached, or stopped answering. `asked` says that it may have had the request by then."""

    asked = False

    code = ExitCode.UNREACHABLE
    kind = "unreachable"
    title = "The daemon can't be reached"


class NotPermitted(Failure):
    """The control socket may not be opened by this user."""

    code = ExitCode.NOT_PERMITTED
    kind = "forbidden"
    title = "Not permitted"


class Unfinished(Failure):
    """The daemon took the command, and it was not completed while this command waited."""

    code = ExitCode.UNFINISHED
    kind = "unfinished"
    title = "Accepted, but not completed"


class ReaderGone(Exception):
    """Whoever read our output has had enough, as `head` does. No failure: there is no one left to tell."""
