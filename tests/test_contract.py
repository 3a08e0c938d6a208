"""The check of every answer sees what is wrong with one."""

import httpx
import pytest

from tests.contract import Broken, check, check_form

ALWAYS = {"Cache-Control": "no-store", "X-Request-Id": "1", "ETag": 'W/"1"'}
JOB = {
    "id": "0019c1d2e3f4a5b6",
    "type": "email",
    "status": "pending",
    "created_at": "2026-01-02T03:04:05Z",
    "attempts": 0,
    "max_retries": 0,
}


def answer(status: int, content: object, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json=content, headers=ALWAYS | named)


def problem(status: int, *, said: int | None = None, detail: object = "too many") -> httpx.Response:
    content = {"title": "No", "status": said or status, "detail": detail}
    return answer(status, content, Content_Type="application/problem+json")


def test_answers_as_described_pass() -> None:
    check("GET", "/jobs/1", answer(200, JOB | {"payload": [1]}))
    check("GET", "/jobs", answer(200, [JOB]))
    check("POST", "/jobs", answer(201, JOB, Location="/jobs/1"))
    check("GET", "/jobs/1", problem(404))
    check("GET", "/nowhere", problem(404))
    check("BREW", "/jobs", problem(405))
    check("HEAD", "/jobs/1", httpx.Response(404, headers=problem(404).headers))


@pytest.mark.parametrize(
    ("method", "path", "response", "words"),
    [
        ("GET", "/jobs/1", answer(202, JOB), "not to be answered with that"),
        ("GET", "/jobs/1", problem(409), "not to be answered with that"),
        ("GET", "/jobs/1", problem(500), "tells of a fault"),
        ("GET", "/jobs/1", answer(200, JOB, Content_Type="text/plain"), "its type is text/plain"),
        ("GET", "/jobs/1", answer(200, JOB | {"colour": "red"}), "colour"),
        ("GET", "/jobs/1", answer(200, JOB | {"status": "lost"}), "lost"),
        ("GET", "/jobs/1", answer(200, JOB | {"created_at": "yesterday"}), "yesterday"),
        ("GET", "/jobs/1", answer(200, {"id": JOB["id"]}), "required"),
        ("GET", "/jobs", answer(200, JOB), "array"),
        ("POST", "/jobs/1/retry", problem(410), "not to be answered with that"),
        ("POST", "/jobs", problem(429, detail=None), "detail"),
        ("POST", "/jobs", problem(429, said=400), "another status"),
        ("HEAD", "/jobs/1", answer(200, JOB), "it has a content"),
        ("GET", "/nowhere", answer(200, JOB), "is not described"),
        ("PUT", "/jobs", answer(200, JOB), "is not described"),
        ("GET", "/jobs/1", httpx.Response(200, json=JOB), "no x-request-id"),
        ("GET", "/jobs/1", answer(200, JOB, Server="x"), "names its server"),
    ],
)
def test_what_is_not_described_is_seen(method: str, path: str, response: httpx.Response, words: str) -> None:
    with pytest.raises(Broken, match=words):
        check(method, path, response)


def test_an_error_that_is_not_a_problem_is_seen() -> None:
    with pytest.raises(Broken, match="not a problem"):
        check_form(answer(404, JOB))
