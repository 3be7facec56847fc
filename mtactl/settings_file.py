"""Reading a TOML file against a schema: every problem at once, each with its key, its line and what to write instead.

pydantic says where a value does not fit, tomllib what the values are; neither knows on which line a key stands, so the
text is walked once more when there is something to complain about.
"""

from __future__ import annotations

import ast
import codecs
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
from mtactl.toml_lines import KeyPath, find_lines, find_repetition

__all__ = ["Contradiction", "read_settings", "show_key"]

Schema = TypeVar("Schema", bound=BaseModel)

_LARGEST = 16 << 20  # bytes
_BOMS_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

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
    contradicting = [
        contradiction
        for contradiction in contradictions(settings)
        if not any(_touches(key, one) for key in contradiction.keys for one in bad)
    ]
    if not problems and not contradicting:
        return settings
    lines = find_lines(text)
    for contradiction in contradicting:
        # The key to blame is one that the file sets: the other one's default was there before.
        key = next((key for key in contradiction.keys if key in lines), contradiction.keys[0])
        problems.append(_Problem(key, contradiction.why))
    placed = sorted(((_line(lines, problem.key), problem) for problem in problems), key=lambda pair: pair[0])
    raise _bad(
        *(f"{path}{f':{line}' if line else ''}: {show_key(problem.key)}: {problem.what}" for line, problem in placed)
    )


def _bad(*problems: str) -> ConfigError:
    """Make the error; what the file says is shown as text, whatever it would do to a terminal or a log."""
    return ConfigError(["".join(map(_printable, problem)) for problem in problems])


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


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
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except OSError as error:
        raise _bad(f"{path}: can't be read: {error.strerror or error}") from error
    if len(raw) > _LARGEST:
        raise _bad(f"{path}: larger than {_LARGEST >> 20} MiB: not a configuration file")
    if raw.startswith(codecs.BOM_UTF8):
        raise _bad(f"{path}:1: begins with a byte order mark, which is not TOML: save it as UTF-8 without one")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        advice = "; it looks like UTF-16: save it as UTF-8" if raw.startswith(_BOMS_UTF16) else ""
        raise _bad(f"{path}:{line}: not UTF-8 (TOML is always UTF-8): byte 0x{raw[error.start]:02x}{advice}") from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _bad(f"{path}:{_explain_syntax(text, str(error))}") from error
    except RecursionError as error:
        raise _bad(f"{path}: not usable: brackets are nested too deeply") from error
    except ValueError as error:  # of int(): Python reads no number of thousands of digits
        raise _bad(f"{path}: not usable: a number with too many digits") from error


def _explain_syntax(text: str, what: str) -> str:
    """Say where and why a text is not TOML, from tomllib's words for it."""
    lines = text.rstrip("\n").split("\n")
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", what)
    number = int(found[1]) if found is not None and found[1] else len(lines)
    repetition = find_repetition("\n".join(lines[:number])) if what.startswith("Cannot ") else None
    if repetition is not None:
        key, first = repetition
        return f"{number}: {show_key(key)}: stands twice; the first time on line {first}"
    what = _readable(what if found is None else what[: found.start()])
    if found is None or not found[1]:
        return f"{number}: not TOML: {what} at the end"
    line = lines[number - 1].strip() if number <= len(lines) else ""
    return f"{number}: not TOML: {what}, at column {found[2]} of: {line[:100]}{_advise(line)}"


def _readable(what: str) -> str:
    """Write a key in tomllib's words, `('lane', '*')`, as TOML would."""
    found = re.search(r"\(['\"].*\)", what)
    if found is None:
        return what
    try:
        return what.replace(found[0], show_key(ast.literal_eval(found[0])))
    except (SyntaxError, ValueError):
        return what


def _advise(line: str) -> str:
    """Say what was probably meant by a line that is no TOML."""
    if re.match(r"\[\[?\s*lane\.[^\"'\]]*\*", line):
        return '; quote the pattern: [lane."*"]'
    number = re.search(r"=\s*(0[0-9]+)\s*(?:#.*)?$", line)
    if number is not None:
        return f'; no number begins with 0: write "{number[1]}" with quotes'
    if re.match(r"[A-Za-z0-9_-]+\s*:", line):
        return "; between a key and its value stands ="
    return ""


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
            guess = _guess(value, choices) if isinstance(value, str) else ""
            return _Problem(key, f"{describe(value)} is none of {_listed(choices)}{guess}")
        case "bool_type":
            return _Problem(key, f"{describe(value)} where true or false belongs, without quotes")
        case "tuple_type":
            if isinstance(value, dict):
                return _Problem(key, f"one table where several may stand: write [[{show_key(key)}]] with two brackets")
            return _Problem(key, f"{describe(value)} where a list belongs: put it in brackets, [ … ]")
        case "model_type" | "dict_type":
            if isinstance(value, list) and value and isinstance(value[0], dict):
                if key == ("lane",):
                    return _Problem(key, 'a lane is named in its own header: write [lane."example.com"]')
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
    if len(key) == 2 and key[0] == "lane":
        what = key[1] if key[1] in _table_at(schema, key).model_fields else "its keys"
        return f': limits belong in a table for some lanes, such as [lane."*"], with {what} below it'
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
    """Give the line of a key, or of the nearest table around it or in it; 0 where the file says nothing of it."""
    for end in range(len(key), 0, -1):
        if key[:end] in lines:
            return lines[key[:end]]
    return min((line for inner, line in lines.items() if inner[: len(key)] == key), default=0)
