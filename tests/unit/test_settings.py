"""The configuration: its defaults, its file, and what is said about files that can't be used."""

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from mtactl.errors import ConfigError
from mtactl.settings import (
    DeliverySettings,
    LaneSettings,
    ListenerSettings,
    Settings,
    StoreSettings,
    load_settings,
)

DEFAULT_FILE = Path(__file__).parents[2] / "config" / "mtactl.toml"


@pytest.fixture
def load(tmp_path):
    """Give a function that loads a text as a file."""

    def load_text(text):
        path = tmp_path / "mtactl.toml"
        path.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
        return load_settings(path)

    return load_text


@pytest.fixture
def problems(load, tmp_path):
    """Give a function that gives the problems of a text, without the name of the file."""

    def problems_of(text):
        with pytest.raises(ConfigError) as caught:
            load(text)
        prefix = f"{tmp_path / 'mtactl.toml'}"
        assert all(problem.startswith(prefix) for problem in caught.value.problems)
        return [problem.removeprefix(prefix).removeprefix(":") for problem in caught.value.problems]

    return problems_of


def test_the_default_file_says_the_defaults():
    """If the file that people copy differs from what is built in, leaving a key out changes the daemon."""
    settings = load_settings(DEFAULT_FILE)
    defaults = Settings()
    for name in Settings.model_fields:
        if name != "lane":
            assert getattr(settings, name) == getattr(defaults, name), name
    assert settings.lane == {"*": LaneSettings()}


def test_the_default_file_has_every_key():
    """A key that isn't in the file is one that nobody finds."""

    def unset(section):
        for name in type(section).model_fields:
            value = getattr(section, name)
            if name not in section.model_fields_set:
                yield name
            for inner in [value] if isinstance(value, BaseModel) else value if isinstance(value, tuple) else ():
                if isinstance(inner, BaseModel):
                    yield from unset(inner)

    settings = load_settings(DEFAULT_FILE)
    # The names are commented out: their defaults are the machine's own.
    assert sorted([*unset(settings), *unset(settings.lane["*"])]) == ["hostname", "name"]
    text = DEFAULT_FILE.read_text()
    assert "# name = " in text
    assert "# hostname = " in text


def test_an_empty_file_is_all_defaults(load):
    """Each key has a default, so that the first start needs no editing."""
    assert load("") == Settings()


def test_the_contract_example(load):
    """The example of CONTRACT.md §5 is what everyone's first file looks like."""
    settings = load("""
        [node]
        name = "mx1"
        hostname = "mta.example.com"
        [store]
        path = "/var/lib/mtactl"
        reserve = "64MiB"
        keep_outcomes = "30d"
        [control]
        socket = "/run/mtactl/control.sock"
        mode = "0640"
        operators = ["mtactl"]
        observers = ["adm", "domain users"]
        [metrics]
        listen = "none"
        [log]
        format = "console"
        level = "debug"
        [[listener]]
        listen = ":2525"
        relay_from = ["127.0.0.0/8", "::1/128"]
        max_message_size = "50MB"
        max_recipients = 1000
        [[listener]]
        listen = "[::1]:2526"
        [campaign]
        headers = ["X-Job"]
        after_halt = "discard"
        [dns]
        nameservers = ["127.0.0.1:5353"]
        [delivery]
        port = 2500
        retry = ["1m", "5m"]
        expire_after = "3d"
        idle_connection = "0s"
        timeouts.data_end = "20m"
        [lane."*"]
        rate = "6000/min"
        route = ["127.0.0.1:2599", "mx.example.com:25"]
    """)
    assert settings.node.hostname == "mta.example.com"
    assert settings.store.path == Path("/var/lib/mtactl")
    assert settings.store.reserve == 64 << 20
    assert settings.control.mode == 0o640
    assert settings.metrics.listen is None
    assert [listener.listen for listener in settings.listener] == [("", 2525), ("::1", 2526)]
    assert settings.listener[0].max_message_size == 50_000_000
    assert settings.delivery.retry == (60.0, 300.0)
    assert settings.delivery.idle_connection == 0
    assert settings.delivery.timeouts.data_end == 1200.0
    assert settings.delivery.timeouts.connect == 30.0
    assert settings.lane_settings("example.com").rate == 100.0
    assert settings.lane_settings("example.com").route == (("127.0.0.1", 2599), ("mx.example.com", 25))


