"""GET /v1/openapi.json: the OpenAPI 3.1 document, made from the routes and the wire types themselves."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from aiohttp import web

from mtactl.control import types
from mtactl.control.answers import EVENTS, JSON, PROBLEM, encode
from mtactl.control.parameters import CAMPAIGN_PATTERN
from mtactl.control.problems import ProblemKind
from mtactl.control.route import Call, Route
from mtactl.control.types import NoBody, Problem

__all__ = ["describe", "document_route"]

_REF = "#/components/schemas/{name}"

# What any request may be answered with, whatever its route: who may call, how it is read, how busy the daemon is.
_ANY = (
    ProblemKind.BAD_REQUEST,
    ProblemKind.BAD_PARAMETER,
    ProblemKind.FORBIDDEN,
    ProblemKind.HEADERS_TOO_LARGE,
    ProblemKind.INTERNAL,
    ProblemKind.STORE_FAILED,
    ProblemKind.BUSY,
)
_ANY_WITH_BODY = (ProblemKind.TOO_SLOW, ProblemKind.TOO_LARGE, ProblemKind.BAD_BODY)

_VARIABLES = {
    "campaign": {
        "description": "The campaign's id, percent-encoded: a `/` in it is written `%2F`.",
        "schema": {"type": "string", "pattern": f"^{CAMPAIGN_PATTERN}$"},
    },
    "message": {"description": "The message's queue id.", "schema": {"type": "string"}},
}
_ABOUT = (
    "The control socket of mtactld, a Unix socket: `curl --unix-socket PATH http://mtactl/v1/status`. Who may call is "
    "decided by the credentials of the calling process: root, the daemon's own user and the groups of "
    "`control.operators` may do all, those of `control.observers` may read. Errors are RFC 9457 problem documents; "
    "their `type` is stable."
)


def document_route(routes: Sequence[Route]) -> Route:
    """Make the route that answers with the document about the routes, itself among them."""

    async def show_document(_call: Call) -> web.StreamResponse:
        return web.Response(body=document(), content_type=JSON)

    own = Route(
        name="openapi",
        method="GET",
        path="/v1/openapi.json",
        summary="This document.",
        handle=show_document,
        answer=dict,
    )

    @functools.cache
    def document() -> bytes:
        return encode(describe([*routes, own])) + b"\n"

    return own


def describe(routes: Iterable[Route]) -> dict[str, Any]:
    """Give the OpenAPI document about the routes."""
    routes = list(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mtactl control API",
            "version": version("mtactl"),
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://mtactl", "description": "The host name is not looked at."}],
        "paths": paths,
        "components": {"schemas": _schemas(routes)},
    }


def _operation(route: Route) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, **about}
        for name, about in _VARIABLES.items()
        if f"{{{name}}}" in route.path
    ]
    parameters += [
        {"name": parameter.name, "in": "query", "description": parameter.about, "schema": parameter.schema()}
        for parameter in route.parameters
    ]
    parameters += [
        {"name": name, "in": "header", "description": about, "schema": {"type": "string", "pattern": f"^{form}$"}}
        for name, about, form in route.headers
    ]
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": {"200": _success(route), **_failures(route)},
    }
    if parameters:
        operation["parameters"] = parameters
    if route.changes and route.body is not NoBody:
        operation["requestBody"] = _body(route)
    return operation


def _body(route: Route) -> dict[str, Any]:
    schema, rule = _schema(route.body), dict(route.body_rule)
    body: dict[str, Any] = {"content": {JSON: {"schema": {"allOf": [schema, rule]} if rule else schema}}}
    if "required" in rule or "anyOf" in rule:  # nothing would not do
        body["required"] = True
    return body


def _success(route: Route) -> dict[str, Any]:
    if route.answer is not None:
        return {"description": "Done.", "content": {JSON: {"schema": _schema(route.answer)}}}
    # OpenAPI 3.1 has no word for the type of the pieces of a stream (3.2 has: itemSchema). Some readers take `schema`
    # for that of a whole stream of events, others for that of each event: nothing is true of both.
    content = {
        media: {"schema": {} if media == EVENTS else {"type": "string"}, "x-item-schema": _schema(route.item)}
        for media in route.media
    }
    return {"description": "A stream.", "content": content}


def _failures(route: Route) -> dict[str, Any]:
    kinds = {*_ANY, *(_ANY_WITH_BODY if route.changes else ()), *route.problems}
    by_status: dict[int, list[ProblemKind]] = {}
    for kind in ProblemKind:
        if kind in kinds:
            by_status.setdefault(kind.status, []).append(kind)
    return {
        str(status): {
            "description": " ".join(f"{kind.title} (`{kind.urn}`)." for kind in some),
            "content": {PROBLEM: {"schema": _schema(Problem)}},
        }
        for status, some in sorted(by_status.items())
    }


def _schema(kind: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=_REF)
    return schema


def _schemas(routes: Iterable[Route]) -> dict[str, Any]:
    """Give the schemas of all types. What the daemon writes has all its fields, those with a default as well."""
    bodies = {route.body for route in routes if route.changes and route.body is not NoBody}
    written = {kind for route in routes for kind in (route.answer, route.item) if kind not in {None, dict}}
    _, taken = msgspec.json.schema_components(sorted(bodies, key=_name), ref_template=_REF)
    _, given = msgspec.json.schema_components(sorted({*written, Problem}, key=_name), ref_template=_REF)
    for name, schema in given.items():
        if not getattr(types, name).__struct_config__.omit_defaults:
            schema["required"] = list(schema["properties"])
            for field in schema["properties"].values():
                field.pop("default", None)
    return dict(sorted({**taken, **given}.items()))


def _name(kind: Any) -> str:
    return str(kind.__name__)
