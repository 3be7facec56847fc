"""Finding the route, the campaign and the query in what came over the wire."""

import contextlib
import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtactl.control.parameters import CAMPAIGN_PATTERN, Choice, Choices, Flag, Number, Text, read_query
from mtactl.control.problems import ProblemKind, Refusal
from mtactl.control.router import ROUTES, Router

ROUTER = Router()
SAFE = string.ascii_letters + string.digits
campaigns = st.one_of(
    st.from_regex(CAMPAIGN_PATTERN, fullmatch=True),
    st.lists(st.sampled_from(["a", "halt", "hold", "release", "recipients", "..", ".", ""]), min_size=1).map(
        lambda parts: "x" + "/".join(parts)
    ),
).filter(lambda campaign: len(campaign) <= 128)
verbs = st.sampled_from(
    [("GET", ""), ("GET", "/recipients"), ("POST", "/halt"), ("POST", "/hold"), ("POST", "/release")]
)


@given(campaign=campaigns, verb=verbs, form=st.sampled_from(["all", "needed", "lower"]))
def test_an_encoded_id_always_means_itself(campaign, verb, form):
    """Broken: some campaign can't be halted, or its halt hits another one."""
    method, after = verb
    written = {
        "all": "".join(f"%{byte:02X}" for byte in campaign.encode()),
        "needed": quote(campaign, safe=""),
        "lower": "".join(c if c in SAFE else f"%{ord(c):02x}" for c in campaign),
    }[form]
    match = ROUTER.match(method, f"/v1/campaigns/{written}{after}?x=%2F")
    assert match.name == campaign
    assert match.route.path == f"/v1/campaigns/{{campaign}}{after}"
    assert match.query == "x=%2F"


@given(campaign=st.from_regex(CAMPAIGN_PATTERN, fullmatch=True), verb=verbs)
def test_an_id_as_it_is_means_itself_behind_a_verb(campaign, verb):
    """Broken: `curl …/2026/autumn/halt` asks for another campaign."""
    method, after = verb
    ends_like_a_verb = campaign.rpartition("/")[2] in {"halt", "hold", "release", "recipients"} and "/" in campaign
    if after or not ends_like_a_verb:
        assert ROUTER.match(method, f"/v1/campaigns/{campaign}{after}").name == campaign


@given(target=st.text(max_size=40), method=st.sampled_from(["GET", "POST", "PUT"]))
def test_no_target_is_too_strange(target, method):
    """Broken: a request that no one foresaw ends in a traceback."""
    for path in (target, f"/v1/campaigns/{target}", f"/v1/queue/{target}", f"http://{target}"):
        with contextlib.suppress(Refusal):
            ROUTER.match(method, path)


@pytest.mark.parametrize(
    ("target", "path", "name"),
    [
        ("http://mtactl/v1/status", "/v1/status", ""),
        ("HTTP://mtactl/v1/status?x", "/v1/status", ""),
        ("/v1/status#part", "/v1/status", ""),
        ("/v1/queue/0000000001", "/v1/queue/{message}", "0000000001"),
        ("/v1/queue/a%2Fb", "/v1/queue/{message}", "a/b"),
        ("/v1/campaigns/status", "/v1/campaigns/{campaign}", "status"),
    ],
)
def test_targets_in_their_various_forms(target, path, name):
    """Broken: a client that sends the absolute form, which RFC 9112 §3.2.2 allows, is told that there is nothing."""
    match = ROUTER.match("GET", target)
    assert (match.route.path, match.name) == (path, name)


def test_a_plain_path_wins_over_a_variable():
    """Broken: `POST /v1/queue/drop` asks for a message named `drop`."""
    assert ROUTER.match("POST", "/v1/queue/drop").route.name == "drop"
    with pytest.raises(Refusal) as caught:
        ROUTER.match("GET", "/v1/queue/retry")
    assert caught.value.headers == {"Allow": "POST"}


def test_the_routes_are_those_of_the_contract():
    """Broken: a path that CONTRACT.md §4 promises is gone."""
    assert {(route.method, route.path) for route in ROUTES} == {
        ("GET", "/v1/status"),
        ("GET", "/v1/campaigns"),
        ("GET", "/v1/campaigns/{campaign}"),
        ("GET", "/v1/campaigns/{campaign}/analysis"),  # beside the contract, as the next one
        ("GET", "/v1/campaign-ids"),
        ("POST", "/v1/campaigns/{campaign}/halt"),
        ("POST", "/v1/campaigns/{campaign}/hold"),
        ("POST", "/v1/campaigns/{campaign}/release"),
        ("GET", "/v1/campaigns/{campaign}/recipients"),
        ("GET", "/v1/queue"),
        ("GET", "/v1/queue/{message}"),
        ("POST", "/v1/queue/retry"),
        ("POST", "/v1/queue/drop"),
        ("GET", "/v1/lanes"),
        ("GET", "/v1/events"),
        ("POST", "/v1/reload"),
        ("GET", "/v1/openapi.json"),
    }


PARAMETERS = (
    Text(name="campaign", about="", pattern=CAMPAIGN_PATTERN),
    Text(name="domain", about="", fold=True),
    Choice(name="format", about="", words=("a", "b"), otherwise="a"),
    Choices(name="outcome", about="", words=("x", "y", "z")),
    Flag(name="flag", about="", otherwise=False),
    Number(name="limit", about="", least=1, most=50, otherwise=10),
)
DEFAULTS = {"campaign": None, "domain": None, "format": "a", "outcome": None, "flag": False, "limit": 10}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", {}),
        ("&&", {}),
        ("campaign=a+b%2B%2f", {"campaign": "a+b+/"}),
        ("domain=EXAMPLE.com&format=b", {"domain": "example.com", "format": "b"}),
        ("outcome=x,y&outcome=z", {"outcome": frozenset("xyz")}),
        ("outcome=x%2Cy", {"outcome": frozenset("xy")}),
        ("flag", {"flag": True}),
        ("flag=1", {"flag": True}),
        ("flag=False", {"flag": False}),
        ("limit=050", {"limit": 50}),
        ("%6cimit=1", {"limit": 1}),
    ],
)
def test_a_query_is_read(raw, expected):
    """Broken: a filter means something else than what was written."""
    assert read_query(raw, PARAMETERS) == DEFAULTS | expected


@pytest.mark.parametrize(
    "raw",
    [
        *("campaign=", "campaign=a%20b", "campaign=a&campaign=a", "format=c", "outcome=", "outcome=x,", "flag=ja"),
        *("limit=0", "limit=51", "limit=%C2%B2", "limit=99999999999999999999", "limits=1", "LIMIT=1"),
        *("=1", "domain=%ff"),
    ],
)
def test_a_query_that_is_wrong_is_refused(raw):
    """Broken: a filter that is not understood is passed over."""
    with pytest.raises(Refusal) as caught:
        read_query(raw, PARAMETERS)
    assert caught.value.kind is ProblemKind.BAD_PARAMETER


@given(raw=st.text(alphabet="campignlt=&%+,0123456789abcdefx/\x00ü", max_size=30))
def test_no_query_is_too_strange(raw):
    """Broken: a query that no one foresaw ends in a traceback."""
    with contextlib.suppress(Refusal):
        assert read_query(raw, PARAMETERS).keys() == DEFAULTS.keys()