BAD_FILES = [
    # unknown keys
    ('[node]\nnmae = "x"', ['2: node.nmae: no such key; did you mean "name"?']),
    ("\n[deliver]\nport = 25", ['2: deliver: no such key; did you mean "delivery"?']),
    ("[store]\nport = 25", ['2: store.port: no such key here; there is "delivery.port"']),
    ("[dns]\nfoobar = 25", ["2: dns.foobar: no such key; there are nameservers, timeout, lifetime"]),
    ("[dns]\nlife-time = 25", ['2: dns.life-time: no such key; did you mean "lifetime"?']),
    ('[[listener]]\ntls_key = "/k"', ["2: listener[0].tls_key: this version has no STARTTLS"]),
    ('[[listener]]\nusers_file = "/k"', ["2: listener[0].users_file: this version has no AUTH"]),
    (
        '[lane.example.com]\nrate = "1/s"',
        ['1: lane.example.com: a domain with dots must be quoted: [lane."example.com"]'],
    ),
    ('[delivery.timeouts]\nhelo = "5s"', ['2: delivery.timeouts.helo: no such key; did you mean "ehlo"?']),
    # wrong types
    ("[store]\nreserve = 64", ['2: store.reserve: the number 64 where a size such as "64MiB" belongs']),
    ("[delivery]\nidle_connection = 5.0", ["2: delivery.idle_connection: the number 5.0 where a time such as"]),
    ('[delivery]\nport = "25"', ['2: delivery.port: the text "25" where a whole number belongs']),
    ("[delivery]\nport = true", ["2: delivery.port: true where a whole number belongs"]),
    ('[delivery]\nretry = "1m"', ['2: delivery.retry: the text "1m" where a list belongs: put it in brackets']),
    ('[delivery]\nretry = [\n"1m",\n# here:\n5\n]', ["5: delivery.retry[1]: the number 5 where a time"]),
    ("[control]\nmode = 660", ['2: control.mode: the number 660 where a file mode in quotes, such as "0660", belongs']),
    ("[control]\noperators = [1]", ["2: control.operators[0]: the number 1 where the name of a group belongs"]),
    ("[metrics]\nlisten = 9464", ["2: metrics.listen: the number 9464 where an address such as"]),
    ("[store]\npath = 1979-05-27", ["2: store.path: a date or time of day where a path belongs"]),
    ('[lane."*"]\npipelining = "yes"', ['2: lane."*".pipelining: the text "yes" where true or false belongs']),
    ('[lane."*"]\nrate = 5', ['2: lane."*".rate: the number 5 where a rate such as "100/s", or "none", belongs']),
    ('[listener]\nlisten = ":25"', ["1: listener: one table where several may stand: write [[listener]]"]),
    ("[[delivery]]\nport = 25", ["1: delivery: there is only one such table: write [delivery]"]),
    ("delivery = 5", ["1: delivery: the number 5 where a table belongs"]),
    ("lane = [1]", ["1: lane: a list where a table belongs"]),
    (
        '[lane]\nrate = "5/s"',
        ['2: lane.rate: the text "5/s" where a table belongs: limits belong in a table for some lanes'],
    ),
    # impossible values
    ('[store]\nreserve = "1KiB"', ['2: store.reserve: the text "1KiB" can\'t be: it must be 1MiB or more']),
    ('[store]\nkeep_outcomes = "0s"', ['2: store.keep_outcomes: the text "0s" can\'t be: it must be 1ms or more']),
    ('[store]\npath = "var"', ['2: store.path: "var" would depend on the folder that the daemon is started in']),
    (f'[control]\nsocket = "/{"x" * 107}"', ["2: control.socket: the path has 108 bytes, and 107 are the most"]),
    ('[control]\nmode = "0888"', ['2: control.mode: "0888" is not a file mode']),
    ('[node]\nhostname = "my host"', ['2: node.hostname: "my host" is not a host name or an address literal']),
    ('[node]\nname = ""', ['2: node.name: "" is not a node\'s name']),
    (
        '[log]\nlevel = "warn"',
        ['2: log.level: the text "warn" is none of "debug" or "info" or "warning" or "error"; did'],
    ),
    ("[delivery]\nport = 0", ["2: delivery.port: 0 can't be: it must be from 1 to 65535"]),
    ("[delivery]\nretry = []", ["2: delivery.retry: an empty list leaves no time for a second attempt"]),
    ('[delivery]\nretry = ["0s"]', ['2: delivery.retry[0]: the text "0s" can\'t be']),
    (
        '[delivery]\nretry = ["1h"]\nexpire_after = "90s"',
        ["3: delivery.expire_after: mail would expire after 90s, before the first retry after 1h"],
    ),
    ('[delivery]\nexpire_after = "30s"', ["2: delivery.expire_after: mail would expire after 30s"]),
    ('[dns]\ntimeout = "1m"', ["2: dns.timeout: one query may take 1m, longer than the whole question"]),
    ("[campaign]\nheaders = []", ["2: campaign.headers: without a header no mail has a campaign"]),
    ('[campaign]\nheaders = ["X-Job:"]', ['2: campaign.headers[0]: "X-Job:" has a colon']),
    ('[campaign]\nheaders = ["X-Job",\n"x-job"]', ['3: campaign.headers[1]: "x-job" is in the list already']),
    ("[[listener]]\nmax_line_length = 78", ["2: listener[0].max_line_length: 78 can't be: it must be from 1000"]),
    ('[[listener]]\nrelay_from = ["10.0.0.1/8"]', ['2: listener[0].relay_from[0]: "10.0.0.1/8" has host bits set']),
    (
        '[[listener]]\nmax_message_size = "1GiB"',
        ["2: listener[0].max_message_size: a message of max_message_size would"],
    ),
    (
        '[[listener]]\nlisten = "127.0.0.1:25"\n\n[[listener]]\nlisten = ":25"',
        ["5: listener[1].listen: port 25 of the same address is taken twice"],
    ),
    ('[metrics]\nlisten = "0.0.0.0:2525"', ["2: metrics.listen: port 2525 of the same address is taken twice"]),
    ('[lane."*"]\nmax_connections = 0', ['2: lane."*".max_connections: 0 can\'t be: it must be 1 or more']),
    ('[lane."*"]\nbackoff = []', ['2: lane."*".backoff: a destination out of reach would be tried without a pause']),
    ('[lane."*"]\nroute = ["smtp.example.com"]', ['2: lane."*".route[0]: "smtp.example.com" needs a port']),
    ('[lane."*"]\nroute = ["127.0.0.1:2525"]', ['2: lane."*".route[0]: this is the daemon\'s own listener']),
    ('[lane."Example.com"]', ['1: lane."Example.com": "Example.com" has capital letters']),
    ('[lane."192.0.2.1"]', ['1: lane."192.0.2.1": "192.0.2.1" is an address: the lane of mail to an address literal']),
    ('[lane."*mail.com"]', ['1: lane."*mail.com": "*mail.com": the star stands alone']),
    # lanes, which people write in many ways
    ('[[lane]]\nname = "x.com"', ['1: lane: a lane is named in its own header: write [lane."example.com"]']),
    (
        '[[lane."x.com"]]\nrate = "5/s"',
        ['1: lane."x.com": there is only one such table: write [lane."x.com"] with single'],
    ),
    ('[lane]\nname = "x.com"', ['2: lane.name: the text "x.com" where a table belongs: limits belong in a table']),
    ('[lanes."*"]\nrate = "5/s"', ['1: lanes: no such key; did you mean "lane"?']),
    ('[lane."*"]\nburst = 1\n\n[lane."*"]\nrate = "5/s"', ['4: lane."*": stands twice; the first time on line 1']),
    ("[lane]\n'*' = 5", ['2: lane."*": the number 5 where a table belongs: limits belong']),
    # arrays of tables
    ('[[listener]]\n[[listener]]\nlisten = ":1"\nmax = 5', ["4: listener[1].max: no such key; there are listen"]),
    ("listener = [{ max_recipients = 0 }]", ["1: listener[0].max_recipients: 0 can't be"]),
    ("listener = [5]", ["1: listener[0]: the number 5 where a table belongs"]),
    ("[[listeners]]", ['1: listeners: no such key; did you mean "listener"?']),
    ("listener = []\n[[listener]]", ["2: not TOML: Cannot mutate immutable namespace listener, at"]),
    # twice
    ('[node]\nname = "x"\n[log]\n[node]', ["4: node: stands twice; the first time on line 1"]),
    ('node.name = "x"\n[log]\n[node]', ["3: not TOML: Cannot declare node twice"]),
    ('[delivery]\ntimeouts.data = "5s"\ntimeouts.data = "6s"', ["3: delivery.timeouts.data: stands twice; the first"]),
    ('[[listener]]\nlisten = ":1"\n[[listener]]\nlisten = ":2"\nlisten = ":3"', ["5: listener[1].listen: stands"]),
    # the one to blame of two is the one that is in the file
    ('[dns]\n\nlifetime = "1s"', ["3: dns.lifetime: one query may take 5s, longer than the whole question"]),
    ('[[listener]]\nmax_memory = "1KiB"', ["2: listener[0].max_memory: a message of max_message_size would need"]),
    # not TOML
    ("[node]\nname = x", ["2: not TOML: Invalid value, at column 8 of: name = x"]),
    ('[node]\nname = "x', ["2: not TOML: Unterminated string at the end"]),
    ('[node]\nname = "x"\nname = "y"', ["3: node.name: stands twice; the first time on line 2"]),
    (
        "[lane.*]\n",
        ["1: not TOML: Invalid initial character for a key part, at column 7 of: [lane.*]; quote the pattern"],
    ),
    (
        "[control]\nmode = 0660",
        ["2: not TOML: Expected newline or end of document after a statement, at column 9 of: mode = 0660; no number"],
    ),
    ("node:\n  name: x", ["1: not TOML: Expected '=' after a key in a key/value pair, at column 5 of: node:; between"]),
    ("a = " + "1" * 5000, [" not usable: a number with too many digits"]),
    (b'\xef\xbb\xbf[node]\nname = "x"', ["1: begins with a byte order mark, which is not TOML"]),
    ('[node]\nname = "x"'.encode("utf-16"), ["1: not UTF-8 (TOML is always UTF-8): byte 0xff; it looks like UTF-16"]),
    (b'[node]\nname = "\xff"', ["2: not UTF-8 (TOML is always UTF-8): byte 0xff"]),
]


