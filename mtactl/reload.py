"""What a changed configuration comes to while the daemon runs: which keys are applied, and which wait for a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from mtactl.errors import ConfigError
from mtactl.settings import LaneSettings, Settings, contradictions
from mtactl.settings_file import show_key
from mtactl.toml_lines import KeyPath

__all__ = ["AT_START", "ReloadPlan", "plan_reload"]

# What is read at the start only; everything else is applied by a reload.
AT_START: tuple[KeyPath, ...] = (
    ("node",),
    ("store", "path"),
    ("store", "reserve"),
    ("control", "socket"),
    ("control", "mode"),
    ("metrics",),
    ("listener",),
    ("campaign", "headers"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadPlan:
    """The settings to go on with, the keys that change with them, and those that have changed in the file only."""

    settings: Settings
    applied: tuple[str, ...]
    needs_restart: tuple[str, ...]


def plan_reload(path: Path, running: Settings, written: Settings) -> ReloadPlan:
    """Plan the change to what the file says now. What is read at the start stays as it was, and so is told each time.

    Raises ConfigError where what can be applied does not go together with what can't.
    """
    applied: list[str] = []
    later: list[str] = []
    for key in _differences(running, written, ()):
        (later if any(key[: len(start)] == start for start in AT_START) else applied).append(show_key(key))
    settings = written
    for start in AT_START:
        settings = _keep(settings, running, start)
    clashes = [
        f"{path}: {show_key(clash.keys[0])}: with what needs a restart first ({', '.join(later)}): {clash.why}"
        for clash in contradictions(settings)
    ]
    if clashes:
        raise ConfigError(clashes)
    return ReloadPlan(settings=settings, applied=tuple(sorted(applied)), needs_restart=tuple(sorted(later)))


def _keep(settings: Settings, running: Settings, key: KeyPath) -> Settings:
    """Put what runs in the place of a section, or of one key of it."""
    section, *inner = (str(part) for part in key)
    kept = getattr(running, section)
    if inner:
        kept = getattr(settings, section).model_copy(update={inner[0]: getattr(kept, inner[0])})
    return settings.model_copy(update={section: kept})


def _differences(before: BaseModel, after: BaseModel, key: KeyPath) -> Iterator[KeyPath]:
    """Give the keys of two tables whose values differ, as far in as both have them."""
    for name in type(before).model_fields:
        one, other, here = getattr(before, name), getattr(after, name), (*key, name)
        if name == "lane":
            yield from _lane_differences(one, other)
        elif one == other:
            continue
        elif isinstance(one, BaseModel):
            yield from _differences(one, other, here)
        elif len(one_tables := _tables(one)) == len(other_tables := _tables(other)) > 0:
            for number, (first, second) in enumerate(zip(one_tables, other_tables, strict=True)):
                yield from _differences(first, second, (*here, number))
        else:
            yield here


def _lane_differences(before: Mapping[str, LaneSettings], after: Mapping[str, LaneSettings]) -> Iterator[KeyPath]:
    """Compare what the tables set themselves: a key that is left out is inherited, whatever its value."""
    for pattern in before.keys() | after.keys():
        if pattern not in before or pattern not in after:
            yield ("lane", pattern)
            continue
        one, other = before[pattern], after[pattern]
        for name in one.model_fields_set | other.model_fields_set:
            is_set = name in one.model_fields_set, name in other.model_fields_set
            if not all(is_set) or getattr(one, name) != getattr(other, name):
                yield ("lane", pattern, name)


def _tables(value: object) -> Sequence[BaseModel]:
    """Give the tables of an array of tables; none for any other value."""
    return [item for item in value if isinstance(item, BaseModel)] if isinstance(value, tuple) else ()
