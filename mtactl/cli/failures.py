"""Why a command ends without having done what was asked. Each failure has its exit code (CONTRACT.md §3)."""

from __future__ import annotations

from collections.abc import Sequence

from mtactl.control.types import Problem

__all__ = ["Failure", "NotCompleted", "NotConfirmed", "NotPermitted", "Refused", "Unreachable"]


class Failure(Exception):
    """A command ends with `exit_code`, after `message` and then each of `details` on a line of stderr."""

    exit_code = 1

    def __init__(self, message: str, *, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)


class Refused(Failure):
    """The daemon says no. `problem` is what it says."""

    def __init__(self, problem: Problem) -> None:
        # Where the daemon lists what is wrong, its sentence has all of the list again.
        message = f"{problem.title}." if problem.problems else problem.detail or f"{problem.title}."
        super().__init__(message, details=problem.problems)
        self.problem = problem

    @property
    def kind(self) -> str:
        """The end of the problem's type, such as "unknown-campaign"."""
        return self.problem.type.removeprefix("urn:mtactl:problem:")


class NotConfirmed(Failure):
    """What can't be undone was not confirmed; nothing was sent."""

    exit_code = 2


class Unreachable(Failure):
    """The daemon can't be reached, does not answer in time, or hangs up before the end of its answer."""

    exit_code = 3


class NotPermitted(Failure):
    """The caller may not do that."""

    exit_code = 4


class NotCompleted(Failure):
    """The daemon has accepted the command, and has not completed it in the time given."""

    exit_code = 5
