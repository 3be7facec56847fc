"""What a reload applies and what it leaves for a restart: each key of the configuration is one or the other."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from mtactl.errors import ConfigError
from mtactl.reload import AT_START, plan_reload
from mtactl.settings import (
    DeliverySettings,
    DnsSettings,
    LaneSettings,
    ListenerSettings,
    LogSettings,
    Settings,
    load_settings,
)
from mtactl.settings_file import show_key

FILE = Path("/etc/mtactl/mtactl.toml")

# Every key with another value than its default.
ALL_CHANGED = """
[node]
name = "other"
hostname = "other.example.com"
[store]
path = "/srv/mtactl"
reserve = "65MiB"
keep_outcomes = "31d"
[control]
socket = "/run/other.sock"
mode = "0600"
operators = ["mail"]
observers = ["daemon"]
[metrics]
listen = "127.0.0.1:9465"
[log]
format = "console"
level = "debug"
[[listener]]
listen = "127.0.0.1:2626"
relay_from = ["127.0.0.1/32"]
max_message_size = "51MiB"
max_recipients = 1001
max_connections = 1001
max_line_length = 1001
command_timeout = "6m"
data_timeout = "4m"
max_memory = "513MiB"
[campaign]
headers = ["X-Other"]
after_halt = "discard"
[dns]
nameservers = ["192.0.2.53"]
timeout = "6s"
lifetime = "16s"
[delivery]
port = 26
retry = ["2m"]
expire_after = "4d"
idle_connection = "6s"
max_connections = 3001
max_connections_per_attempt = 6
shutdown_timeout = "31s"
tls = "none"
[delivery.timeouts]
connect = "31s"
greeting = "6m"
ehlo = "6m"
starttls = "6m"
mail = "6m"
rcpt = "6m"
data = "3m"
data_block = "4m"
data_end = "11m"
quit = "6s"
[lane."*"]
max_connections = 21
max_deliveries_per_connection = 101
max_recipients_per_transaction = 51
rate = "10/s"
burst = 2
route = ["192.0.2.1:25"]
pipelining = false
backoff = ["6s"]
"""


def keys(section, prefix=()):
    """Give each key of a table and of the tables in it."""
    for name in type(section).model_fields:
        value, here = getattr(section, name), (*prefix, name)
        if isinstance(value, BaseModel):
            yield from keys(value, here)
        elif isinstance(value, dict):
            for pattern, inner in value.items():
                yield from keys(inner, (*here, pattern))
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for number, inner in enumerate(value):
                yield from keys(inner, (*here, number))
        else:
            yield here


def value_at(settings, key):
    """Give a key's value."""
    for part in key:
        settings = getattr(settings, part) if isinstance(part, str) and hasattr(settings, part) else settings[part]
    return settings


@pytest.fixture
def changed(tmp_path):
    """Give the settings of the file above."""
    path = tmp_path / "mtactl.toml"
    path.write_text(ALL_CHANGED)
    return load_settings(path)


def test_each_key_is_applied_or_listed(changed):
    """A key that is neither changes in silence at the next restart, or never, while its owner believes it has."""
    running = Settings(lane={"*": LaneSettings()})
    found = [*keys(changed)]
    same = [show_key(key) for key in found if value_at(changed, key) == value_at(running, key)]
    assert not same, "the file above must change them"
    plan = plan_reload(FILE, running, changed)
    told = {*plan.applied, *plan.needs_restart}
    assert told == {show_key(key) for key in found}
    assert not set(plan.applied) & set(plan.needs_restart)
    for key in found:
        at_start = any(key[: len(start)] == start for start in AT_START)
        assert (show_key(key) in plan.needs_restart) is at_start
        assert value_at(plan.settings, key) == value_at(running if at_start else changed, key), key


def test_what_waits_for_a_restart_is_told_each_time(changed):
    """Whoever reloads tomorrow must hear that today's change is not in force yet."""
    once = plan_reload(FILE, Settings(), changed)
    again = plan_reload(FILE, once.settings, changed)
    assert again.applied == ()
    assert again.needs_restart == once.needs_restart
    back = plan_reload(FILE, once.settings, Settings())
    assert back.needs_restart == ()


def test_lanes_are_told_table_by_table():
    """`lane` alone would not say which of two hundred tables was touched."""
    before = Settings(lane={"*": LaneSettings(burst=2), "a.com": LaneSettings(burst=3), "b.com": LaneSettings()})
    after = Settings(
        lane={"*": LaneSettings(burst=2), "a.com": LaneSettings(burst=4, rate=5.0), "c.com": LaneSettings()}
    )
    plan = plan_reload(FILE, before, after)
    assert plan.applied == ('lane."a.com".burst', 'lane."a.com".rate', 'lane."b.com"', 'lane."c.com"')
    # A key that says the default is not the same as none: the wider table's value is inherited there.
    before = Settings(lane={"*": LaneSettings(burst=2), "a.com": LaneSettings(burst=1)})
    after = Settings(lane={"*": LaneSettings(burst=2), "a.com": LaneSettings()})
    plan = plan_reload(FILE, before, after)
    assert plan.applied == ('lane."a.com".burst',)
    assert plan.settings.lane_settings("a.com").burst == 2


def test_listeners_that_come_and_go_are_told_as_one():
    """The second of two is not the second of three."""
    two = Settings(listener=(ListenerSettings(), ListenerSettings(listen=("127.0.0.1", 2526))))
    assert plan_reload(FILE, Settings(), two).needs_restart == ("listener",)


def test_nothing_has_changed():
    """A reload for no reason must be seen to be one."""
    plan = plan_reload(FILE, Settings(), Settings(log=LogSettings(level="info"), dns=DnsSettings()))
    assert (plan.applied, plan.needs_restart) == ((), ())


def test_halves_that_do_not_go_together_are_refused():
    """A route to the port that the listener is about to leave, and has not yet, would send the mail round for ever."""
    running = Settings(listener=(ListenerSettings(listen=("127.0.0.1", 2525)),))
    written = Settings(
        listener=(ListenerSettings(listen=("127.0.0.1", 2626)),),
        delivery=DeliverySettings(port=26),
        lane={"*": LaneSettings(route=(("127.0.0.1", 2525),))},
    )
    with pytest.raises(ConfigError) as caught:
        plan_reload(FILE, running, written)
    (problem,) = caught.value.problems
    assert problem.startswith(
        f'{FILE}: lane."*".route[0]: with what needs a restart first (listener[0].listen): this is'
    )
