"""A real Prometheus server with our rules, scraping a real daemon under load while campaigns are halted."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.world import dashboard
from tests.world.control import until
from tests.world.daemon import daemon, peer_world
from tests.world.injector import Injector
from tests.world.newsletter import short_mails
from tests.world.prometheus import prometheus

PROFILE = {"*": {"latency": 0.02, "reject": 0.05, "defer": 0.05}}
ALERTS = "mtactl-alerts.yml"

# Nobody wants a test of twenty minutes.
SHORTER = (
    (ALERTS, "mtactl_halt_in_progress_age_seconds > 1200", "mtactl_halt_in_progress_age_seconds > 2"),
    (ALERTS, 'absent(up{job="mtactl"})\n        for: 2m', 'absent(up{job="mtactl"})\n        for: 0s'),
)


def scrape(node, accept: str) -> tuple[str, str]:
    """Give content type and text."""
    request = urllib.request.Request(f"http://127.0.0.1:{node.metrics_port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def check_formats(node) -> None:
    """Both formats have the same series, and the tools of each are content."""
    kind, text = scrape(node, "text/plain")
    assert kind.startswith("text/plain")
    check = subprocess.run([shutil.which("promtool"), "check", "metrics"], input=text, capture_output=True, text=True)
    assert (check.returncode, check.stdout + check.stderr) == (0, "")
    kind, other = scrape(node, "application/openmetrics-text;version=1.0.0,text/plain;q=0.1")
    assert kind.startswith("application/openmetrics-text")
    series = [
        {(sample.name, *sorted(sample.labels.items())) for family in families for sample in family.samples}
        for families in (parse_text(text), parse_openmetrics(other))
    ]
    assert series[0] == series[1]


async def keep_busy(node, stop: asyncio.Event) -> None:
    """Keep mail flowing, with pauses."""
    number = 0
    while not stop.is_set():
        await Injector(node.smtp_port, connections=2).inject(short_mails(f"busy-{number}", 40))
        number += 1
        await asyncio.sleep(0.2)


@pytest.mark.needs("prometheus", "prometheus")
@pytest.mark.timeout(240)
async def test_a_prometheus_server_sees_it_all(tmp_path):
    """If it failed, the dashboards would be empty and the alerts silent on the night on which they are needed."""
    with (
        peer_world(tmp_path / "world", PROFILE) as world,
        daemon(tmp_path / "node", route=world.port, extra='[delivery]\nretry = ["1s"]\n[log]\nlevel = "info"') as node,
        prometheus(tmp_path / "prometheus", node.metrics_port, *SHORTER) as server,
    ):
        stop = asyncio.Event()
        busy = asyncio.ensure_future(keep_busy(node, stop))
        try:
            await until(lambda: server.targets() == {"mtactl": "up"}, seconds=60)

            # A halt while the campaign goes out.
            world.change({"*": {"latency": 0.3}})
            await Injector(node.smtp_port, connections=2).inject(short_mails("spring", 200, domains=("three.example",)))
            await until(lambda: node.report("spring")["counts"]["delivered"] > 0, seconds=30)
            await asyncio.to_thread(node.halt, "spring")
            spring = await asyncio.to_thread(node.wait_completed, "spring")
            world.change(PROFILE)

            # A halt that waits for peers that do not answer, and then never will.
            world.freeze()
            await Injector(node.smtp_port).inject(short_mails("autumn", 20, domains=("two.example",)))
            await until(lambda: world.record().open_transactions("autumn"), seconds=30)
            await asyncio.to_thread(node.halt, "autumn")
            await until(lambda: "MtactlHaltNotCompleting" in server.firing(), seconds=60)
            world.drop()
            world.thaw()
            autumn = await asyncio.to_thread(node.wait_completed, "autumn")
            assert autumn["counts"]["unknown"] > 0
            await until(lambda: "MtactlUnknownRecipients" in server.firing(), seconds=60)
            await until(lambda: "MtactlHaltNotCompleting" not in server.firing(), seconds=60)

            # A bad file.
            good = node.config.read_text()
            node.config.write_text(good.replace('level = "info"', 'level = "loud"'))
            node.process.send_signal(signal.SIGHUP)
            await until(lambda: "MtactlReloadFailed" in server.firing(), seconds=60)
            node.config.write_text(good)
            assert node.call("POST", "/v1/reload")[0] == 200
            await until(lambda: "MtactlReloadFailed" not in server.firing(), seconds=60)

            check_formats(node)
            check_rules(server)
            check_dashboard(server)
            for name, campaign in (("delivered", "delivered_after_stop"), ("in_flight", "in_flight_at_stop")):
                seen = {
                    sample["metric"]["campaign"]: float(sample["value"][1])
                    for sample in server.query(f"mtactl_campaign_{campaign}")
                }
                for report in (spring, autumn):
                    told = report["counts"][campaign] if name == "delivered" else report["stop"][campaign]
                    assert seen[report["campaign"]] == told
        finally:
            stop.set()
            await busy
        assert await asyncio.to_thread(node.stop) == 0
        await until(lambda: "MtactlDown" in server.firing(), seconds=60)
        assert server.query('count_over_time(ALERTS{alertname="MtactlLeakAfterStop"}[1h])') == []
        assert server.rules()["MtactlLeakAfterStop"]["state"] == "inactive"


def check_rules(server) -> None:
    """Every rule evaluates; what is recorded is there; every metric that a rule asks for exists."""
    rules = server.rules()
    assert len(rules) >= 30
    for name, rule in rules.items():
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), (name, rule)
        if rule["type"] == "recording":
            assert server.query(name), name
    exposed = set(server.ask("label/__name__/values"))
    asked = "\n".join(rule["query"] for rule in rules.values())
    assert dashboard.metric_names(asked) <= exposed


def check_dashboard(server) -> None:
    """Every query of the dashboard asks for what there is, and has an answer."""
    exposed = set(server.ask("label/__name__/values"))
    found = list(dashboard.queries(dashboard.load()))
    assert len(found) >= 40
    for where, expression in found:
        assert dashboard.metric_names(expression) <= exposed, where
        samples = server.query(expression)
        # An annotation marks the minutes in which there was a halt.
        assert samples or where.startswith("annotation"), (where, expression)