@pytest.mark.parametrize(("text", "said"), BAD_FILES, ids=[str(text)[:50] for text, _ in BAD_FILES])
def test_bad_files(problems, text, said):
    """A bad file must be refused with the key, the line and the reason, or the administrator guesses at night."""
    found = problems(text)
    assert len(found) == len(said), found
    for problem, beginning in zip(found, said, strict=True):
        assert problem.startswith(beginning)


def test_all_problems_at_once(problems):
    """One problem a try makes a configuration take all evening; contradictions are told beside wrong types."""
    found = problems("""
        [node]
        nmae = "x"
        [[listener]]
        listen = "127.0.0.1:2525"
        max_recipients = "many"
        [[listener]]
        listen = "127.0.0.1:2525"
        [delivery]
        port = 0
        retry = ["1h"]
        expire_after = "1m"
        [lane."*"]
        rate = "fast"
        route = ["here", "there"]
    """)
    assert [problem.split(": ")[:2] for problem in found] == [
        ["3", "node.nmae"],
        ["6", "listener[0].max_recipients"],
        ["8", "listener[1].listen"],
        ["10", "delivery.port"],
        ["12", "delivery.expire_after"],
        ["14", 'lane."*".rate'],
        ["15", 'lane."*".route[0]'],
        ["15", 'lane."*".route[1]'],
    ]


