"""Query parameters: each knows how to read itself and how to describe itself, so that the OpenAPI document is true."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from mtactl.control.problems import ProblemKind, Refusal

__all__ = [
    "CAMPAIGN_PATTERN",
    "MOST_ROWS",
    "Choice",
    "Choices",
    "Flag",
    "Number",
    "Parameter",
    "Text",
    "is_campaign",
    "read_query",
]

CAMPAIGN_PATTERN = "[A-Za-z0-9][A-Za-z0-9._:+=/@-]{0,127}"  # CONTRACT.md §1
_CAMPAIGN = re.compile(CAMPAIGN_PATTERN)
_MOST_DIGITS = 9
MOST_ROWS = 100_000_000  # of a list that is not cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter(ABC):
    """A query parameter. `about` is a sentence for the OpenAPI document."""

    name: str
    about: str

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """Give its JSON Schema."""

    def default(self) -> Any:
        """Give what it is when it is not in the query."""
        return None

    @abstractmethod
    def read(self, value: str) -> Any:
        """Give what the text means. Raises Refusal."""

    def read_all(self, values: Sequence[str]) -> Any:
        """Give what the texts mean, of which there is one at least. Raises Refusal, also when there are too many."""
        if len(values) > 1:
            raise self.refuse("it is given more than once")
        return self.read(values[0])

    def refuse(self, why: str) -> Refusal:
        """Make the refusal that names the parameter."""
        return Refusal(ProblemKind.BAD_PARAMETER, f"Query parameter {self.name!r}: {why}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Parameter):
    """Any text that is not empty; `pattern` must match all of it. `fold` makes it lower case."""

    pattern: str = ""
    fold: bool = False

    def schema(self) -> dict[str, Any]:
        """Give its JSON Schema."""
        return (
            {"type": "string", "pattern": f"^{self.pattern}$"} if self.pattern else {"type": "string", "minLength": 1}
        )

    def read(self, value: str) -> str:
        """Give the text. Raises Refusal."""
        if not value:
            raise self.refuse("it is empty")
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise self.refuse(f"{value!r} does not have the form {self.pattern}")
        return value.lower() if self.fold else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Parameter):
    """One of a few words, taken from a Literal type; `otherwise` when it is not given."""

    words: tuple[str, ...]
    otherwise: str | None = None

    def schema(self) -> dict[str, Any]:
        """Give its JSON Schema."""
        schema: dict[str, Any] = {"type": "string", "enum": list(self.words)}
        return schema if self.otherwise is None else {**schema, "default": self.otherwise}

    def default(self) -> str | None:
        """Give what it is when it is not in the query."""
        return self.otherwise

    def read(self, value: str) -> str:
        """Give the word. Raises Refusal."""
        if value not in self.words:
            raise self.refuse(f"{value!r} is none of {', '.join(self.words)}")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices(Choice):
    """Some of a few words: given more than once, or with commas between them."""

    def schema(self) -> dict[str, Any]:
        """Give its JSON Schema."""
        return {"type": "array", "items": {"type": "string", "enum": list(self.words)}}

    def read_all(self, values: Sequence[str]) -> frozenset[str]:
        """Give the words. Raises Refusal."""
        return frozenset(self.read(word) for value in values for word in value.split(","))


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag(Parameter):
    """`true` or `false` (also 1, 0, and nothing at all for true)."""

    otherwise: bool

    def schema(self) -> dict[str, Any]:
        """Give its JSON Schema."""
        return {"anyOf": [{"type": "boolean"}, {"enum": ["", "0", "1"]}], "default": self.otherwise}

    def default(self) -> bool:
        """Give what it is when it is not in the query."""
        return self.otherwise

    def read(self, value: str) -> bool:
        """Give the truth value. Raises Refusal."""
        if value.lower() in {"", "true", "1"}:
            return True
        if value.lower() in {"false", "0"}:
            return False
        raise self.refuse(f"{value!r} is neither true nor false")


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(Parameter):
    """A whole number within bounds."""

    least: int
    most: int
    otherwise: int

    def schema(self) -> dict[str, Any]:
        """Give its JSON Schema."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most, "default": self.otherwise}

    def default(self) -> int:
        """Give what it is when it is not in the query."""
        return self.otherwise

    def read(self, value: str) -> int:
        """Give the number. Raises Refusal."""
        plain = value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS
        if not plain or not self.least <= int(value) <= self.most:
            raise self.refuse(f"{value!r} is not a whole number from {self.least} to {self.most}")
        return int(value)


def read_query(raw: str, parameters: Iterable[Parameter]) -> dict[str, Any]:
    """Read the part behind the question mark, as it came over the wire. Raises Refusal, naming what is wrong.

    A `+` is a plus sign, as in RFC 3986, and not a space, as in HTML forms: ids of campaigns have plus signs in them,
    and no value here has a space.
    """
    known = {parameter.name: parameter for parameter in parameters}
    given: dict[str, list[str]] = {}
    for pair in filter(None, raw.split("&")):
        name, _, value = pair.partition("=")
        try:
            given.setdefault(unquote(name, errors="strict"), []).append(unquote(value, errors="strict"))
        except UnicodeDecodeError:
            raise Refusal(ProblemKind.BAD_PARAMETER, "The query is not in UTF-8.") from None
    if unknown := sorted(given.keys() - known.keys()):
        names = ", ".join(repr(name) for name in unknown)
        takes = f"It takes {', '.join(known)}." if known else "It takes none."
        raise Refusal(ProblemKind.BAD_PARAMETER, f"Unknown query parameter {names}. {takes}", problems=unknown)
    return {
        name: parameter.read_all(given[name]) if name in given else parameter.default()
        for name, parameter in known.items()
    }


def is_campaign(campaign: str) -> bool:
    """Whether the text has the form of a campaign's id."""
    return _CAMPAIGN.fullmatch(campaign) is not None
