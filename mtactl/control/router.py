"""Which route a request means, found in the path as it came over the wire.

A campaign's id may have `/` in it. Percent-encoded (`%2F`) it is always understood: the path is split before it is
decoded. Written as it is, it is understood as well as it can be: when the last segment of a path is a verb, as in
`/v1/campaigns/2026/autumn/halt`, it is the verb, and all before it is the id. The report of a campaign whose id itself
ends in `/halt` can thus be had in encoded form only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from mtactl.control import campaigns, events, halt, hold, lanes, queue, recipients, reload, status
from mtactl.control.openapi import document_route
from mtactl.control.parameters import CAMPAIGN_PATTERN, is_campaign
from mtactl.control.problems import ProblemKind, Refusal
from mtactl.control.route import Route

__all__ = ["ROUTES", "Match", "Router"]

_VERBS: Sequence[Route] = (
    *status.ROUTES,
    *campaigns.ROUTES,
    *halt.ROUTES,
    *hold.ROUTES,
    *recipients.ROUTES,
    *queue.ROUTES,
    *lanes.ROUTES,
    *events.ROUTES,
    *reload.ROUTES,
)
ROUTES: Sequence[Route] = (*_VERBS, document_route(_VERBS))

_SCHEMES = ("http://", "https://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A route, what its variable stands for ("" where it has none), and the raw query."""

    route: Route
    name: str
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Template:
    """A path with a variable: what comes before it and what comes after."""

    before: str
    after: str
    variable: str
    methods: Mapping[str, Route]

    def name_in(self, path: str) -> str | None:
        """Give what the variable stands for, still encoded, or None when the path is another."""
        if not (path.startswith(self.before) and path.endswith(self.after)):
            return None
        name = path[len(self.before) : len(path) - len(self.after)]
        return None if not name or ("/" in name and self.variable != "campaign") else name


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: Sequence[Route] = ROUTES) -> None:
        methods: dict[str, dict[str, Route]] = {}
        for route in routes:
            methods.setdefault(route.path, {})[route.method] = route
        self._plain = {path: routes for path, routes in methods.items() if "{" not in path}
        self._templates = [_template(path, routes) for path, routes in methods.items() if "{" in path]
        self._templates.sort(key=lambda template: len(template.after), reverse=True)
        self._paths = ", ".join(methods)

    def match(self, method: str, target: str) -> Match:
        """Find the route of a request target (RFC 9112 §3.2). Raises Refusal: 404, 405, or 400 for a bad id."""
        path, _, query = _origin_form(target).partition("?")
        if (methods := self._plain.get(path)) is not None:
            return Match(route=_of_method(method, path, methods), name="", query=query)
        for template in self._templates:
            if (raw := template.name_in(path)) is not None:
                route = _of_method(method, path, template.methods)
                return Match(route=route, name=_decode(raw, template.variable), query=query)
        detail = f"There is no {path!r}. There is: {self._paths}."
        raise Refusal(ProblemKind.UNKNOWN_PATH, detail, headers={"Link": '</v1/openapi.json>; rel="service-desc"'})


def _template(path: str, methods: Mapping[str, Route]) -> _Template:
    before, _, rest = path.partition("{")
    variable, _, after = rest.partition("}")
    return _Template(before=before, after=after, variable=variable, methods=methods)


def _origin_form(target: str) -> str:
    """Give the target without scheme and authority, which a client may send and which mean nothing here."""
    if target.lower().startswith(_SCHEMES):
        _, slash, rest = target.split("//", 1)[1].partition("/")
        target = slash + rest
    return target.partition("#")[0]


def _of_method(method: str, path: str, methods: Mapping[str, Route]) -> Route:
    if (route := methods.get(method)) is not None:
        return route
    allowed = ", ".join(methods)
    detail = f"{method} is not possible on {path!r}; {allowed} is."
    raise Refusal(ProblemKind.WRONG_METHOD, detail, headers={"Allow": allowed})


def _decode(raw: str, variable: str) -> str:
    try:
        name = unquote(raw, errors="strict")
    except UnicodeDecodeError:
        raise Refusal(ProblemKind.BAD_REQUEST, f"{raw!r} is not in UTF-8.") from None
    if variable == "campaign" and not is_campaign(name):
        detail = f"{name!r} is not a campaign id, which has the form {CAMPAIGN_PATTERN}."
        raise Refusal(ProblemKind.BAD_CAMPAIGN, detail)
    return name
