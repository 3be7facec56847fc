"""The metrics, as a scraper sees them."""

import shutil
import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mtactl.observe.metrics import Metrics, Snapshot

# CONTRACT.md §6, as the samples of the text format.
CONTRACT = {
    "mtactl_recipients_accepted_total",
    "mtactl_recipients_delivered_total",
    "mtactl_recipients_bounced_total",
    "mtactl_recipients_expired_total",
    "mtactl_recipients_dropped_total",
    "mtactl_recipients_unknown_total",
    "mtactl_recipients_deferred_total",
    "mtactl_recipients_delivered_after_stop_total",
    "mtactl_recipients_refused_total",
    "mtactl_queue_recipients",
    "mtactl_in_flight_transactions",
    "mtactl_outbound_connections",
    "mtactl_halts_total",
    "mtactl_halt_ack_seconds_bucket",
    "mtactl_halt_completion_seconds_bucket",
    "mtactl_campaign_delivered_after_stop",
    "mtactl_commit_seconds_bucket",
    "mtactl_commit_batch_size_bucket",
    "mtactl_event_loop_lag_seconds_bucket",
    "mtactl_store_free_bytes",
    "mtactl_build_info",
}

# What the alert rules and the dashboard need beside them.
FURTHER = {
    "mtactl_recipients_begun_after_stop_total",
    "mtactl_recipients_discarded_total",
    "mtactl_campaign_in_flight_at_stop",
    "mtactl_in_flight_recipients",
    "mtactl_inbound_connections",
    "mtactl_lanes",
    "mtactl_lanes_in_backoff",
    "mtactl_halts_in_progress",
    "mtactl_halt_in_progress_age_seconds",
    "mtactl_ready",
    "mtactl_store_failed",
    "mtactl_store_size_bytes",
    "mtactl_config_last_reload_successful",
    "mtactl_config_keys_awaiting_restart",
    "mtactl_log_lines_left_out_total",
}


def make_metrics(snapshot=None):
    """Make metrics over a fixed snapshot."""
    return Metrics(lambda: snapshot or Snapshot(after_stop={"c1": (3, 2)}), version="1.2.3")


def samples(metrics):
    """Give all samples of a scrape, by name and labels."""
    text = metrics.render()[0].decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def test_the_contract_names():
    """Dashboards and alerts are written against these names; one that is missing alerts nobody."""
    assert {name for name, *_labels in samples(make_metrics())} >= CONTRACT | FURTHER


def test_the_snapshot():
    """A number that comes out under another name makes the books look wrong."""
    found = samples(
        make_metrics(
            Snapshot(
                totals={"accepted": 10, "delivered": 3, "refused": 7},
                queue={"ready": 1, "held": 2},
                gauges={
                    "in_flight_recipients": 4,
                    "in_flight_transactions": 2,
                    "outbound_connections": 5,
                    "lanes_in_backoff": 3,
                    "ready": True,
                    "store_free_bytes": 1 << 33,
                },
                halts={"stop": 1},
                after_stop={"c/1": (9, 6)},
                log_lines_left_out=8,
            )
        )
    )
    assert found["mtactl_recipients_accepted_total",] == 10
    assert found["mtactl_recipients_delivered_total",] == 3
    assert found["mtactl_recipients_refused_total",] == 7
    assert found["mtactl_recipients_bounced_total",] == 0
    assert found["mtactl_queue_recipients", ("state", "ready")] == 1
    assert found["mtactl_queue_recipients", ("state", "held")] == 2
    assert found["mtactl_queue_recipients", ("state", "deferred")] == 0
    assert found["mtactl_in_flight_recipients",] == 4
    assert found["mtactl_in_flight_transactions",] == 2
    assert found["mtactl_outbound_connections",] == 5
    assert found["mtactl_halts_total", ("kind", "stop")] == 1
    assert found["mtactl_halts_total", ("kind", "cancel")] == 0
    assert found["mtactl_lanes_in_backoff",] == 3
    assert (found["mtactl_ready",], found["mtactl_store_failed",]) == (1, 0)
    assert found["mtactl_campaign_in_flight_at_stop", ("campaign", "c/1")] == 9
    assert found["mtactl_campaign_delivered_after_stop", ("campaign", "c/1")] == 6
    assert found["mtactl_store_free_bytes",] == 1 << 33
    assert found["mtactl_log_lines_left_out_total",] == 8
    assert found["process_resident_memory_bytes",] > 0
    assert any(name == "mtactl_build_info" and ("version", "1.2.3") in labels for name, *labels in found)


def test_histograms():
    """A halt of a millisecond and one of a tenth of a second must not look the same."""
    metrics = make_metrics()
    metrics.observe_halt_ack(0.0004)
    metrics.observe_halt_ack(0.004)
    metrics.observe_halt_completion(7)
    metrics.observe_commit(0.001, 64)
    metrics.observe_loop_lag(0.03)
    found = samples(metrics)
    assert found["mtactl_halt_ack_seconds_bucket", ("le", "0.0005")] == 1
    assert found["mtactl_halt_ack_seconds_bucket", ("le", "0.005")] == 2
    assert found["mtactl_halt_ack_seconds_count",] == 2
    assert found["mtactl_halt_completion_seconds_bucket", ("le", "10.0")] == 1
    assert found["mtactl_commit_seconds_sum",] == 0.001
    assert found["mtactl_commit_batch_size_sum",] == 64
    assert found["mtactl_event_loop_lag_seconds_bucket", ("le", "0.02")] == 0


def test_campaigns_are_bounded():
    """A series for each campaign there ever was would fill the Prometheus server; the latest halts must be there."""
    found = samples(make_metrics(Snapshot(after_stop={f"c{number}": (number, number) for number in range(150)})))
    for series in ("mtactl_campaign_delivered_after_stop", "mtactl_campaign_in_flight_at_stop"):
        names = [dict(labels)["campaign"] for name, *labels in found if name == series]
        assert sorted(names) == sorted(f"c{number}" for number in range(50, 150))


def test_the_snapshot_is_taken_once_a_scrape():
    """Figures of two instants in one scrape don't add up."""
    taken = []

    def snapshot():
        taken.append(1)
        return Snapshot()

    metrics = Metrics(snapshot, version="1")
    assert not taken
    metrics.render()
    assert len(taken) == 1


def test_openmetrics():
    """Prometheus asks for OpenMetrics first, and turns a scrape down whole if one line is not right."""
    body, content_type = make_metrics().render("application/openmetrics-text; version=1.0.0, text/plain; q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    text = body.decode()
    assert text.endswith("# EOF\n")
    families = {family.name: family for family in parse_openmetrics(text)}
    assert families["mtactl_recipients_accepted"].type == "counter"
    assert families["mtactl_build"].type == "info"
    assert "_created" not in text


def test_two_sets_of_metrics():
    """Names on a registry that is shared by the process would keep a second daemon, or a test, from starting."""
    make_metrics()
    make_metrics()


@pytest.mark.needs("promtool", "prometheus")
def test_the_conventions():
    """promtool knows the conventions for names, units and help texts."""
    text = make_metrics().render()[0]
    families = list(parse_text(text.decode()))
    assert all(family.documentation.endswith(".") for family in families if family.name.startswith("mtactl_"))
    check = subprocess.run([shutil.which("promtool"), "check", "metrics"], input=text, capture_output=True)
    assert (check.returncode, check.stdout + check.stderr) == (0, b"")
