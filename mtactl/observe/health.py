"""Whether the node is alive, and whether it takes mail; for load balancers and service managers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Answer", "Health"]


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and a text of one line a reason."""

    status: int
    text: str


class Health:
    """Answers from `problems`: a sentence for each reason why no mail can be taken now, none when it can."""

    def __init__(self, problems: Callable[[], Sequence[str]]) -> None:
        self._problems = problems

    def alive(self) -> Answer:
        """Say that the event loop answers, whatever else is wrong: restarting would not mend a full disk."""
        return Answer(200, "alive\n")

    def ready(self) -> Answer:
        """Say whether mail is taken, or else why not."""
        problems = self._problems()
        if not problems:
            return Answer(200, "ready\n")
        return Answer(503, "".join(f"{problem}\n" for problem in problems))
