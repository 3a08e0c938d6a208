"""The contract over HTTP, held to by a real gunicorn."""

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

from tests.service import Service, answer, eventually, running

JSON = {"Content-Type": "application/json"}
JOB = b'{"type":"email","payload":{"to":"user@example.com"}}'
BODY_LIMIT = 1024 * 1024

#: The head of a POST, up to the fields that say how long the body is.
POST = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

NO_JOBS = {
    "not JSON": b"type=email",
    "empty": b"",
    "white space": b" ",
    "array": b"[1]",
    "number": b"1",
    "string": b'"email"',
    "null": b"null",
    "no type": b'{"payload":{}}',
    "null type": b'{"type":null}',
    "empty type": b'{"type":""}',
    "long type": b'{"type":"%s"}' % (b"x" * 300),
    "type that is a number": b'{"type":1}',
    "type that is an object": b'{"type":{}}',
    "payload that is not a number": b'{"type":"email","payload":NaN}',
    "payload with a lone surrogate": b'{"type":"email","payload":"\\ud800"}',
    "payload that is not UTF-8": b'{"type":"email","payload":"\xff"}',
    "payload 201 levels deep": b'{"type":"email","payload":%s1%s}' % (b"[" * 201, b"]" * 201),
    "unknown field": b'{"type":"email","colour":"red"}',
    "field that the service sets": b'{"type":"email","status":"completed"}',
    "invalid UTF-8 in the type": b'{"type":"\xff\xfe"}',
    "invalid UTF-8 in the payload": b'{"type":"email","payload":{"to":"\xc3\x28"}}',
    "half of a surrogate pair": rb'{"type":"email","payload":{"to":"\ud800"}}',
    "100,000 arrays deep": b'{"type":"email","payload":{"a":%s%s}}' % (b"[" * 100_000, b"]" * 100_000),
    "100,000 objects deep": b'{"type":"email","payload":%s1%s}' % (b'{"a":' * 100_000, b"}" * 100_000),
    "100,000 arrays that do not end": b"[" * 100_000,
    "truncated": JOB[:-1],
    "more after the job": JOB + b"x",
    "NaN": b'{"type":"email","payload":{"a":NaN}}',
}

QUERIES = [
    "limit=0",
    "limit=-1",
    "limit=1001",
    "limit=x",
    "limit=1.5",
    "limit=",
    "limit=1&limit=2",
    "limit=1,2",
    "after=x",
    "after=",
    "after=1",
    "after=000000000000000g",
    "after=000000000000000A",
    "after=0000000000000001%0A",
    "after=%0A0000000000000001",
    "after=8000000000000000",
    "after=ffffffffffffffff",
    "after=0000000000000000&after=0000000000000001",
    "status=x",
    "status=",
    "status=COMPLETED",
    "status=null",
    "after=null",
    "limit=null",
    "order=null",
    "status=pending&status=completed",
    "order=up",
    "order=",
    "type=a&type=b",
    "colour=red",
    "Limit=1",
]

CUT_OFF = {
    "by length": POST + b"Content-Length: %d\r\n\r\n%s" % (len(JOB), JOB[:-9]),
    "by length, all but the last byte": POST + b"Content-Length: %d\r\n\r\n%s" % (len(JOB), JOB[:-1]),
    "by length, after complete JSON": POST + b"Content-Length: %d\r\n\r\n%s" % (len(JOB) + 9, JOB),
    "by length, before the body": POST + b"Content-Length: %d\r\n\r\n" % len(JOB),
    "chunked": CHUNKED + b"%x\r\n%s\r\n" % (len(JOB[:-9]), JOB[:-9]),
    "chunked, within a chunk": CHUNKED + b"%x\r\n%s" % (len(JOB), JOB[:-9]),
    "chunked, within a chunk, after complete JSON": CHUNKED + b"%x\r\n%s" % (len(JOB) + 9, JOB),
    "chunked, without the last chunk": CHUNKED + b"%x\r\n%s\r\n" % (len(JOB), JOB),
    "chunked, within the last chunk": CHUNKED + b"%x\r\n%s\r\n0\r\n" % (len(JOB), JOB),
    "chunked, before the body": CHUNKED,
}

