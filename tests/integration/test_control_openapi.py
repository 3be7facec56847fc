"""The OpenAPI document against the server that it describes."""

import json
import re
from typing import Any

import pytest

from queue_store.errors import StoreFailed
from tests.world.control import Answer, Api, serving
from tests.world.memory_node import MemoryNode, fill

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
KNOWN = {"title", "description", "default", "type", "enum", "anyOf", "$ref", "properties", "required", "items"}
KNOWN |= {"additionalProperties", "pattern", "maxLength", "minLength", "minimum", "maximum"}


def fits(value: Any, schema: dict[str, Any], document: dict[str, Any], where: str = "$") -> None:
    """Assert that the value fits the schema (the part of JSON Schema that the document uses), and has no more."""
    assert schema.keys() <= KNOWN, schema
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        return fits(value, document["components"]["schemas"][name], document, where)
    if "anyOf" in schema:
        errors = []
        for choice in schema["anyOf"]:
            try:
                return fits(value, choice, document, where)
            except AssertionError as error:
                errors.append(str(error))
        raise AssertionError(f"{where}: none of {errors}")
    if "enum" in schema:
        assert value in schema["enum"], where
    if "type" in schema:
        assert isinstance(value, TYPES[schema["type"]]), f"{where}: {value!r} is no {schema['type']}"
        assert not isinstance(value, bool) or schema["type"] == "boolean", where
    if isinstance(value, list):
        for index, item in enumerate(value):
            fits(item, schema["items"], document, f"{where}[{index}]")
    if isinstance(value, str) and "pattern" in schema:
        assert re.search(schema["pattern"], value), where
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= value.keys(), f"{where}: {schema.get('required')} in {value}"
        for key, item in value.items():
            if "properties" in schema and key in schema["properties"]:
                fits(item, schema["properties"][key], document, f"{where}.{key}")
            elif isinstance(schema.get("additionalProperties"), dict):
                fits(item, schema["additionalProperties"], document, f"{where}.{key}")
            else:
                assert "properties" not in schema, f"{where}.{key} is not in the document"
    return None


def check(document: dict[str, Any], method: str, path: str, answer: Answer) -> None:
    """Assert that an answer is one that the document has for this method and path."""
    responses = document["paths"][path][method.lower()]["responses"]
    assert str(answer.status) in responses, f"{method} {path}: {answer.status} {answer.body!r}"
    contents = responses[str(answer.status)]["content"]
    media = answer.headers["Content-Type"].partition(";")[0]
    assert media in contents
    content = contents[media]
    if media in {"application/json", "application/problem+json"}:
        fits(answer.json, content["schema"], document)
    elif media == "application/x-ndjson":
        for line in answer.body.splitlines():
            fits(json.loads(line), content["x-item-schema"], document)
    elif media == "text/event-stream":
        for line in answer.body.splitlines():
            if line.startswith(b"data: "):
                fits(json.loads(line[6:]), content["x-item-schema"], document)


@pytest.fixture
async def api():
    node = fill(MemoryNode(), recipients=20)
    node.begin("autumn-sale", 4)
    async with serving(node) as api:
        yield api


