"""Quantities as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtactl import quantities


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("5s", 5.0),
        ("1m", 60.0),
        ("10min", 600.0),
        ("1.5h", 5400.0),
        ("30d", 2592000.0),
        ("2w", 1209600.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        (" 0s ", 0.0),
    ],
)
def test_durations(text, seconds):
    """A unit that is read wrongly makes retries come sixty times too often, or never."""
    assert quantities.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("5", 'no unit: write "5s"'),
        ("", "not a time"),
        ("-5s", "not a time"),
        ("5 parsecs", "not a time"),
        ("5S", "not a time"),
        ("5s foo", "not a time"),
        ("\u0665s", "not a time"),
        ("1e3s", "not a time"),
        ("400000d", "hundred years"),
    ],
)
def test_bad_durations(text, says):
    """A time that is guessed at instead of refused does something that no one asked for."""
    with pytest.raises(ValueError, match=says):
        quantities.parse_duration(text)


@given(st.integers(min_value=0, max_value=3_000_000_000).map(lambda milliseconds: milliseconds / 1000))
def test_shown_durations_can_be_read_again(seconds):
    """If a time in an error message can't be pasted into the file, the message misleads."""
    assert quantities.parse_duration(quantities.show_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512B", 512),
        ("64KiB", 65536),
        ("64 KiB", 65536),
        ("64kB", 64000),
        ("64KB", 64000),
        ("50MB", 50_000_000),
        ("50MiB", 50 << 20),
        ("1.5GiB", 3 << 29),
        ("2TiB", 2 << 40),
    ],
)
def test_sizes(text, size):
    """MB and MiB differ by five per cent; a limit that peers see (SIZE) must be the one that was written."""
    assert quantities.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("64", 'write "64B"'),
        ("64M", "not a size"),
        ("64Mb", "not a size"),
        ("64iB", "not a size"),
        ("-1B", "not a size"),
        ("1.5B", "whole number"),
        ("0.3KiB", "whole number"),
        ("9999999999TiB", "any disk"),
    ],
)
def test_bad_sizes(text, says):
    """ "64M" is sixteen times too small if it is read as megabits; so it must be refused."""
    with pytest.raises(ValueError, match=says):
        quantities.parse_size(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("none", None), ("100/s", 100.0), ("6000/min", 100.0), ("6000 / minute", 100.0), ("36/h", 0.01), ("0.5/s", 0.5)],
)
def test_rates(text, rate):
    """A rate in the wrong unit gets a sender blocked by a provider."""
    assert quantities.parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "says"), [("100", "not a rate"), ("0/s", "mtactl hold"), ("5/fortnight", "not a rate")]
)
def test_bad_rates(text, says):
    """A rate of nothing would look like a hang."""
    with pytest.raises(ValueError, match=says):
        quantities.parse_rate(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:25", ("127.0.0.1", 25)),
        ("mx.example.com:2525", ("mx.example.com", 2525)),
        ("[::1]:25", ("::1", 25)),
        (":2525", ("", 2525)),
        ("*:2525", ("", 2525)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
    ],
)
def test_listen_addresses(text, address):
    """A form that CONTRACT.md shows and that isn't read keeps the daemon from starting."""
    assert quantities.parse_host_port(text, wildcard=True) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("example.com", 'write "example.com:25"'),
        ("::1", r'write "\[::1\]:25"'),
        ("[::1]", "not an address"),
        ("[::1:25", "not an address|not an IPv6"),
        ("[::g]:25", "not an IPv6 address"),
        ("example.com:smtp", "not a port"),
        ("example.com:65536", "not a port"),
        ("example.com:0", "not a port"),
        ("example.com:²5", "not a port"),
        (":25", "not a host name"),
        ("-x.example.com:25", "not a host name"),
        ("1.2.3.256:25", "not a host name"),
        ("a_b.example.com:25", "not a host name"),
        ("http://example.com:25", "not an address"),
        ("", "not an address"),
    ],
)
def test_bad_routes(text, says):
    """A smart host that can't be reached by its form is found at the first mail instead of at `--check`."""
    with pytest.raises(ValueError, match=says):
        quantities.parse_host_port(text, wildcard=False)


def test_modes():
    """ "0660" read as decimal opens the control socket to the wrong people."""
    assert quantities.parse_mode("0660") == 0o660
    assert quantities.parse_mode("660") == 0o660
    for text in ("0668", "10660", "rw-rw----", "", "0060"):
        with pytest.raises(ValueError, match=r"file mode|locks out"):
            quantities.parse_mode(text)


def test_networks():
    """A network with host bits set is a slip of the pen: the wrong machines would be trusted."""
    assert quantities.parse_network("10.0.0.0/8") == "10.0.0.0/8"
    assert quantities.parse_network("10.1.2.3") == "10.1.2.3/32"
    with pytest.raises(ValueError, match=r'write "10\.0\.0\.0/8"'):
        quantities.parse_network("10.1.2.3/8")
    with pytest.raises(ValueError, match="not a network"):
        quantities.parse_network("example.com")


def test_header_names():
    """A name that no header can have would leave every mail without a campaign, and nothing could be halted."""
    assert quantities.parse_header_name("X-Campaign-ID") == "X-Campaign-ID"
    for text, says in [("X-Job:", 'write "X-Job"'), ("X Job", "not a header name"), ("", "not a"), ("X-Jöb", "not a")]:
        with pytest.raises(ValueError, match=says):
            quantities.parse_header_name(text)


@pytest.mark.parametrize("text", ["192.0.2.53", "2001:db8::53", "192.0.2.53:5353", "[2001:db8::53]:5353"])
def test_name_servers(text):
    """Each of these is a form in which an address is usually written."""
    assert quantities.parse_nameserver(text) == text


def test_bad_name_servers():
    """The name of a name server can't be looked up."""
    with pytest.raises(ValueError, match="not the address of a name server"):
        quantities.parse_nameserver("ns.example.com")


@pytest.mark.parametrize(
    "text", ["*", "*.com", "*.mail.example.com", "example.com", "xn--mnchen-3ya.example", "[192.0.2.1]"]
)
def test_lane_patterns(text):
    """A lane is a domain in its A-label form, in lower case, or some of them."""
    assert quantities.parse_lane_pattern(text) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Example.com", 'write "example.com"'),
        ("münchen.example", "A-label"),
        ("mx*.example.com", "star stands alone"),
        ("*example.com", "star stands alone"),
        ("**", "star stands alone"),
        ("example.com.", 'write "example.com"'),
        ("user@example.com", 'by the domain, "example.com"'),
        ("[192.0.2.256]", "address literal"),
        ("", "not"),
        ("a..b", "not"),
    ],
)
def test_bad_lane_patterns(text, says):
    """A pattern that matches nothing leaves its limits without effect, and no one notices."""
    with pytest.raises(ValueError, match=says):
        quantities.parse_lane_pattern(text)
