"""The JSON schema for editors: that it is the settings' own, takes what they take, and marks what they turn down."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mtactl import quantities
from mtactl.settings import load_settings
from mtactl.settings_schema import make_schema, write_schema
from tests.unit.test_settings import BAD_FILES

CONFIG = Path(__file__).parents[2] / "config"
COMMENTED = (CONFIG / "mtactl.toml").read_text()
SCHEMA = json.loads((CONFIG / "mtactl.schema.json").read_text())
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)

# What only the daemon can tell: what two values say against each other, what a text comes to, what a list repeats.
BEYOND_A_SCHEMA = (
    "mail would expire",
    "one query may take",
    "a message of max_message_size would",
    "is taken twice",
    "the daemon's own listener",
    "is in the list already",
    "it must be 1MiB or more",
    "has host bits set",
    "is an address: the lane",
)


def test_the_file_is_up_to_date():
    """An editor that works by last year's keys marks this year's as mistakes. `make schema` writes it anew."""
    assert (CONFIG / "mtactl.schema.json").read_text() == write_schema(COMMENTED)


def test_editors_find_it():
    """The directive must be the first line and name a file that lies beside it."""
    directive = COMMENTED.partition("\n")[0]
    found = re.fullmatch(r"#:schema (\./\S+)", directive)
    assert found is not None
    assert (CONFIG / found[1]).resolve() == (CONFIG / "mtactl.schema.json").resolve()


def test_it_is_a_schema_in_which_each_key_is_explained():
    """An editor shows the description and the default at each key; a schema that is not one is ignored in silence."""
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert "$ref" not in json.dumps(SCHEMA)

    def look(table, at):
        assert table["additionalProperties"] is False, at
        for name, value in table["properties"].items():
            assert len(value["description"]) > 5, (at, name)
            inner = [value, value.get("items", {}), *value.get("patternProperties", {}).values()]
            tables = [each for each in inner if "properties" in each]
            for each in tables:
                look(each, (*at, name))
            assert tables or "default" in value or (*at, name) in {("node", "name"), ("node", "hostname")}, (at, name)

    look(SCHEMA, ())


def test_a_key_without_a_comment_is_told():
    """A key that is added to the settings must be explained in the default file, where people look."""
    with pytest.raises(ValueError, match="has no comment"):
        make_schema(
            COMMENTED.replace('reserve = "64MiB"                # kept free', 'reserve = "64MiB"  '.ljust(40) + "\n#")
        )
    with pytest.raises(ValueError, match="is not in the default file"):
        make_schema(re.sub(r"(?m)^burst = .*\n", "", COMMENTED))


VALID_FILES = {
    "the default": COMMENTED,
    "empty": "",
    "for development": (CONFIG / "development.toml.in").read_text().replace("@VAR@", "/var/tmp"),
    "all kinds": """
        [node]
        hostname = "[IPv6:2001:db8::1]"
        [store]
        reserve = "1.5 GiB"
        keep_outcomes = "1h30m"
        [control]
        mode = "640"
        operators = ["domain users"]
        observers = []
        [metrics]
        listen = "None"
        [[listener]]
        listen = ":0"
        relay_from = ["192.0.2.1", "10.0.0.0/255.0.0.0", "2001:db8::/32"]
        [[listener]]
        listen = "*:2526"
        [[listener]]
        listen = "[::1]:2527"
        [dns]
        nameservers = ["192.0.2.53", "2001:db8::53", "192.0.2.53:5353", "[2001:db8::53]:5353"]
        [delivery]
        idle_connection = "0s"
        timeouts.data_end = "20m"
        [lane."*"]
        rate = "6000 / MIN"
        route = ["mx.example.com:25", "[::1]:2528", "127.0.0.1:65535"]
        [lane."*.example.com"]
        rate = "none"
        [lane."xn--bcher-kva.example"]
        [lane."[192.0.2.1]"]
    """,
}


@pytest.mark.parametrize("name", VALID_FILES)
def test_valid_files(name, tmp_path):
    """An editor that marks what is right is switched off."""
    path = tmp_path / "mtactl.toml"
    path.write_text(VALID_FILES[name])
    load_settings(path)
    assert [error.message for error in VALIDATOR.iter_errors(tomllib.loads(VALID_FILES[name]))] == []


def is_toml(text):
    """Tell whether a parser reads it at all."""
    try:
        tomllib.loads(text)
    except (ValueError, TypeError):
        return False
    return True


TOML = [(text, said) for text, said in BAD_FILES if is_toml(text)]


@pytest.mark.parametrize(("text", "said"), TOML, ids=[text[:50] for text, _ in TOML])
def test_bad_files(text, said):
    """What the daemon turns down should be marked while it is written, as far as a schema can."""
    found = [*VALIDATOR.iter_errors(tomllib.loads(text))]
    if any(beyond in said[0] for beyond in BEYOND_A_SCHEMA):
        assert not found
        return
    assert found
    # It is marked at the key that the daemon names.
    named = re.match(r"\d+: ([^:]+|.*\"):? ", said[0])[1]
    places = {".".join(str(part) for part in error.absolute_path) for error in found}
    last = re.split(r"[.\[]", named.replace('"', ""))[0]
    assert any(place == "" or place.startswith(last) for place in places), (named, places)


TAPLO = Path(sys.executable).with_name("taplo")


@pytest.mark.skipif(not TAPLO.exists(), reason="taplo has no wheel for this machine")
def test_an_editor_understands_it(tmp_path):
    """taplo is what editors run: it must find the schema by the directive, and understand it."""

    def lint(text):
        for name in ("mtactl.toml", "mtactl.schema.json"):
            (tmp_path / name).write_text(text if name == "mtactl.toml" else json.dumps(SCHEMA))
        run = subprocess.run([TAPLO, "lint", "mtactl.toml"], cwd=tmp_path, capture_output=True, text=True)
        return run.returncode, run.stderr

    code, said = lint(COMMENTED)
    assert (code, "error" in said) == (0, False), said
    code, said = lint(
        COMMENTED.replace('reserve = "64MiB"', "reserve = 64").replace('expire_after = "3d"', 'expire_afer = "3d"')
    )
    assert code == 1
    assert '64 is not of type "string"' in said
    assert "('expire_afer' was unexpected)" in said


PARSERS = {
    "duration": quantities.parse_duration,
    "size": quantities.parse_size,
    "rate": quantities.parse_rate,
    "mode": quantities.parse_mode,
    "host_port": lambda text: quantities.parse_host_port(text, wildcard=False),
    "listen": lambda text: quantities.parse_host_port(text, wildcard=True),
    "nameserver": quantities.parse_nameserver,
    "network": quantities.parse_network,
    "header": quantities.parse_header_name,
    "lane": quantities.parse_lane_pattern,
}
PIECES = [
    *"0123456789.:/[]*%- _sSmhdwkKGTiBxX",
    "ms",
    "min",
    "none",
    "day",
    "KiB",
    "MB",
    "::1",
    "127.0.0.1",
    "a.example",
]
PIECES += ["/8", "/32", "2001:db8::", "fe80::1%eth0", "65535", "65536", "ipv6:", "é", "/hour", "0660"]


@pytest.mark.parametrize("form", PARSERS)
@given(text=st.one_of(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), st.text(max_size=12)))
@example(text="[fe80::1%eth0]:25")
@example(text="none")
@example(text="1h30m")
def test_what_is_read_has_its_form(form, text):
    """A value that the daemon takes and the schema marks is a false alarm in every editor."""
    try:
        PARSERS[form](text)
    except ValueError:
        return
    assert re.search(quantities.FORMS[form], text), (form, text)
