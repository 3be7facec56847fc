"""Reading a TOML file against a schema: every problem at once, each with its key, its line and what to write instead.

pydantic says where a value does not fit, tomllib what the values are; neither knows on which line a key stands, so the
text is walked once more when there is something to complain about.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mtactl.errors import ConfigError
from mtactl.settings_types import FROM_FILE, describe
from mtactl.toml_lines import KeyPath, find_lines

__all__ = ["Contradiction", "read_settings", "show_key"]

Schema = TypeVar("Schema", bound=BaseModel)

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

_NO_STARTTLS = "this version has no STARTTLS for injection: listen on a loopback address or in a trusted network"

# Keys that people will look for, with what there is to say on them.
_NOT_THERE = {
    "tls_certificate": _NO_STARTTLS,
    "tls_key": _NO_STARTTLS,
    "require_tls": _NO_STARTTLS,
    "users_file": "this version has no AUTH for injection: name the injectors' networks in relay_from",
}


@dataclass(frozen=True, slots=True, init=False)
class Contradiction:
    """Keys whose values don't go together, the one to complain about first, and why."""

    why: str
    keys: tuple[KeyPath, ...]

    def __init__(self, why: str, *keys: KeyPath) -> None:
        object.__setattr__(self, "why", why)
        object.__setattr__(self, "keys", keys)


@dataclass(frozen=True, slots=True)
class _Problem:
    key: KeyPath
    what: str


def read_settings(
    path: Path, schema: type[Schema], contradictions: Callable[[Schema], Iterable[Contradiction]]
) -> Schema:
    """Read a file and check it. Raises ConfigError: a sentence for each problem, "FILE:LINE: KEY: WHAT"."""
    text = _read(path)
    data = _parse(path, text)
    problems: list[_Problem] = []
    bad: set[KeyPath] = set()
    settings = None
    while settings is None:
        try:
            settings = schema.model_validate(data, context=FROM_FILE)
        except ValidationError as error:
            explained = (_explain(schema, details) for details in error.errors(include_url=False))
            found = {problem.key: problem for problem in explained}
            problems += found.values()
            for problem in found.values():
                # What is wrong is taken out, so that what contradicts itself in the rest is told at once as well.
                bad.add(_prune(data, problem.key))
    for contradiction in contradictions(settings):
        if not any(_touches(key, one) for key in contradiction.keys for one in bad):
            problems.append(_Problem(contradiction.keys[0], contradiction.why))
    if not problems:
        return settings
    lines = find_lines(text)
    placed = sorted(((_line(lines, problem.key), problem) for problem in problems), key=lambda pair: pair[0])
    raise ConfigError(
        [f"{path}{f':{line}' if line else ''}: {show_key(problem.key)}: {problem.what}" for line, problem in placed]
    )


def show_key(key: KeyPath) -> str:
    """Write a key as TOML would: `lane."*.example.com".rate`, `listener[0].listen`."""
    shown = ""
    for part in key:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            name = part if _BARE_KEY.fullmatch(part) else f'"{part}"'
            shown += f".{name}" if shown else name
    return shown or "the file"


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: can't be read: {error.strerror or error}"]) from error
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            [f"{path}:{line}: not UTF-8 (TOML is always UTF-8): byte 0x{raw[error.start]:02x}"]
        ) from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what = str(error)
        found = re.search(r" \(at line (\d+), column (\d+)\)$", what)
        if found is None:
            last = text.rstrip("\n").count("\n") + 1
            raise ConfigError(
                [f"{path}:{last}: not TOML: {what.removesuffix(' (at end of document)')} at the end"]
            ) from error
        line = text.split("\n")[int(found[1]) - 1].strip()
        advice = ""
        if re.match(r"\[\[?\s*lane\.[^\"'\]]*\*", line):
            advice = '; quote the pattern: [lane."*"]'
        raise ConfigError(
            [f"{path}:{found[1]}: not TOML: {what[: found.start()]}, at column {found[2]} of: {line[:100]}{advice}"]
        ) from error
    except RecursionError as error:
        raise ConfigError([f"{path}: not usable: brackets are nested too deeply"]) from error


