"""The configuration's JSON schema, for editors that complete and check TOML: `python -m mtactl.settings_schema FILE`.

The structure and the forms of values come from the settings' types; the descriptions and the defaults, as people write
them, from the commented default file, whose every key says what it does. What values say against each other no schema
can tell: `mtactld --check` has the last word.

Draft 7, and without references, which is what editors' TOML support understands best.
"""

from __future__ import annotations

import argparse
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from mtactl.settings import Settings
from mtactl.toml_lines import KeyPath, find_lines

__all__ = ["make_schema", "write_schema"]

# Lists that `contradictions` wants something in.
_NOT_EMPTY = ("retry", "backoff", "headers")

_COMMENT = re.compile(r"^(?P<set>[^#]*)#\s*(?P<text>.*)$")
_UNSET = re.compile(r"^# (?P<key>\w+) = (?P<value>\S+)\s+# (?P<text>.*)$")  # a key that has no fixed default


class _Written(GenerateJsonSchema):
    """The schema of what stands in the file; the defaults are put in from the file, as they are written."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def make_schema(commented: str) -> dict[str, Any]:
    """Make the schema; `commented` is the text of the default file. Raises ValueError for a key that it leaves out."""
    found = Settings.model_json_schema(mode="validation", schema_generator=_Written)
    schema = _inline(found, found.pop("$defs"))
    _describe(schema, (), _Commented(commented))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "mtactl.toml",
        "description": "The configuration of mtactl, the daemon that owns a mail server's outbound queue.",
        **{key: schema[key] for key in ("type", "additionalProperties", "properties")},
    }


def write_schema(commented: str) -> str:
    """Give the schema as the text of a file."""
    return json.dumps(make_schema(commented), indent=2, ensure_ascii=False) + "\n"


class _Commented:
    """The default file: what its comments say of each key and table, and each key's value as it is written."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._places = find_lines(text)
        self._values = tomllib.loads(text)
        self._unset: dict[KeyPath, str] = {}
        table: KeyPath = ()
        tables = {line: key for key, line in self._places.items() if self._lines[line - 1].startswith("[")}
        for number, line in enumerate(self._lines, start=1):
            table = tables.get(number, table)
            found = _UNSET.match(line)
            if found is not None:
                self._unset[(*table, found["key"])] = found["text"]

    def describe(self, key: KeyPath) -> str:
        """Give the comment beside a key, or above a table. Raises ValueError when there is none."""
        text = self._comment(key)
        return text[:1].upper() + text[1:]

    def _comment(self, key: KeyPath) -> str:
        if key in self._unset:
            return self._unset[key]
        number = self._places.get(key)
        if number is None:
            raise ValueError(f"{key} is not in the default file")
        line = self._lines[number - 1]
        found = _COMMENT.match(line)
        if found is not None:
            return found["text"]
        above = []
        for before in reversed(self._lines[: number - 1]):
            if not before.startswith("# ") or not line.startswith("["):
                break
            above.append(before.removeprefix("# "))
        if not above:
            raise ValueError(f"{key} has no comment in the default file, line {number}")
        return " ".join(reversed(above))

    def default(self, key: KeyPath) -> Any:
        """Give the value that a key has in the file, None when it is only there as a comment."""
        value: Any = self._values
        for part in key:
            if isinstance(value, dict) and part not in value:
                return None
            value = value[part]
        return value


def _inline(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """Put each definition where it is referred to, and leave out the titles, which only repeat the keys."""
    if isinstance(schema, list):
        return [_inline(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    # A key of a table may well be called "title"; what pydantic calls so is text.
    return {
        name: _inline(value, definitions)
        for name, value in schema.items()
        if name not in {"title", "description"} or not isinstance(value, str)
    }


def _describe(schema: dict[str, Any], key: KeyPath, commented: _Commented) -> None:
    """Put the descriptions and the defaults into a table's schema, and into those of the tables in it."""
    for name, value in schema["properties"].items():
        here = (*key, name)
        if name == "lane":
            value["description"] = commented.describe((*here, "*"))
            (inner,) = value["patternProperties"].values()
            value["additionalProperties"] = False
            _describe(inner, (*here, "*"), commented)
            continue
        value["description"] = commented.describe(here)
        if "properties" in value:
            _describe(value, here, commented)
        elif "properties" in value.get("items", {}):
            _describe(value["items"], (*here, 0), commented)
        elif (default := commented.default(here)) is not None:
            value["default"] = default
        if name in _NOT_EMPTY:
            value["minItems"] = 1


def main() -> None:
    """Print the schema."""
    parser = argparse.ArgumentParser(
        prog="mtactl.settings_schema", description="Print the configuration's JSON schema."
    )
    parser.add_argument("commented", type=Path, metavar="FILE", help="the commented default file")
    print(write_schema(parser.parse_args().commented.read_text("utf-8")), end="")  # noqa: T201  what it is for


if __name__ == "__main__":
    main()