async def document_of(api: Api) -> dict[str, Any]:
    answer = await api.get("/v1/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    return answer.json


HALT = {"confirm": "autumn-sale"}
# Method, path in the document, what is sent, and what comes back. Those with 200 come in an order that makes sense.
REQUESTS = [
    ("GET", "/v1/openapi.json", "/v1/openapi.json", None, 200),
    ("GET", "/v1/status", "/v1/status", None, 200),
    ("GET", "/v1/status", "/v1/status?x=1", None, 400),
    ("GET", "/v1/campaigns", "/v1/campaigns", None, 200),
    ("GET", "/v1/campaigns", "/v1/campaigns?match=SALE&sort=queued&limit=1", None, 200),
    ("GET", "/v1/campaigns", "/v1/campaigns?state=x", None, 400),
    ("GET", "/v1/campaigns", "/v1/campaigns?limit=0", None, 400),
    ("GET", "/v1/campaigns/{campaign}", "/v1/campaigns/autumn-sale", None, 200),
    ("GET", "/v1/campaigns/{campaign}", "/v1/campaigns/-", None, 400),
    ("GET", "/v1/campaigns/{campaign}", "/v1/campaigns/none", None, 404),
    ("GET", "/v1/campaigns/{campaign}/analysis", "/v1/campaigns/autumn-sale/analysis", None, 200),
    ("GET", "/v1/campaigns/{campaign}/analysis", "/v1/campaigns/none/analysis", None, 404),
    ("GET", "/v1/campaign-ids", "/v1/campaign-ids?prefix=a&state=active,held&limit=1", None, 200),
    ("GET", "/v1/campaign-ids", "/v1/campaign-ids?prefix=-", None, 400),
    ("POST", "/v1/campaigns/{campaign}/hold", "/v1/campaigns/autumn-sale/hold", None, 200),
    ("POST", "/v1/campaigns/{campaign}/hold", "/v1/campaigns/autumn-sale/hold", {"x": 1}, 422),
    ("POST", "/v1/campaigns/{campaign}/release", "/v1/campaigns/autumn-sale/release", None, 200),
    ("POST", "/v1/campaigns/{campaign}/release", "/v1/campaigns/none/release", None, 404),
    ("POST", "/v1/campaigns/{campaign}/halt", "/v1/campaigns/autumn-sale/halt", HALT, 200),
    ("POST", "/v1/campaigns/{campaign}/halt", "/v1/campaigns/autumn-sale/halt", None, 422),
    ("POST", "/v1/campaigns/{campaign}/halt", "/v1/campaigns/-/halt", HALT, 400),
    ("POST", "/v1/campaigns/{campaign}/halt", "/v1/campaigns/autumn-sale/halt", "x" * 70_000, 413),
    ("POST", "/v1/campaigns/{campaign}/hold", "/v1/campaigns/autumn-sale/hold", None, 409),
    ("POST", "/v1/campaigns/{campaign}/release", "/v1/campaigns/autumn-sale/release", None, 409),
    ("GET", "/v1/campaigns/{campaign}", "/v1/campaigns/autumn-sale", None, 200),
    ("GET", "/v1/campaigns/{campaign}/analysis", "/v1/campaigns/autumn-sale/analysis", None, 200),
    ("GET", "/v1/campaigns/{campaign}/recipients", "/v1/campaigns/welcome@shop/recipients", None, 200),
    ("GET", "/v1/campaigns/{campaign}/recipients", "/v1/campaigns/welcome@shop/recipients?format=csv", None, 200),
    ("GET", "/v1/campaigns/{campaign}/recipients", "/v1/campaigns/none/recipients", None, 404),
    ("GET", "/v1/queue", "/v1/queue", None, 200),
    ("GET", "/v1/queue", "/v1/queue?limit=0", None, 400),
    ("GET", "/v1/queue/{message}", "/v1/queue/{known}", None, 200),
    ("GET", "/v1/queue/{message}", "/v1/queue/ZZZZZZZZZZ", None, 404),
    ("POST", "/v1/queue/retry", "/v1/queue/retry", None, 200),
    ("POST", "/v1/queue/retry", "/v1/queue/retry", "[]", 422),
    ("POST", "/v1/queue/drop", "/v1/queue/drop", {"domain": "example.net"}, 200),
    ("POST", "/v1/queue/drop", "/v1/queue/drop", None, 422),
    ("GET", "/v1/lanes", "/v1/lanes", None, 200),
    ("GET", "/v1/lanes", "/v1/lanes?match=example&sort=backoff&limit=1", None, 200),
    ("GET", "/v1/lanes", "/v1/lanes?lane=", None, 400),
    ("GET", "/v1/events", "/v1/events?follow=false", None, 200),
    ("GET", "/v1/events", "/v1/events?follow=false&outcomes=false", None, 200),
    ("GET", "/v1/events", "/v1/events?follow=x", None, 400),
    ("POST", "/v1/reload", "/v1/reload", None, 200),
    ("POST", "/v1/reload", "/v1/reload", "{", 400),
]


async def test_every_answer_is_in_the_document_and_fits_its_schema(api):
    """Broken: a client that was generated from the document fails on what the daemon really says."""
    document = await document_of(api)
    known = next(iter(api.node.entries.values())).message
    for method, path, target, body, status in REQUESTS:
        data = None if body is None else body if isinstance(body, str) else json.dumps(body)
        answer = await api.ask(method, target.format(known=known), data=data)
        assert answer.status == status, f"{method} {target}: {answer.body!r}"
        check(document, method, path, answer)
    operations = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert {(method, path) for method, path, *_, status in REQUESTS if status == 200} == operations


async def test_failures_are_in_the_document(api):
    """Broken: the document is silent on what happens when the disk or the daemon fails."""
    document = await document_of(api)
    api.node.failures = dict.fromkeys(("halt", "hold", "retry", "queue", "message"), StoreFailed("EIO"))
    for method, path, target, body in (
        ("POST", "/v1/campaigns/{campaign}/halt", "/v1/campaigns/c1/halt", b'{"confirm":"c1"}'),
        ("POST", "/v1/campaigns/{campaign}/hold", "/v1/campaigns/c1/hold", None),
        ("POST", "/v1/queue/retry", "/v1/queue/retry", None),
        ("GET", "/v1/queue", "/v1/queue", None),
        ("GET", "/v1/queue/{message}", "/v1/queue/0000000001", None),
    ):
        answer = await api.ask(method, target, data=body)
        assert answer.status == 503
        check(document, method, path, answer)
    api.node.failures = {"queue": RuntimeError("a defect")}
    check(document, "GET", "/v1/queue", await api.get("/v1/queue"))


async def test_every_query_parameter_of_the_document_is_taken(api):
    """Broken: a filter that the document offers is refused, or its default is another one."""
    document = await document_of(api)
    for path, item in document["paths"].items():
        for parameter in item.get("get", {}).get("parameters", ()):
            if parameter["in"] != "query":
                continue
            schema = parameter["schema"]
            words = schema.get("enum") or schema.get("items", {}).get("enum") or [schema.get("default", "a")]
            for word in words:
                value = str(word).lower() if isinstance(word, bool) else word
                target = f"{path}?{parameter['name']}={value}".format(campaign="autumn-sale", message="1")
                async with api.open("GET", target) as response:
                    assert response.status == 200, target


async def test_the_document_is_whole(api):
    """Broken: a generator of clients stops at a reference that leads nowhere, or at two operations of one name."""
    document = await document_of(api)
    assert document["openapi"].startswith("3.1.")
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    assert set(re.findall(r'"#/components/schemas/(\w+)"', text)) == schemas.keys()
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for path, item in document["paths"].items():
        for operation in item.values():
            variables = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
            assert variables == set(re.findall(r"{(\w+)}", path))


@pytest.mark.parametrize(
    ("path", "body", "fits_it"),
    [
        ("/v1/campaigns/autumn-sale/halt", {}, False),
        ("/v1/campaigns/autumn-sale/halt", {"confirm": None}, False),
        ("/v1/campaigns/autumn-sale/halt", {"confirm": "autumn-sale"}, True),
        ("/v1/queue/drop", {}, False),
        ("/v1/queue/drop", {"domain": None, "id": None}, False),
        ("/v1/queue/drop", {"domain": ""}, False),
        ("/v1/queue/drop", {"domain": "example.net"}, True),
        ("/v1/queue/drop", {"sender": ""}, True),
        ("/v1/queue/drop", {"id": "0000000001"}, True),
        ("/v1/queue/drop", {"id": "\u017f000000001"}, False),
        ("/v1/queue/drop", {"id": "0000000000"}, False),
        ("/v1/queue/drop", {"campaign": "-"}, False),
        ("/v1/queue/retry", {}, True),
        ("/v1/queue/retry", {"campaign": "two words"}, False),
        ("/v1/queue/retry", {"id": "8ZZZZZZZZZZZZ"}, False),
        ("/v1/queue/retry", {"id": "7zzzzzzzzzzzz"}, True),
    ],
)
async def test_body_fits_the_document_if_it_is_taken(api, path, body, fits_it):
    """Broken: a client that was generated from the document sends what is always refused."""
    document = await document_of(api)
    template = path.replace("autumn-sale", "{campaign}")
    request = document["paths"][template]["post"]["requestBody"]
    # `allOf` with the type and the rule beside it, or the type alone.
    parts = request["content"]["application/json"]["schema"]["allOf"]
    assert obeys(body, parts[1]) is fits_it
    assert (await api.post(path, body)).status == (200 if fits_it else 422)
    if not obeys({}, parts[1]):
        assert request["required"] is True


def obeys(body: dict, rule: dict) -> bool:
    """Whether a body obeys a rule (the part of JSON Schema that those of the routes have)."""
    if any(name not in body for name in rule.get("required", ())):
        return False
    for name, about in rule.get("properties", {}).items():
        value = body.get(name)
        if name in body and "type" in about and not isinstance(value, TYPES[about["type"]]):
            return False
        shortest, pattern = about.get("minLength", 0), about.get("pattern", "")
        if isinstance(value, str) and (len(value) < shortest or not re.search(pattern, value)):
            return False
    return not rule.get("anyOf") or any(obeys(body, choice) for choice in rule["anyOf"])