RUBBISH = [
    b"/jobs?type=\xff\xfe",
    b"/jobs?\xff=\xfe",
    b"/jobs?limit=\xff",
    b"/jobs?type=%ff%fe",
    b"/jobs?%ff=1",
    b"/jobs?type=%ed%a0%80",
    b"/jobs?type=%00",
    b"/jobs?type=%",
    b"/jobs?after=%00",
    b"/jobs?&&=&",
    b"/jobs/\xff\xfe",
    b"/jobs/%ff%fe",
    b"/jobs/%ed%a0%80",
    b"/jobs/%00",
    b"/jobs/%",
    b"/jobs/%zz",
    b"/jobs/%0d%0aX-Header:%20x",
    b"/jobs/..%2f..%2fetc%2fpasswd",
    b"/%ff",
    b"/" + b"x" * 3000,
]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(GOFER_SIMULATED_SECONDS=0) as service:
        yield service


@pytest.fixture
def nothing_stored(service: Service) -> Iterator[None]:
    before = ids(service)
    yield
    assert ids(service) == before


def ids(service: Service) -> list[str]:
    return [job["id"] for page in service.walk() for job in page]


def exchange(service: Service, request: bytes) -> httpx.Response:
    """Send these bytes on a connection of their own and return the response."""
    with service.connect() as connection:
        connection.sendall(request)
        return answer(connection)


def assert_problem(response: httpx.Response, status: int) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert isinstance(problem["title"], str)
    assert problem["title"]
    assert isinstance(problem["detail"], str)
    assert problem["detail"]


# What is refused.


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize("body", NO_JOBS.values(), ids=NO_JOBS)
def test_a_body_that_is_no_job_is_refused(service: Service, body: bytes) -> None:
    assert_problem(service.client.post("/jobs", content=body, headers=JSON), 400)


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize("media_type", [None, "", "text/plain", "application/jsonp", "text/json", "json"])
def test_a_body_that_is_not_called_json_is_refused(service: Service, media_type: str | None) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    assert_problem(service.client.post("/jobs", content=JOB, headers=headers), 415)


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize("excess", [1, BODY_LIMIT])
def test_a_body_over_one_mebibyte_is_refused(service: Service, excess: int) -> None:
    body = sized(BODY_LIMIT + excess)
    assert_problem(exchange(service, POST + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)), 413)


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize("excess", [1, BODY_LIMIT])
def test_a_chunked_body_over_one_mebibyte_is_refused(service: Service, excess: int) -> None:
    assert_problem(exchange(service, CHUNKED + chunks(sized(BODY_LIMIT + excess))), 413)


def test_a_body_of_one_mebibyte_is_accepted(service: Service) -> None:
    body = sized(BODY_LIMIT)
    response = exchange(service, POST + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    assert response.status_code == 201


def sized(size: int) -> bytes:
    """Return a job in so many bytes."""
    frame = b'{"type":"big","payload":{"a":"%s"}}'
    return frame % (b"x" * (size - len(frame % b"")))


def chunks(body: bytes, size: int = 50_000) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])


@pytest.mark.parametrize("how", ["close", "half-close"])
@pytest.mark.parametrize("request_", CUT_OFF.values(), ids=CUT_OFF)
def test_a_body_cut_off_by_a_disconnect_stores_nothing(service: Service, request_: bytes, how: str) -> None:
    before = ids(service)
    with service.connect() as connection:
        connection.sendall(request_)
        if how == "half-close":
            connection.shutdown(socket.SHUT_WR)
            assert b" 201 " not in connection.recv(1000)
    # Its end was there to be read before this job was, and this one went the whole way.
    (later,) = service.submit()
    service.wait_for(later, "completed")
    assert ids(service) == [*before, later]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_that_cannot_be_answered_is_refused(service: Service, query: str) -> None:
    assert_problem(service.client.get(f"/jobs?{query}"), 400)


@pytest.mark.parametrize("job_id", ["0000000000000000", "ffffffffffffffff", "nonsense", "A" * 16, "0" * 17])
def test_an_unknown_id_is_not_found(service: Service, job_id: str) -> None:
    assert_problem(service.client.get(f"/jobs/{job_id}"), 404)


