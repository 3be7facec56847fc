"""A route of the control API: what it takes, what it does and what it answers. Routing and the OpenAPI document are
both made from these, so the one can't say what the other does not do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import msgspec
from aiohttp import web

from mtactl.control.answers import JSON
from mtactl.control.node import Node
from mtactl.control.parameters import Parameter
from mtactl.control.peers import Caller
from mtactl.control.problems import ProblemKind
from mtactl.control.types import NoBody, RequestedBy

__all__ = ["Call", "Handler", "Route"]

Body = TypeVar("Body", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, read and checked. `name` is what stands in the path: a campaign's id or a message's.

    `streams` holds what ends each open stream; the server calls it when it stops.
    """

    node: Node
    request: web.BaseRequest
    caller: Caller
    name: str
    query: dict[str, Any]
    body: msgspec.Struct
    streams: set[Callable[[], object]]
    keep_alive: float  # seconds between signs of life on an event stream

    @property
    def by(self) -> RequestedBy:
        """Who asks."""
        return self.caller.by

    @contextmanager
    def streaming(self, end: Callable[[], object]) -> Iterator[None]:
        """Be a stream that `end` ends, as long as the context is open."""
        self.streams.add(end)
        try:
            yield
        finally:
            self.streams.discard(end)

    def given(self, kind: type[Body]) -> Body:
        """Give the body as the type that the route has for it."""
        assert isinstance(self.body, kind)
        return self.body


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A method and a path. The path may have one variable, `{campaign}` or `{message}`.

    POST routes change something: only operators may, and each is logged. `answer` is the type of the JSON answer;
    streams have `media` instead and `item`, the type of what comes piece by piece.
    """

    name: str
    method: Literal["GET", "POST"]
    path: str
    summary: str
    handle: Handler
    parameters: tuple[Parameter, ...] = ()
    headers: tuple[tuple[str, str, str], ...] = ()  # request headers that it heeds: what they mean, and their form
    body: type[msgspec.Struct] = NoBody
    body_rule: Mapping[str, Any] = field(default_factory=dict)  # JSON Schema: what it must fit beside its type
    answer: type | None = None
    media: tuple[str, ...] = (JSON,)
    item: type | None = None
    problems: tuple[ProblemKind, ...] = ()  # beside those that any route may answer with

    @property
    def changes(self) -> bool:
        """Whether it changes something."""
        return self.method == "POST"
