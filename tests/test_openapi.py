"""The document says what the service does: of each path, each method, and each type of job."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import falcon.testing
import jsonschema_rs
import msgspec
import openapi_spec_validator
import pytest
from msgspec import Meta

import actors
from actors import Settings, System
from actors.handlers import Handlers, simulated
from api.app import create_app
from api.openapi import OPERATIONS, document

METHODS = {"get", "head", "post", "put", "patch", "delete", "options"}


@dataclass
class Picture:
    path: str
    width: int = 100


class Mail(msgspec.Struct):
    """A mail to be sent."""

    to: Annotated[str, Meta(min_length=3)]
    copies: list[Picture] = []


class Checked(msgspec.Struct):
    name: str

    def __post_init__(self) -> None:
        raise ValueError("nothing fits")


class Strange(msgspec.Struct):
    value: complex


def thumbnail(payload: Picture) -> None: ...
def mail(payload: Mail) -> None: ...
def check(payload: Checked) -> None: ...
def guess(payload: Strange) -> None: ...
def anything(payload: Any) -> None: ...


def described(handlers: Handlers) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document(OPERATIONS, handlers))
    openapi_spec_validator.validate(found)
    return found


def validator(described: dict[str, Any], schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    whole = {**schema, "components": described["components"]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


def jobs_of(handlers: Handlers) -> jsonschema_rs.Draft202012Validator:
    found = described(handlers)
    return validator(found, {"$ref": "#/components/schemas/Submission"})


def typed(**functions: Any) -> Handlers:
    return Handlers(functions)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with actors.start(Settings(simulated_seconds=0)) as system:
        yield system


def test_each_operation_of_the_table_is_there_and_nothing_else_is(system: System) -> None:
    app = create_app(system)
    for operation in OPERATIONS:
        route = app._router.find(operation.path.replace("{job_id}", "0" * 16))
        assert route is not None
        resource, responders, _, template = route
        assert template == operation.path
        own = {method for method in responders if hasattr(resource, f"on_{method.lower()}")}
        gets = {"GET", "HEAD"}
        in_table = {other.method for other in OPERATIONS if other.path == operation.path}
        assert own == in_table | (gets if "GET" in in_table else set())


def test_head_is_wherever_get_is_and_options_everywhere() -> None:
    for path in described(simulated(0))["paths"].values():
        assert "options" in path
        assert ("head" in path) == ("get" in path)


def test_names_of_operations_are_unique() -> None:
    paths = described(simulated(0))["paths"].values()
    names = [path[method]["operationId"] for path in paths for method in METHODS & path.keys()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("handlers", [simulated(0), typed(mail=mail, any=anything)])
def test_every_example_fits_its_schema_and_every_answer_with_content_has_one(handlers: Handlers) -> None:
    found = described(handlers)
    contents = list(_contents(found))
    assert len(contents) > 20
    for content in contents:
        fits = validator(found, content["schema"])
        named = content.get("examples", {"one": {"value": content.get("example")}})
        values = [example["value"] for example in named.values()]
        assert values
        for value in values:
            fits.validate(value)


def _contents(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield from node.get("content", {}).values()
        for part in node.values():
            yield from _contents(part)


def test_where_there_are_handlers_a_job_is_of_one_of_their_types() -> None:
    jobs = jobs_of(typed(mail=mail, any=anything))
    assert jobs.is_valid({"type": "any", "payload": [1]})
    assert jobs.is_valid({"type": "any"})
    assert not jobs.is_valid({"type": "other"})


def test_the_payload_of_a_typed_handler_is_described_by_its_model() -> None:
    jobs = jobs_of(typed(mail=mail, thumbnail=thumbnail))
    assert jobs.is_valid({"type": "mail", "payload": {"to": "you", "copies": [{"path": "a"}]}})
    assert jobs.is_valid({"type": "thumbnail", "payload": {"path": "a", "width": 5}})
    for payload in ({}, {"to": "x"}, {"to": "you", "copies": [{}]}, {"path": "a"}, None):
        assert not jobs.is_valid({"type": "mail", "payload": payload})
    assert not jobs.is_valid({"type": "mail"})


def test_a_model_that_only_code_can_check_leaves_the_payload_open() -> None:
    found = described(typed(guess=guess, check=check))
    jobs = validator(found, {"$ref": "#/components/schemas/Submission"})
    assert jobs.is_valid({"type": "guess", "payload": 1})
    assert jobs.is_valid({"type": "check", "payload": {"name": "x"}})
    assert "examples" not in found["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]


def test_models_that_have_the_names_of_ours_or_of_each_other_are_kept_apart() -> None:
    namesake = msgspec.defstruct("Job", [("colour", str)], module="elsewhere")
    other = msgspec.defstruct("Job", [("size", int)], module="somewhere")

    def first(payload): ...  # type: ignore[no-untyped-def]
    def second(payload): ...  # type: ignore[no-untyped-def]

    first.__annotations__["payload"], second.__annotations__["payload"] = namesake, other
    found = described(typed(first=first, second=second))
    jobs = validator(found, {"$ref": "#/components/schemas/Submission"})
    assert jobs.is_valid({"type": "first", "payload": {"colour": "red"}})
    assert jobs.is_valid({"type": "second", "payload": {"size": 1}})
    assert not jobs.is_valid({"type": "second", "payload": {"colour": "red"}})
    assert "created_at" in found["components"]["schemas"]["Job"]["properties"]


@pytest.mark.parametrize("path", ["/openapi.json", "/"])
def test_the_description_and_the_index_are_served(system: System, path: str) -> None:
    client = falcon.testing.TestClient(create_app(system))
    shown = client.simulate_get(path)
    assert shown.status_code == 200
    assert "/jobs/{job_id}" in (shown.json["paths"] if path != "/" else shown.json)


def test_where_a_token_is_wanted_the_document_says_so() -> None:
    found: dict[str, Any] = json.loads(document(OPERATIONS, simulated(0), is_guarded=True))
    openapi_spec_validator.validate(found)
    assert found["security"] == [{"bearer": []}, {"basic": []}]
    assert "401" in found["paths"]["/jobs"]["get"]["responses"]
    assert found["paths"]["/health"]["get"]["security"] == []
    assert "401" not in found["paths"]["/health"]["get"]["responses"]
