"""The OpenAPI 3.1 document, made once at startup from the table of operations and the types in it.

HEAD is added wherever GET is, and OPTIONS everywhere; and to each operation what any request may be answered.
"""

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import falcon
import msgspec

from actors.handlers import Handlers
from api.jobs import Submission
from api.openapi.operation import Answer, Body, Header, Operation
from api.openapi.payloads import Payloads
from api.openapi.schemas import PLACE, Schemas, of_query
from api.problems import MEDIA_PROBLEM, Problem, problem

Node = dict[str, Any]

#: Of this API, not of the program.
VERSION: Final = "1.0"
TAKEN: Final = Header(
    "X-Request-Id",
    "Echoed by the answer, and in the log's lines about the request, if it is 1 to 128 visible ASCII"
    " characters; otherwise the service makes one.",
)
MADE: Final = Header("X-Request-Id", "Names the request in the service's log.", is_required=True)
KEPT: Final = Header("Cache-Control", "Whether an answer may be kept.", is_required=True)
ALLOW: Final = Header("Allow", "The methods that this path has.", is_required=True)
RETRY_AFTER: Final = Header("Retry-After", "Seconds after which to try again.", int)
#: What any request may be answered, for its address or its form alone.
COMMON: Final = {
    HTTPStatus.BAD_REQUEST: "there is no query parameter `colour` here; there is none at all",
    HTTPStatus.REQUEST_URI_TOO_LONG: "Request line is too large; with its method and address it may have 4094"
    " bytes",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "Too many headers; there may be 100 headers, of 8190 bytes"
    " each",
    HTTPStatus.NOT_IMPLEMENTED: "transfer coding 'br' is unknown here; send the body as it is, or chunked",
}
#: Statuses whose answers may say when to try again.
RETRIED: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


def document(operations: Sequence[Operation], handlers: Handlers) -> bytes:
    """Return the document of a service with these handlers, as JSON."""
    schemas = Schemas(dict.fromkeys(_types(operations)))
    payloads = Payloads(handlers, schemas.whole(Submission), schemas.components)
    components = schemas.components | payloads.components
    components[schemas.of(Submission)["$ref"].removeprefix(PLACE)] = payloads.submission
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Gofer",
                "version": VERSION,
                "description": "Background jobs: POST one, get its id back immediately, watch it run.",
            },
            "servers": [{"url": "/"}],
            "paths": _paths(operations, schemas, payloads),
            "components": {
                "schemas": components,
                "responses": {
                    str(int(status)): _problem(status, detail) for status, detail in COMMON.items()
                },
            },
        }
    )


def _types(operations: Sequence[Operation]) -> Iterator[Any]:
    """Yield all types of bodies and answers."""
    yield Problem
    for operation in operations:
        if operation.body is not None:
            yield operation.body.type
        yield from (answer.type for answer in operation.answers.values() if answer.type is not None)


def _paths(operations: Sequence[Operation], schemas: Schemas, payloads: Payloads) -> Node:
    paths: Node = {}
    for operation in operations:
        path = paths.setdefault(operation.path, {"parameters": _of_path(operation.path)})
        path[operation.method.lower()] = node = _operation(operation, schemas, payloads)
        if operation.method == "GET":
            path["head"] = _head(node)
    for address, path in paths.items():
        path["options"] = _options(address)
    return paths


def _of_path(path: str) -> list[Node]:
    names = [part.strip("{}") for part in path.split("/") if part.startswith("{")]
    job = {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return [{"name": name, **job} for name in names] + [_in_request(TAKEN)]


def _operation(operation: Operation, schemas: Schemas, payloads: Payloads) -> Node:
    answers = {status: _answer(answer, schemas) for status, answer in operation.answers.items()}
    refusals = {status: _problem(status, detail) for status, detail in operation.errors.items()}
    common = {status: {"$ref": f"#/components/responses/{int(status)}"} for status in COMMON}
    node: Node = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*_of_query(operation), *map(_in_request, operation.headers)],
        "responses": {
            str(int(status)): node for status, node in sorted((common | answers | refusals).items())
        },
    }
    if operation.description:
        node["description"] = operation.description
    if operation.body is not None:
        node["requestBody"] = _body(operation.body, schemas, payloads)
    return node


def _of_query(operation: Operation) -> Iterator[Node]:
    if operation.query is None:
        return
    for name, schema in of_query(operation.query).items():
        yield {"name": name, "in": "query", "description": schema.pop("description", ""), "schema": schema}


def _in_request(header: Header) -> Node:
    return {"name": header.name, "in": "header", **_header(header), "required": header.is_required}


def _header(header: Header) -> Node:
    return {"description": header.description, "schema": msgspec.json.schema(header.type)}


def _body(body: Body, schemas: Schemas, payloads: Payloads) -> Node:
    examples = body.examples if payloads.examples is None else payloads.examples
    content: Node = {"schema": schemas.of(body.type)}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"required": True, "content": {falcon.MEDIA_JSON: content}}


def _answer(answer: Answer, schemas: Schemas) -> Node:
    node = _response(answer.description, answer.headers)
    if answer.type is not None:
        content = {
            "schema": schemas.of(answer.type),
            "example": msgspec.json.decode(msgspec.json.encode(answer.example)),
        }
        node["content"] = {falcon.MEDIA_JSON: content}
    if answer.links:
        node["links"] = {
            name: {"operationId": name, "parameters": {"job_id": value}}
            for name, value in answer.links.items()
        }
    return node


def _problem(status: HTTPStatus, detail: str) -> Node:
    """Return an error: its example is rendered as errors are."""
    example = msgspec.json.decode(msgspec.json.encode(problem(status, detail)))
    content = {"schema": {"$ref": f"{PLACE}{Problem.__name__}"}, "example": example}
    headers = (RETRY_AFTER,) if status in RETRIED else ()
    return _response(status.phrase, headers) | {"content": {MEDIA_PROBLEM: content}}


def _response(description: str, headers: Sequence[Header]) -> Node:
    return {
        "description": description,
        "headers": {
            header.name: _header(header) | {"required": header.is_required}
            for header in (*headers, MADE, KEPT)
        },
    }


def _head(get: Mapping[str, Any]) -> Node:
    """Return what HEAD does: the same, without any content."""
    responses = {
        status: {"description": answer["description"], "headers": answer["headers"]}
        if "description" in answer
        else _response(HTTPStatus(int(status)).phrase, ())
        for status, answer in get["responses"].items()
    }
    name, summary = f"{get['operationId']}Head", f"{get['summary']}: the headers alone"
    return {**get, "operationId": name, "summary": summary, "responses": responses}


def _options(path: str) -> Node:
    name = "".join(part.strip("{}").title() for part in path.replace(".", "/").split("/"))
    common = {str(int(status)): {"$ref": f"#/components/responses/{int(status)}"} for status in COMMON}
    return {
        "operationId": f"options{name or 'Index'}",
        "summary": "Say which methods there are",
        "responses": {"204": _response("There is no content.", (ALLOW,))} | common,
    }
