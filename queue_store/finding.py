"""What a check of the files finds."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Finding", "Severity"]


class Severity(enum.Enum):
    """How bad it is. An ERROR says that a count, a row or a body is not what it must be. A NOTE is what a killed
    process or a power cut leaves behind by rights; opening the store sees to it.
    """

    ERROR = "error"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found: `where` names the file and the row or the octet, `what` is a sentence."""

    severity: Severity
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.severity.value}: {self.where}: {self.what}"
