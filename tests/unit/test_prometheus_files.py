"""The alert rules, the recording rules and the dashboard, as files: what can be said of them without a server."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.world import dashboard

CONFIG = Path(__file__).parents[2] / "config" / "prometheus"
TESTS = Path(__file__).parents[1] / "prometheus"


def rules(name):
    """Give the rules of a file."""
    return [rule for group in yaml.safe_load((CONFIG / name).read_text())["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("mtactl-alerts.yml")}
RECORDS = {rule["record"]: rule for rule in rules("mtactl-recording.yml")}


def promtool(*arguments):
    """Run promtool; give all that it says, after a look at whether it is content."""
    run = subprocess.run([shutil.which("promtool"), *arguments], capture_output=True, text=True, cwd=CONFIG)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


@pytest.mark.needs("promtool", "prometheus")
def test_prometheus_takes_the_files():
    """A server that is given a bad rule file does not start, or goes on with the old rules."""
    said = promtool("check", "config", "prometheus.yml")
    assert f"{len(ALERTS)} rules found" in said
    assert f"{len(RECORDS)} rules found" in said


@pytest.mark.needs("promtool", "prometheus")
@pytest.mark.parametrize("name", ["alerts.yml", "recording.yml"])
def test_the_rules_do_what_they_say(name):
    """An alert that does not fire is only found out about when it is needed; one that always does is switched off."""
    assert "SUCCESS" in promtool("test", "rules", str(TESTS / name))


def test_each_rule_has_a_test():
    """What promtool's tests don't name was never seen to fire."""
    alerts, records = ((TESTS / name).read_text() for name in ("alerts.yml", "recording.yml"))
    assert set(re.findall(r'alertname="(\w+)"', alerts)) == set(ALERTS)
    assert dashboard.metric_names(records) >= set(RECORDS)


@pytest.mark.parametrize("name", ALERTS)
def test_what_an_alert_tells(name):
    """Whoever is woken by it must see what is wrong, how urgent it is and where the next step stands."""
    rule = ALERTS[name]
    assert re.fullmatch(r"Mtactl[A-Z]\w+", name)
    assert rule["labels"]["severity"] in {"critical", "warning"}
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url"}
    assert not told["summary"].endswith(".") and len(told["summary"]) < 200
    assert told["description"].endswith((".", ".{{ end }}"))
    assert told["runbook_url"] == f"docs/operations.md#alert-{name.lower()}"


OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.mark.skipif(not OPERATIONS.exists(), reason="docs/operations.md is not written yet")
def test_each_alert_is_explained_where_it_says():
    """A link that leads nowhere is worse than none, at two in the morning."""
    text = OPERATIONS.read_text()
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    anchors |= set(re.findall(r'<a (?:id|name)="([^"]+)"', text))
    missing = [name for name in ALERTS if f"alert-{name.lower()}" not in anchors]
    assert not missing, f"docs/operations.md has no heading such as: ### Alert {missing[0]}"


def test_names_of_recording_rules():
    """level:metric:operations is what people guess from."""
    assert all(re.fullmatch(r"(instance|job):mtactl_[a-z_]+:[a-z0-9_]+", name) for name in RECORDS)


def test_the_dashboard_can_be_imported():
    """Grafana takes a file that it does not like and shows empty panels."""
    board = dashboard.load()
    assert (board["uid"], board["title"], board["id"]) == ("mtactl", "mtactl", None)
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert list(variables) == ["datasource", "job", "instance"]
    panels = dashboard.panels(board)
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    source = {"type": "prometheus", "uid": "${datasource}"}
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["type"] in {"timeseries", "stat", "table"}
        assert panel["description"] and panel["datasource"] == source
        assert panel["targets"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert target["datasource"] == source
            assert 'job="$job"' in target["expr"] and 'instance=~"$instance"' in target["expr"]
    titles = " ".join(panel["title"] for panel in panels)
    wanted = ("Recipients a second", "Queue by state", "After the stop", "answered", "completed", "commit", "Lag")
    assert all(word in titles for word in (*wanted, "Connections", "Disk", "Lanes"))
