"""The OpenAPI 3.1 document, made once at startup from the table of operations and the types in it.

HEAD is added wherever GET is, and OPTIONS everywhere; and to each operation what any request may be refused
with.
"""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final

import falcon
import msgspec

from actors.handlers import Handlers
from api.access import OPEN_TO_ALL
from api.jobs import Submission
from api.openapi.operation import Answer, Body, Header, Operation
from api.openapi.payloads import Payloads
from api.openapi.refusals import EVERY, refusals
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
#: Headers of errors.
OF_ERRORS: Final = {
    HTTPStatus.UNAUTHORIZED: (Header("WWW-Authenticate", "How to send the token.", is_required=True),),
    **dict.fromkeys(
        (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE),
        (Header("Retry-After", "Seconds after which to try again.", int),),
    ),
}
INFO: Final = {
    "title": "Gofer",
    "version": VERSION,
    "description": "Background jobs: POST one, get its id back immediately, watch it run.",
}
SCHEMES: Final = {name: {"type": "http", "scheme": name} for name in ("bearer", "basic")}


def document(operations: Sequence[Operation], handlers: Handlers, *, is_guarded: bool = False) -> bytes:
    """Return the document of a service with these handlers, as JSON; if it `is_guarded`, by a token."""
    return msgspec.json.encode(Document(operations, handlers, is_guarded=is_guarded).whole())


class Document:
    """The document while it is made."""

    def __init__(self, operations: Sequence[Operation], handlers: Handlers, *, is_guarded: bool) -> None:
        self._operations = operations
        self._is_guarded = is_guarded
        self._schemas = Schemas(dict.fromkeys(_types(operations)))
        self._payloads = Payloads(handlers, self._schemas.whole(Submission), self._schemas.components)

    def whole(self) -> Node:
        """Return all of it."""
        schemas = self._schemas.components | self._payloads.components
        schemas[self._schemas.of(Submission)["$ref"].removeprefix(PLACE)] = self._payloads.submission
        responses = {str(int(status)): _problem(status, detail) for status, detail in EVERY.items()}
        return {
            "openapi": "3.1.0",
            "info": INFO,
            "servers": [{"url": "/"}],
            "security": [{name: []} for name in SCHEMES] if self._is_guarded else [],
            "paths": self._paths(),
            "components": {"schemas": schemas, "responses": responses, "securitySchemes": SCHEMES},
        }

    def _paths(self) -> Node:
        paths: Node = {}
        for operation in self._operations:
            path = paths.setdefault(operation.path, {"parameters": _of_path(operation.path)})
            path[operation.method.lower()] = node = self._operation(operation)
            if operation.method == "GET":
                path["head"] = _head(node)
        for address, path in paths.items():
            path["options"] = self._options(address)
            if address == OPEN_TO_ALL:
                for method in path.keys() - {"parameters"}:
                    path[method]["security"] = []
        return paths

    def _operation(self, operation: Operation) -> Node:
        responses = self._refusals(operation.method, operation.path)
        responses |= {str(int(status)): self._answer(one) for status, one in operation.answers.items()}
        responses |= {str(int(status)): _problem(status, one) for status, one in operation.errors.items()}
        node: Node = {
            "operationId": operation.name,
            "summary": operation.summary,
            "parameters": [*_of_query(operation), *map(_in_request, operation.headers)],
            "responses": dict(sorted(responses.items())),
        }
        if operation.description:
            node["description"] = operation.description
        if operation.body is not None:
            node["requestBody"] = self._body(operation.body)
        return node

    def _options(self, path: str) -> Node:
        name = "".join(part.strip("{}").title() for part in path.replace(".", "/").split("/"))
        return {
            "operationId": f"options{name or 'Index'}",
            "summary": "Say which methods there are",
            "responses": {"204": _response("There is no content.", (ALLOW,))}
            | self._refusals("OPTIONS", path),
        }

    def _refusals(self, method: str, path: str) -> Node:
        found = refusals(method, path, is_guarded=self._is_guarded)
        return {str(int(status)): {"$ref": f"#/components/responses/{int(status)}"} for status in found}

    def _body(self, body: Body) -> Node:
        examples = body.examples if self._payloads.examples is None else self._payloads.examples
        content: Node = {"schema": self._schemas.of(body.type)}
        if examples:
            content["examples"] = {name: {"value": value} for name, value in examples.items()}
        return {"required": True, "content": {falcon.MEDIA_JSON: content}}

    def _answer(self, answer: Answer) -> Node:
        node = _response(answer.description, answer.headers)
        if answer.type is not None:
            content = {"schema": self._schemas.of(answer.type), "example": _plain(answer.example)}
            node["content"] = {falcon.MEDIA_JSON: content} | {
                media: {"schema": {"type": "string"}, "example": text} for media, text in answer.texts.items()
            }
        if answer.links:
            node["links"] = {
                name: {"operationId": name, "parameters": {"job_id": value}}
                for name, value in answer.links.items()
            }
        return node


def _types(operations: Sequence[Operation]) -> Iterator[Any]:
    """Yield all types of bodies and answers."""
    yield Problem
    yield Submission
    for operation in operations:
        if operation.body is not None:
            yield operation.body.type
        yield from (answer.type for answer in operation.answers.values() if answer.type is not None)


def _of_path(path: str) -> list[Node]:
    names = [part.strip("{}") for part in path.split("/") if part.startswith("{")]
    job = {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return [{"name": name, **job} for name in names] + [_in_request(TAKEN)]


def _of_query(operation: Operation) -> Iterator[Node]:
    if operation.query is None:
        return
    for name, schema in of_query(operation.query).items():
        yield {"name": name, "in": "query", "description": schema.pop("description", ""), "schema": schema}


def _in_request(header: Header) -> Node:
    return {"name": header.name, "in": "header", **_header(header)}


def _header(header: Header) -> Node:
    schema = msgspec.json.schema(header.type)
    return {"description": header.description, "schema": schema, "required": header.is_required}


def _problem(status: HTTPStatus, detail: str) -> Node:
    """Return an error: its example is rendered as errors are."""
    content = {"schema": {"$ref": f"{PLACE}{Problem.__name__}"}, "example": _plain(problem(status, detail))}
    return _response(status.phrase, OF_ERRORS.get(status, ())) | {"content": {MEDIA_PROBLEM: content}}


def _response(description: str, headers: Sequence[Header]) -> Node:
    named = {header.name: _header(header) for header in (*headers, MADE, KEPT)}
    return {"description": description, "headers": named}


def _head(get: Node) -> Node:
    """Return what HEAD does: the same, without any content."""
    responses = {
        status: {"description": answer["description"], "headers": answer["headers"]}
        if "description" in answer
        else _response(HTTPStatus(int(status)).phrase, OF_ERRORS.get(HTTPStatus(int(status)), ()))
        for status, answer in get["responses"].items()
    }
    name, summary = f"{get['operationId']}Head", f"{get['summary']}: the headers alone"
    return {**get, "operationId": name, "summary": summary, "responses": responses}


def _plain(example: Any) -> Any:
    """Return what a client has of it: no struct, and no field that is left out."""
    return msgspec.json.decode(msgspec.json.encode(example))
