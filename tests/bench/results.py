"""The results as a file: the machine, and for each case when it ran, at which scale, its figures and how it failed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench.figures import Figure

__all__ = ["CaseResult", "Results", "load_results", "save_results"]

# What makes figures comparable: results of other machines are not put into one file.
_IDENTITY = ("cpu", "cores", "memory_gib", "kernel", "python", "python_build", "uvloop")


@dataclass(slots=True, kw_only=True)
class CaseResult:
    """One run of one case. `seconds` is how long it took; `load` the machine's when it began; `failed` why it ended."""

    at: str
    scale: float
    seconds: float = 0.0
    load: float = 0.0
    figures: list[Figure] = field(default_factory=list)
    failed: str | None = None


@dataclass(slots=True)
class Results:
    """All cases by name."""

    machine: dict[str, object]
    cases: dict[str, CaseResult] = field(default_factory=dict)

    @property
    def failed(self) -> list[str]:
        """Name the cases that failed."""
        return [name for name, case in self.cases.items() if case.failed is not None]

    def same_machine(self, other: Results) -> bool:
        """Whether the other's figures were measured on this machine, as it is now."""
        return all(self.machine.get(key) == other.machine.get(key) for key in _IDENTITY)

    def add_missing(self, earlier: Results) -> None:
        """Keep what an earlier run measured and this one did not."""
        self.cases = {**earlier.cases, **self.cases}


def load_results(path: Path) -> Results:
    """Read a file of results. Raises OSError, ValueError, KeyError and TypeError where it is none."""
    document = json.loads(path.read_text())
    cases = {}
    for name, case in document["cases"].items():
        figures = [Figure(**{**figure, "samples": tuple(figure["samples"])}) for figure in case.pop("figures")]
        cases[name] = CaseResult(**case, figures=figures)
    return Results(document["machine"], cases)


def save_results(results: Results, path: Path) -> None:
    """Write a file of results, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": results.machine, "cases": {name: asdict(case) for name, case in results.cases.items()}}
    new = path.with_suffix(".new")
    new.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    new.replace(path)