def test_a_wrong_value_is_not_blamed_twice(problems):
    """The default that stands in for an unreadable value must not contradict anything: it is not in the file."""
    assert len(problems('[delivery]\nretry = ["soon"]\nexpire_after = "30s"')) == 1
    assert len(problems('[[listener]]\nlisten = "here"\n[lane."*"]\nroute = ["127.0.0.1:2525"]')) == 1


def test_a_file_that_cannot_be_read(tmp_path):
    """It must be told like a bad one, without a traceback, and without filling the memory."""
    with pytest.raises(ConfigError, match="can't be read: No such file or directory"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        load_settings(tmp_path)
    with pytest.raises(ConfigError, match="larger than 16 MiB: not a configuration file"):
        load_settings(Path("/dev/zero"))


def test_a_file_that_is_not_ours_to_read(tmp_path):
    """The daemon's user is often forgotten when the file is made readable."""
    path = tmp_path / "mtactl.toml"
    path.write_text("")
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read every file
    try:
        with pytest.raises(ConfigError, match="can't be read: Permission denied"):
            load_settings(path)
    finally:
        os.seteuid(user)


def test_control_characters_are_shown(problems):
    """What is wrong goes to a terminal and to the log: the file must not colour the one or break the other's lines."""
    (found,) = problems('[node]\n"\\u001b[31m\\n" = 1')
    assert '"\\x1b[31m\\n": no such key' in found
    assert found.isprintable()


def test_a_file_that_is_nested_too_deeply(problems):
    """A file made to break the reader must not end the daemon at a reload."""
    assert "nested too deeply" in problems("a = " + "[" * 100_000)[0]


@given(st.data())
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_no_edit_is_too_strange(tmp_path, data):
    """A file that was cut, pasted and mistyped must be told as bad, at a line that it has, or be right."""
    lines = DEFAULT_FILE.read_text().split("\n")
    piece = st.sampled_from(
        [*"\"'[]{}=#.,\\", '"""', "5", "x", "\n", "\r\n", "\x00", "é", '"*"', "[[", "]]", "= 1", "lane"]
    )
    for _ in range(data.draw(st.integers(1, 4))):
        here, there = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        match data.draw(st.sampled_from(["drop", "copy", "swap", "cut", "paste"])):
            case "drop":
                del lines[here]
            case "copy":
                lines.insert(there, lines[here])
            case "swap":
                lines[here], lines[there] = lines[there], lines[here]
            case "cut":
                at = data.draw(st.integers(0, len(lines[here])))
                lines[here] = lines[here][:at] + lines[here][at + data.draw(st.integers(1, 8)) :]
            case "paste":
                at = data.draw(st.integers(0, len(lines[here])))
                lines[here] = lines[here][:at] + data.draw(piece) + lines[here][at:]
    path = tmp_path / "mtactl.toml"
    path.write_bytes("\n".join(lines).encode())
    try:
        load_settings(path)
    except ConfigError as error:
        for problem in error.problems:
            found = re.match(rf"{re.escape(str(path))}:(\d+): \S", problem)
            assert found is not None, problem
            assert 1 <= int(found[1]) <= path.read_bytes().count(b"\n") + 1, problem


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        (("127.0.0.1", 25), ("127.0.0.2", 25), False),
        (("127.0.0.1", 25), ("127.0.0.1", 26), False),
        (("127.0.0.1", 0), ("127.0.0.1", 0), False),
        (("0.0.0.0", 25), ("::1", 25), False),
        (("0.0.0.0", 25), ("127.0.0.1", 25), True),
        (("::", 25), ("::1", 25), True),
        (("", 25), ("::1", 25), True),
        (("", 25), ("localhost", 25), True),
        (("::1", 25), ("0:0:0:0:0:0:0:1", 25), True),
        (("localhost", 25), ("localhost", 25), True),
    ],
)
def test_clashing_listeners(load, one, other, clash):
    """Two listeners on one address end in a start that fails half-way; two that can stand together must be let."""

    def written(address):
        host, port = address
        return f'[[listener]]\nlisten = "{f"[{host}]" if ":" in host else host}:{port}"\n'

    text = written(one) + written(other)
    if clash:
        with pytest.raises(ConfigError, match="taken twice"):
            load(text)
    else:
        assert [listener.listen for listener in load(text).listener] == [one, other]


