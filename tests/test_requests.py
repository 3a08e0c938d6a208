"""Whatever is asked of the service, and however: its answers follow the same rules on every path."""

import contextvars
import json
import logging
import logging.config
import re
from collections.abc import Iterator

import httpx
import pytest

from actors import log
from api.openapi import OPERATIONS
from tests.service import Service, running
from tests.test_http import JOB, JSON, POST, assert_problem, exchange

ID = "0000000000000000"
PATHS = sorted({operation.path.replace("{job_id}", ID) for operation in OPERATIONS})
READABLE = sorted(operation.path for operation in OPERATIONS if operation.method == "GET")
ALLOWED = {
    "/": "GET, HEAD, OPTIONS",
    "/health": "GET, HEAD, OPTIONS",
    "/jobs": "GET, HEAD, OPTIONS, POST",
    f"/jobs/{ID}": "DELETE, GET, HEAD, OPTIONS",
    f"/jobs/{ID}/retry": "OPTIONS, POST",
}

#: What the parser refuses by itself, and what its answer has to name.
REFUSED = {
    "not HTTP": (b"rubbish\r\n\r\n", 400, "Invalid request line"),
    "a method in small letters": (b"get / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "get"),
    "another version": (b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", 400, "HTTP/3.0"),
    "a header without a colon": (b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n", 400, "colon"),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "Content-Length"),
    "a chunk without a size": (POST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", 400, "chunk size"),
    "a long address": (b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * 9000), 414, "4094"),
    "a long header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: %s\r\n\r\n" % (b"x" * 9000), 431, "8190"),
    "many headers": (b"GET / HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % (b"A: x\r\n" * 200), 431, "100"),
    "an unknown coding": (POST + b"Transfer-Encoding: br, chunked\r\n\r\n", 501, "br"),
}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(GOFER_SIMULATED_SECONDS=0) as service:
        yield service


def post(service: Service, content: bytes = JOB, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.client.post("/jobs", content=content, headers=JSON | named)


# Methods.


@pytest.mark.parametrize("path", READABLE)
def test_head_says_what_get_says_without_a_body(service: Service, path: str) -> None:
    (job_id,) = service.submit()
    service.wait_for(job_id, "completed")
    address = path.replace("{job_id}", job_id)
    got, headed = (service.client.request(method, address) for method in ("GET", "HEAD"))
    assert got.is_success
    assert headed.content == b""
    of_one_request = {"date", "x-request-id"}
    assert {name: value for name, value in headed.headers.items() if name not in of_one_request} == {
        name: value for name, value in got.headers.items() if name not in of_one_request
    }


@pytest.mark.parametrize("path", [f"/jobs/{ID}", "/jobs?limit=x", "/nowhere"])
def test_head_of_what_cannot_be_shown_has_the_status_alone(service: Service, path: str) -> None:
    response = service.client.head(path)
    assert (response.status_code, response.content) == (service.client.get(path).status_code, b"")


@pytest.mark.parametrize(("path", "allowed"), ALLOWED.items())
def test_options_says_which_methods_there_are_and_has_no_body(
    service: Service, path: str, allowed: str
) -> None:
    response = service.client.options(path)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["allow"] == allowed
    assert not response.headers.keys() & {"content-type", "content-length", "transfer-encoding"}


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "CONNECT", "QUERY", "BREW"])
@pytest.mark.parametrize(("path", "allowed"), ALLOWED.items())
def test_any_other_method_is_refused_with_the_same_list(
    service: Service, path: str, allowed: str, method: str
) -> None:
    response = exchange(service, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert_problem(response, 405)
    assert response.headers["allow"] == allowed


def test_an_upgrade_to_a_websocket_is_passed_over(service: Service) -> None:
    response = service.client.get(
        "/health",
        headers={
            "Connection": "upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        },
    )
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


# Addresses.


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD", "OPTIONS"])
def test_with_a_slash_at_its_end_it_is_another_address(service: Service, method: str, path: str) -> None:
    response = service.client.request(method, f"{path}/")
    assert response.status_code == 404
    if method != "HEAD":
        assert_problem(response, 404)
        assert f"there is nothing at {path}/; " in response.json()["detail"]


@pytest.mark.parametrize("address", ["GET /jobs/", "DELETE /jobs/", "POST /jobs//retry", "GET /jobs//"])
def test_an_id_that_is_empty_is_no_address(service: Service, address: str) -> None:
    method, _, path = address.partition(" ")
    response = service.client.request(method, path)
    assert_problem(response, 404)
    assert "there is nothing at" in response.json()["detail"]


@pytest.mark.parametrize(
    "operation", OPERATIONS, ids=[f"{operation.method} {operation.path}" for operation in OPERATIONS]
)
def test_a_query_parameter_that_is_unknown_is_named(service: Service, operation: object) -> None:
    assert isinstance(operation, type(OPERATIONS[0]))
    path = operation.path.replace("{job_id}", ID)
    response = service.client.request(operation.method, f"{path}?colour=red", content=JOB, headers=JSON)
    assert_problem(response, 400)
    detail = response.json()["detail"]
    assert "`colour`" in detail
    assert all(f"`{name}`" in detail for name in operation.parameters)
    assert "Object" not in detail


def test_a_query_parameter_that_is_given_twice_is_named(service: Service) -> None:
    response = service.client.get("/jobs?type=a&type=b")
    assert_problem(response, 400)
    assert "`type` is given twice" in response.json()["detail"]


# Bodies.


@pytest.mark.parametrize(
    "job_type", ["", " ", "   ", "a\n", "\t", "\u00a0", "\u200b", "\u202eabc", "\ufeffa"]
)
def test_a_type_that_cannot_be_seen_is_refused(service: Service, job_type: str) -> None:
    response = service.client.post("/jobs", json={"type": job_type})
    assert_problem(response, 400)
    assert "`type` must be a string of 1 to 255 printable characters" in response.json()["detail"]


@pytest.mark.parametrize("job_type", [" a", "a b", "größe", "画像", "\U0001f600", "x" * 255])
def test_a_type_that_can_be_seen_is_taken(service: Service, job_type: str) -> None:
    response = service.client.post("/jobs", json={"type": job_type})
    assert (response.status_code, response.json()["type"]) == (201, job_type)


@pytest.mark.parametrize(("given", "taken"), [(b"2", 2), (b"2.0", 2), (b"1e3", 1000), (b"null", 0)])
def test_a_whole_number_of_retries_may_be_written_as_json_likes(
    service: Service, given: bytes, taken: int
) -> None:
    response = post(service, b'{"type":"a","max_retries":%s}' % given)
    assert b'"max_retries":%d}' % taken in response.content


@pytest.mark.parametrize("given", [b"1.5", b"-1", b"1001", b"true", b'"1"', b"1e400"])
def test_any_other_number_of_retries_is_refused(service: Service, given: bytes) -> None:
    assert_problem(post(service, b'{"type":"a","max_retries":%s}' % given), 400)


@pytest.mark.parametrize("charset", ["latin-1", "utf-16", '"iso-8859-1"', ""])
def test_a_charset_other_than_utf_8_is_named(service: Service, charset: str) -> None:
    response = post(service, Content_Type=f"application/json; charset={charset}")
    assert_problem(response, 415)
    assert f"charset '{charset.strip(chr(34))}'" in response.json()["detail"]


@pytest.mark.parametrize("charset", ["utf-8", '"UTF-8"', "utf8", "us-ascii"])
def test_utf_8_may_be_named(service: Service, charset: str) -> None:
    assert post(service, Content_Type=f"application/json; charset={charset}").status_code == 201


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, identity"])
def test_a_content_encoding_is_named(service: Service, coding: str) -> None:
    response = post(service, Content_Encoding=coding)
    assert_problem(response, 415)
    assert coding in response.json()["detail"]
    assert post(service, Content_Encoding="identity").status_code == 201


def test_a_transfer_coding_that_gunicorn_lets_through_is_named(service: Service) -> None:
    response = exchange(service, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
    assert_problem(response, 501)
    assert "gzip" in response.json()["detail"]


def test_a_byte_order_mark_is_named(service: Service) -> None:
    response = post(service, b"\xef\xbb\xbf" + JOB)
    assert_problem(response, 400)
    assert "BOM" in response.json()["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [(b'{"type":"a","colour":1}', "no field `colour`"), (b"{}", "lacks the field `type`")],
)
def test_fields_are_named_in_plain_words(service: Service, body: bytes, words: str) -> None:
    response = post(service, body)
    assert_problem(response, 400)
    assert words in response.json()["detail"]


# Headers.


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
def test_what_the_parser_refuses_is_a_problem_too(service: Service, request_: tuple[bytes, int, str]) -> None:
    sent, status, words = request_
    response = exchange(service, sent)
    assert_problem(response, status)
    assert words in response.json()["detail"]
    assert response.headers["connection"] == "close"


ANSWERS = {
    "a page": b"GET /jobs HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "nothing there": b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "options": b"OPTIONS /jobs HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no HTTP": b"rubbish\r\n\r\n",
    "a job": POST + b"Content-Length: %d\r\n\r\n%s" % (len(JOB), JOB),
}


@pytest.mark.parametrize("request_", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_not_to_be_kept_and_does_not_name_its_server(service: Service, request_: bytes) -> None:
    headers = exchange(service, request_).headers
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    assert headers.get_list("x-request-id") == [headers["x-request-id"]]
    assert "date" in headers


@pytest.mark.parametrize("given", ["a", "x" * 128, "!~", '"quoted"'])
def test_the_id_of_a_request_is_echoed(service: Service, given: str) -> None:
    assert post(service, X_Request_Id=given).headers["x-request-id"] == given
    assert service.client.get("/no", headers={"X-Request-Id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"\xfc", b"a\tb"])
def test_an_id_that_cannot_be_taken_is_replaced(service: Service, given: bytes) -> None:
    response = service.client.get("/health", headers=[(b"X-Request-Id", given)])
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", response.headers["x-request-id"])


def test_no_two_requests_are_given_the_same_id(service: Service) -> None:
    made = [service.client.get("/health").headers["x-request-id"] for _ in range(5)]
    assert len(set(made)) == len(made)


def test_what_is_logged_about_a_request_bears_its_id() -> None:
    made = logging.config.DictConfigurator(log.config("INFO")).configure_formatter(
        log.config("INFO")["formatters"]["gofer"]
    )
    record = logging.LogRecord("falcon", logging.ERROR, "", 1, "a fault", None, None)
    assert "request_id" not in json.loads(made.format(record))
    contextvars.copy_context().run(_log_it, made, record)


def _log_it(formatter: logging.Formatter, record: logging.LogRecord) -> None:
    log.REQUEST_ID.set(b"abc-1")
    assert json.loads(formatter.format(record))["request_id"] == "abc-1"