def _explain(schema: type[BaseModel], details: ErrorDetails) -> _Problem:
    key: KeyPath = tuple(part for part in details["loc"] if part != "[key]")
    value = details["input"]
    context = details.get("ctx", {})
    match details["type"]:
        case "extra_forbidden":
            return _Problem(key, _unknown(schema, key, value))
        case "value_error":
            return _Problem(key, str(context["error"]))
        case "literal_error":
            choices = [field_choice.strip("'") for field_choice in re.findall(r"'[^']*'", context["expected"])]
            return _Problem(key, f"{describe(value)} is none of {_listed(choices)}{_guess(value, choices)}")
        case "bool_type":
            return _Problem(key, f"{describe(value)} where true or false belongs, without quotes")
        case "tuple_type":
            if isinstance(value, dict):
                return _Problem(key, f"one table where several may stand: write [[{show_key(key)}]] with two brackets")
            return _Problem(key, f"{describe(value)} where a list belongs: put it in brackets, [ … ]")
        case "model_type" | "dict_type":
            if isinstance(value, list) and value and isinstance(value[0], dict):
                return _Problem(key, f"there is only one such table: write [{show_key(key)}] with single brackets")
            return _Problem(key, f"{describe(value)} where a table belongs{_misplaced(schema, key)}")
    return _Problem(key, details["msg"])


def _unknown(schema: type[BaseModel], key: KeyPath, value: object) -> str:
    """Say of a key that the schema does not have what was probably meant."""
    name = str(key[-1])
    here = _table_at(schema, key[:-1]).model_fields
    if name in _NOT_THERE:
        return _NOT_THERE[name]
    if key[0] == "lane" and isinstance(value, dict):
        domain = ".".join(map(str, key[1:]))
        return f'a domain with dots must be quoted: [lane."{domain}"]'
    guess = _guess(name, list(here))
    if guess:
        return f"no such key{guess}"
    elsewhere = [show_key(path) for path in _all_keys(schema, ()) if path[-1] == name]
    if elsewhere:
        return f"no such key here; there is {_listed(elsewhere)}"
    return f"no such key; there are {', '.join(here)}"


def _misplaced(schema: type[BaseModel], key: KeyPath) -> str:
    """Give a hint where a key stands beside the tables that it belongs in: `lane.rate` for `lane."*".rate`."""
    if len(key) == 2 and key[0] == "lane" and key[1] in _table_at(schema, key).model_fields:
        return f': limits belong in a table for some lanes, such as [lane."*"], with {key[1]} below it'
    return ""


def _guess(written: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(written).lower().replace("-", "_"), known, 1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _listed(words: Sequence[str]) -> str:
    return " or ".join(f'"{word}"' for word in words)


def _table_at(schema: type[BaseModel], key: KeyPath) -> type[BaseModel]:
    """Give the schema of the innermost table on the way of a key."""
    table = schema
    for part in key:
        if isinstance(part, str) and part in table.model_fields:
            inner = _table_in(table.model_fields[part].annotation)
            if inner is None:
                break
            table = inner
    return table


def _table_in(annotation: object) -> type[BaseModel] | None:
    """Find the schema in a field's type: itself, or what a tuple or a dict of tables holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _table_in(inner)) is not None), None)


def _all_keys(schema: type[BaseModel], prefix: KeyPath) -> Iterator[KeyPath]:
    for name, field in schema.model_fields.items():
        inner = _table_in(field.annotation)
        if inner is None:
            yield (*prefix, name)
        else:
            yield from _all_keys(inner, (*prefix, name, "*") if name == "lane" else (*prefix, name))


def _prune(data: dict[str, Any], key: KeyPath) -> KeyPath:
    """Take a key out of the data (for an item of a list: the list) and give what was taken out."""
    end = len(key)
    while end > 1 and isinstance(key[end - 1], int):
        end -= 1
    container: Any = data
    for part in key[: end - 1]:
        container = container[part]
    container.pop(key[end - 1], None)
    return key[:end]


def _touches(one: KeyPath, other: KeyPath) -> bool:
    """Tell whether one key is the other, or a part of it."""
    return one[: len(other)] == other or other[: len(one)] == one


def _line(lines: Mapping[KeyPath, int], key: KeyPath) -> int:
    """Give the line of a key, or of the nearest table around it; 0 where the file says nothing of it."""
    for end in range(len(key), 0, -1):
        if key[:end] in lines:
            return lines[key[:end]]
    return 0
