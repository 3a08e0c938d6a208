"""Whether an answer is one that the document of the API promises: its status, headers, type and content.

The document is that of a service without handlers; they change only what may be asked. Here its objects are
closed: a field that it does not describe is an error too.
"""

import functools
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import httpx
import jsonschema_rs

from actors.handlers import simulated
from api.openapi import OPERATIONS, document
from api.openapi.refusals import EVERY

PROBLEM: Final = "application/problem+json"
#: What every answer has, whatever it answers.
ALWAYS: Final = ("x-request-id", "cache-control")
#: What may be answered before it is seen what was asked for.
ANYWHERE: Final = frozenset(map(int, EVERY))


class Broken(AssertionError):
    """An answer is not what the document says."""


def check_answer(response: httpx.Response) -> None:
    """Check the answer to a request of httpx's."""
    response.read()
    check(response.request.method, response.request.url.path, response)


def check(method: str, path: str, response: httpx.Response) -> None:
    """Check the answer to a request."""
    check_form(response)
    methods = _methods(path)
    status = response.status_code
    if methods is None:
        _see(status in ANYWHERE | {404}, response, f"{path} is not described")
    elif method.lower() not in methods:
        _see(status in ANYWHERE | {405}, response, f"{method} {path} is not described")
    else:
        described = methods[method.lower()]["responses"].get(str(status))
        _see(described is not None, response, f"{method} {path} is not to be answered with that")
        _check_described(_resolved(described), response, has_content=method != "HEAD")


def check_form(response: httpx.Response) -> None:
    """Check what can be told of an answer by itself."""
    _see("server" not in response.headers, response, "it names its server")
    for name in ALWAYS:
        _see(name in response.headers, response, f"it has no {name}")
    if response.status_code >= 400:
        _see(response.headers.get("content-type") == PROBLEM, response, "it is not a problem")
        if response.content:
            _check_content({"$ref": "#/components/schemas/Problem"}, response)
            _see(response.json()["status"] == response.status_code, response, "it is of another status")
    _see(response.status_code not in {500, 502, 504}, response, "it tells of a fault")


def _check_described(described: dict[str, Any], response: httpx.Response, *, has_content: bool) -> None:
    for name, header in described.get("headers", {}).items():
        value = response.headers.get(name)
        _see(value is not None or not header["required"], response, f"it has no {name}")
        if value is not None and header["schema"]["type"] == "integer":
            _see(value.isdecimal(), response, f"its {name} is not a number")
    contents = described.get("content", {})
    if not contents or not has_content:
        _see(response.content == b"", response, "it has a content")
        return
    media_type = response.headers["content-type"].partition(";")[0]
    _see(media_type in contents, response, f"its type is {media_type}")
    _check_content(contents[media_type]["schema"], response)


def _check_content(schema: dict[str, Any], response: httpx.Response) -> None:
    content = response.text if schema == {"type": "string"} else response.json()
    for error in _validator(json.dumps(schema)).iter_errors(content):
        raise Broken(f"{_named(response)}: {error.message} - at {list(error.instance_path)}")


def _see(is_right: bool, response: httpx.Response, what: str) -> None:
    if not is_right:
        raise Broken(f"{_named(response)}: {what}")


def _named(response: httpx.Response) -> str:
    return f"the answer {response.status_code} {dict(response.headers)} {response.content[:300]!r}"


@functools.cache
def _document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document(OPERATIONS, simulated(0), is_guarded=True))
    for schema in found["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return found


@functools.cache
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    whole = {**json.loads(schema), "components": _document()["components"]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    return list(_by_pattern())


def _by_pattern() -> Iterator[tuple[re.Pattern[str], dict[str, Any]]]:
    # Those without parameters first: they win.
    for path, methods in sorted(_document()["paths"].items(), key=lambda item: "{" in item[0]):
        fixed = map(re.escape, re.split(r"\{\w+\}", path))
        yield re.compile("[^/]+".join(fixed)), methods


def _methods(path: str) -> dict[str, Any] | None:
    return next((methods for pattern, methods in _patterns() if pattern.fullmatch(path)), None)


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return node
    found: dict[str, Any] = _document()["components"]["responses"][node["$ref"].rpartition("/")[2]]
    return found