@pytest.mark.parametrize(
    ("listen", "route", "loops"),
    [
        (":2525", "127.0.0.1:2525", True),
        ("0.0.0.0:2525", "127.0.0.2:2525", True),
        ("0.0.0.0:2525", "[::1]:2525", False),
        ("0.0.0.0:2525", "192.0.2.1:2525", False),
        (":2525", "smtp.example.com:2525", False),
        ("127.0.0.1:2525", "127.0.0.1:2526", False),
        ("127.0.0.1:2525", "127.0.0.2:2525", False),
    ],
)
def test_routes_to_ourselves(load, listen, route, loops):
    """A smart host that is the daemon itself sends each mail round until it expires."""
    text = f'[[listener]]\nlisten = "{listen}"\n[lane."*"]\nroute = ["{route}"]'
    if loops:
        with pytest.raises(ConfigError, match="own listener"):
            load(text)
    else:
        load(text)


LANES = Settings(
    lane={
        "*": LaneSettings(max_connections=10, rate=5.0),
        "*.com": LaneSettings(burst=3),
        "*.mail.com": LaneSettings(max_connections=2, rate=None),
        "mx.mail.com": LaneSettings(pipelining=False),
        "[192.0.2.1]": LaneSettings(max_connections=1),
    }
)


@pytest.mark.parametrize(
    ("lane", "expected"),
    [
        ("example.org", LaneSettings(max_connections=10, rate=5.0)),
        ("com", LaneSettings(max_connections=10, rate=5.0)),
        ("example.com", LaneSettings(max_connections=10, rate=5.0, burst=3)),
        ("mail.com", LaneSettings(max_connections=10, rate=5.0, burst=3)),
        ("a.mail.com", LaneSettings(max_connections=2, burst=3)),
        ("a.b.mail.com", LaneSettings(max_connections=2, burst=3)),
        ("mx.mail.com", LaneSettings(max_connections=2, burst=3, pipelining=False)),
        ("notmail.com", LaneSettings(max_connections=10, rate=5.0, burst=3)),
        ("[192.0.2.1]", LaneSettings(max_connections=1, rate=5.0)),
    ],
)
def test_lane_settings(lane, expected):
    """The most specific table wins key by key; else a table for one domain would lift the limits set for all."""
    assert LANES.lane_settings(lane) == expected