@pytest.mark.parametrize("path", ["/job", "/jobs/0000000000000000/colour", "/health/x", "/JOBS"])
def test_an_unknown_path_is_not_found(service: Service, path: str) -> None:
    assert_problem(service.client.get(path), 404)
    assert_problem(service.client.post(path, content=JOB, headers=JSON), 404)


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/jobs", {"GET", "POST"}),
        ("PATCH", "/jobs/0000000000000000", {"GET"}),
        ("POST", "/jobs/0000000000000000", {"GET"}),
        ("POST", "/health", {"GET"}),
    ],
)
def test_a_wrong_method_is_refused_with_the_right_ones(
    service: Service, method: str, path: str, allowed: set[str]
) -> None:
    response = service.client.request(method, path, content=JOB, headers=JSON)
    assert_problem(response, 405)
    assert allowed <= set(response.headers["allow"].split(", "))
    assert method not in response.headers["allow"]


@pytest.mark.parametrize("target", RUBBISH)
def test_rubbish_in_the_address_is_the_clients_fault(service: Service, target: bytes) -> None:
    response = exchange(service, b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
    assert response.status_code < 500
    assert service.is_well()


# What is accepted.


def test_a_submitted_job_is_answered_as_the_contract_says(service: Service) -> None:
    response = service.client.post("/jobs", content=JOB, headers=JSON)
    job = response.json()
    assert response.status_code == 201
    assert response.headers["content-type"] == "application/json"
    assert response.headers["location"] == f"/jobs/{job['id']}"
    assert re.fullmatch("[0-9a-f]{16}", job["id"])
    assert (job["type"], job["status"], job["attempts"], job["max_retries"]) == ("email", "pending", 0, 0)
    assert not job.keys() & {"payload", "result", "started_at", "finished_at", "last_error"}
    assert job["created_at"].endswith("Z")
    age = datetime.now(UTC) - datetime.fromisoformat(job["created_at"])
    assert timedelta(0) < age < timedelta(seconds=30)


def test_the_location_of_a_job_leads_to_it(service: Service) -> None:
    response = service.client.post("/jobs", content=JOB, headers=JSON)
    shown = service.client.get(response.headers["location"])
    assert shown.json()["id"] == response.json()["id"]


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_a_media_type_may_have_parameters_and_capitals(service: Service, media_type: str) -> None:
    response = service.client.post("/jobs", content=JOB, headers={"Content-Type": media_type})
    assert response.status_code == 201


@pytest.mark.parametrize(
    "payload",
    [{}, {"ü": ["€", "\U0001f600", '"\\\n']}, {"a": {"b": [None, True, -1, 2**53, 1e300, ""]}}],
)
def test_a_payload_comes_back_as_it_was_sent(service: Service, payload: dict[str, Any]) -> None:
    job = service.client.post("/jobs", json={"type": "email", "payload": payload}).json()
    assert service.job(job["id"])["payload"] == payload


def test_a_chunked_body_is_accepted(service: Service) -> None:
    assert exchange(service, CHUNKED + chunks(JOB, 7)).status_code == 201


def test_a_job_goes_from_pending_over_processing_to_completed() -> None:
    with running(GOFER_SIMULATED_SECONDS=1) as service:
        assert service.client.get("/jobs").json() == []
        first, second = service.submit(2)
        processing = service.wait_for(first, "processing")
        assert service.job(second)["status"] == "pending"
        completed = service.wait_for(first, "completed")
        assert service.wait_for(second, "completed")["attempts"] == 1
    assert processing["attempts"] == completed["attempts"] == 1
    assert "finished_at" not in processing
    assert completed["payload"] == {"to": "user@example.com"}
    times = [completed[name] for name in ("created_at", "started_at", "finished_at")]
    assert all(time.endswith("Z") for time in times)
    assert times == sorted(times, key=datetime.fromisoformat)


def test_jobs_are_listed_by_status() -> None:
    with running(GOFER_SIMULATED_SECONDS=60) as service:
        first, *others = service.submit(4)
        service.wait_for(first, "processing")
        assert [job["id"] for job in service.jobs(status="processing")] == [first]
        assert [job["id"] for job in service.jobs(status="pending")] == others
        assert service.jobs(status="completed") == service.jobs(status="failed") == []


def test_jobs_are_listed_in_the_order_in_which_they_came(service: Service) -> None:
    submitted = service.submit(10)
    response = service.client.get("/jobs")
    assert response.headers["content-type"] == "application/json"
    listed = response.json()
    assert isinstance(listed, list)
    assert [job["id"] for job in listed][-10:] == submitted
    assert not any(job.keys() & {"payload", "result"} for job in listed)


def test_jobs_are_listed_newest_first_when_asked_for(service: Service) -> None:
    submitted = service.submit(3, "newest")
    listed = service.jobs(type="newest", order="newest")
    assert [job["id"] for job in listed] == submitted[::-1]


def test_jobs_are_listed_by_type(service: Service) -> None:
    wanted = service.submit(2, "wanted")
    service.submit(2, "unwanted")
    assert [job["id"] for job in service.jobs(type="wanted")] == wanted
    assert service.jobs(type="unheard-of") == []


def test_a_list_can_be_limited_and_continued(service: Service) -> None:
    first, second, third, fourth = service.submit(4, "limited")
    page = service.jobs(type="limited", after=first, limit=2)
    assert [job["id"] for job in page] == [second, third]
    page = service.jobs(type="limited", after=second, limit=2)
    assert [job["id"] for job in page] == [third, fourth]
    assert service.jobs(type="limited", after=fourth) == []
    page = service.jobs(type="limited", after=third, order="newest")
    assert [job["id"] for job in page] == [second, first]


@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize(("count", "pages"), [(25, [10, 10, 5]), (20, [10, 10]), (3, [3])])
def test_a_walk_over_the_links_sees_each_job_once(
    service: Service, order: str, count: int, pages: list[int]
) -> None:
    job_type = f"{order} of {count} & more=ü+%"
    submitted = service.submit(count, job_type)
    walked = list(service.walk(type=job_type, limit=10, order=order))
    assert [len(page) for page in walked] == pages
    seen = [job["id"] for page in walked for job in page]
    assert seen == (submitted if order == "oldest" else submitted[::-1])


def test_a_well_service_says_so(service: Service) -> None:
    response = service.client.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


# How requests travel.


@contextlib.contextmanager
def keep_alive(service: Service) -> Iterator[HTTPConnection]:
    """Give a connection that has to stay open from the first request to the last."""
    with contextlib.closing(HTTPConnection("127.0.0.1", service.port, timeout=10)) as connection:
        connection.connect()
        only_socket = connection.sock
        yield connection
        assert connection.sock is only_socket


def test_a_connection_serves_many_requests(service: Service) -> None:
    with keep_alive(service) as connection:
        for _ in range(3):
            connection.request("POST", "/jobs", JOB, JSON)
            response = connection.getresponse()
            assert response.status == 201
            assert service.job(json.loads(response.read())["id"])


@pytest.mark.parametrize("body", [b"", b"not JSON", b"{}"])
def test_a_connection_survives_a_refusal(service: Service, body: bytes) -> None:
    with keep_alive(service) as connection:
        for content, status in [(body, 400), (JOB, 201)]:
            connection.request("POST", "/jobs", content, JSON)
            response = connection.getresponse()
            response.read()
            assert response.status == status


def test_pipelined_requests_are_answered_in_order(service: Service) -> None:
    body = b"Content-Length: %d\r\n\r\n%s" % (len(JOB), JOB)
    with service.connect() as connection:
        connection.sendall(POST + body + POST + body + POST + b"Connection: close\r\n" + body)
        received = b"".join(iter(lambda: connection.recv(10_000), b""))
    assert received.count(b"HTTP/1.1 201 ") == 3
    found = re.findall(rb"/jobs/([0-9a-f]{16})", received)
    assert [job_id.decode() for job_id in found] == ids(service)[-3:]


def test_a_client_that_waits_to_continue_is_told_to(service: Service) -> None:
    with service.connect() as connection:
        connection.sendall(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(JOB))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(JOB)
        assert answer(connection).status_code == 201


def test_a_body_that_comes_byte_by_byte_is_accepted(service: Service) -> None:
    with service.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in POST + b"Content-Length: %d\r\n\r\n%s" % (len(JOB), JOB):
            connection.sendall(bytes([byte]))
        assert answer(connection).status_code == 201


def test_a_client_that_goes_before_the_answer_harms_no_one(service: Service) -> None:
    with service.connect() as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n%s" % (len(JOB), JOB))
    assert eventually(service.is_well)


def test_no_request_of_all_these_was_a_fault_of_the_service(service: Service) -> None:
    assert "Traceback" not in service.log
