"""The Grafana dashboard as a program reads it: its queries, as Grafana would send them, and the names in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

DASHBOARD = Path(__file__).parents[2] / "config" / "grafana" / "mtactl.json"

# What Grafana puts in the place of its variables, with everything selected.
_VARIABLES = {"$__rate_interval": "1m", "$__range": "10m", "$job": "mtactl", "$instance": ".*"}

_METRIC = re.compile(r"\b(?:(?:instance|job):)?(?:mtactl|process)_[a-z_]+(?::\w+)?")


def load() -> dict:
    """Read the dashboard."""
    return json.loads(DASHBOARD.read_text())


def panels(dashboard: dict) -> list[dict]:
    """Give all panels, those in collapsed rows too."""
    return [inner for panel in dashboard["panels"] for inner in (panel, *panel.get("panels", ()))]


def queries(dashboard: dict) -> Iterator[tuple[str, str]]:
    """Give each query with where it stands; variables are filled in."""
    found = [
        (f"{panel['title']} {target['refId']}", target["expr"])
        for panel in panels(dashboard)
        for target in panel.get("targets", ())
    ]
    found += [(f"annotation {each['name']}", each["expr"]) for each in dashboard["annotations"]["list"]]
    for where, expression in found:
        yield where, re.sub(r"\$\w+", lambda variable: _VARIABLES[variable[0]], expression)


def metric_names(text: str) -> set[str]:
    """Give the names of metrics and recording rules in expressions."""
    return set(_METRIC.findall(text))