def test_lane_settings_without_tables():
    """A lane that nobody configured gets the built-in limits."""
    assert Settings().lane_settings("example.com") == LaneSettings()
    assert Settings(lane={"a.com": LaneSettings(burst=2)}).lane_settings("b.com") == LaneSettings()


def test_lane_settings_are_made_once():
    """They are asked for at each transaction: a new object each time would show in the throughput."""
    assert LANES.lane_settings("a.mail.com") is LANES.lane_settings("b.mail.com")


def test_a_copy_with_other_lanes():
    """A copy that kept what it inherited from would run with the limits of before the reload."""
    assert LANES.lane_settings("x.com").burst == 3
    changed = LANES.model_copy(update={"lane": {"*.com": LaneSettings(burst=9)}})
    assert changed.lane_settings("x.com") == LaneSettings(burst=9)
    assert LANES.lane_settings("x.com").burst == 3


def test_values_from_python():
    """Those who build settings in Python give seconds, bytes and pairs, and are checked as well."""
    settings = Settings(
        store=StoreSettings(path=Path("var"), reserve=1 << 20),
        listener=(ListenerSettings(listen=("127.0.0.1", 0)),),
        delivery=DeliverySettings(retry=(0.05, 1), idle_connection=0),
        lane={"*": LaneSettings(route=(("127.0.0.1", 2526),), rate=2.5)},
    )
    assert settings.delivery.retry == (0.05, 1.0)
    assert settings.lane_settings("x").route == (("127.0.0.1", 2526),)
    for bad in ({"retry": (0.0,)}, {"retry": ("soon",)}, {"port": 70000}, {"tls": "must"}, {"prot": 1}):
        with pytest.raises(ValidationError):
            DeliverySettings(**bad)


def test_settings_are_frozen():
    """A reload swaps the whole; a value that changes under a reader's feet is a race."""
    with pytest.raises(ValidationError):
        Settings().delivery.port = 26


def test_settings_import_nothing_heavy():
    """`mtactld --check` and the client must not load the servers to read a file."""
    code = "import sys, mtactl.settings; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"aiohttp", "aiosmtpd", "aiosmtplib", "apsw", "prometheus_client", "structlog", "uvloop"} & set(loaded)
