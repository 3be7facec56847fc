"""Writes docs/api.md, the reference of the control API, from the OpenAPI document that the daemon serves.

`python -m tools.api_reference` writes it; with `--check` it exits with 1 if it is not what it would be.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mtactl.control.openapi import describe, document_route
from mtactl.control.router import ROUTES

PAGE = Path(__file__).parents[1] / "docs" / "api.md"

_HEAD = """\
# The control API

HTTP/1.1 and JSON on the control socket. This page is made from the OpenAPI 3.1 document that the daemon itself serves
at `/v1/openapi.json` (`make docs`).

{about}

<!-- run: node -->
```sh
curl --unix-socket /run/mtactl/control.sock http://mtactl/v1/status
```

Any request may also be answered with {common}.
"""


def render(document: Mapping[str, Any]) -> str:
    """Give the page."""
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    common = set.intersection(*({*operation["responses"]} for _, _, operation in operations)) - {"200"}
    said = ", ".join(f"{status}" for status in sorted(common))
    lines = [_HEAD.format(about=document["info"]["description"], common=said)]
    lines += ["## Requests", ""]
    for method, path, operation in operations:
        lines += [*_operation(method, path, operation, common), ""]
    lines += ["## Types", ""]
    for name, schema in document["components"]["schemas"].items():
        lines += [*_type(name, schema), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _operation(method: str, path: str, operation: Mapping[str, Any], common: set[str]) -> Iterator[str]:
    yield f"### {method} {path}"
    yield ""
    yield operation["summary"]
    if "parameters" in operation:
        yield ""
        yield "| parameter | in | is | |"
        yield "|---|---|---|---|"
        for parameter in operation["parameters"]:
            kind = _cell(_kind(parameter["schema"]))
            yield f"| `{parameter['name']}` | {parameter['in']} | {kind} | {_cell(parameter['description'])} |"
    if "requestBody" in operation:
        [content] = operation["requestBody"]["content"].values()
        yield ""
        yield f"Body: {_kind(content['schema'])}"
    success = operation["responses"]["200"]["content"]
    yield ""
    for media, content in success.items():
        what = _kind(content["schema"])
        if "x-item-schema" in content:
            what = f"a stream of {_kind(content['x-item-schema'])}"
        yield f"200: {what} (`{media}`)  "
    for status, response in operation["responses"].items():
        if status != "200" and status not in common:
            yield f"{status}: {response['description']}  "


def _type(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    if "description" in schema:
        yield schema["description"]
        yield ""
    yield "| field | is | |"
    yield "|---|---|---|"
    required = schema.get("required", [])
    for field, about in schema.get("properties", {}).items():
        notes = [] if field in required else ["may be left out"]
        notes += [about["description"]] if "description" in about else []
        yield f"| `{field}` | {_cell(_kind(about))} | {_cell('; '.join(notes))} |"


def _kind(schema: Mapping[str, Any]) -> str:
    """Say what a schema lets through, in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(each) for each in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f'`"{value}"`' if isinstance(value, str) else f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"array of {_kind(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_kind(schema['additionalProperties'])}"
    limits = [f"{word} {schema[key]}" for key, word in _LIMITS if key in schema]
    return f"{kind} ({', '.join(limits)})" if limits else str(kind)


_LIMITS = (("minimum", "from"), ("maximum", "to"), ("maxLength", "at most"), ("default", "else"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> int:
    """Write the page, or see whether it is up to date; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.api_reference", description="write docs/api.md")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is not up to date")
    page = render(describe([*ROUTES, document_route(ROUTES)]))
    if parser.parse_args().check:
        return 0 if PAGE.read_text() == page else 1
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
