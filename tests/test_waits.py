"""A client that prefers to wait hears when the job is finished; one that knows a job hears if it changed."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import falcon.testing
import msgspec
import pytest
from msgspec import UNSET, Raw
from msgspec.structs import replace

from actors import Submit, System, start
from actors.errors import StorageFailed
from actors.lifecycle import Job, Status
from api import asking, create_app, jobs, rendering
from tests.service import PATIENCE, eventually

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
JOB = Job(
    id="0" * 16, type="email", status=Status.PENDING, created_at=NOW, attempts=0, max_retries=0,
    raw_payload=Raw(b"{}"),
)  # fmt: skip
#: One other value for each thing that a job shows.
OTHER: dict[str, Any] = {
    "status": Status.PROCESSING,
    "attempts": 1,
    "max_retries": 1,
    "started_at": NOW,
    "finished_at": NOW,
    "run_at": NOW,
    "last_error": "broken",
    "progress": 0.5,
}


class Served:
    """A system whose one Worker works while it is allowed to, and its app."""

    def __init__(self) -> None:
        self.may_work = threading.Event()
        self.system: System = start(handlers={"email": self._work})
        self.http = falcon.testing.TestClient(create_app(self.system))

    def _work(self, payload: object) -> object:
        assert self.may_work.wait(PATIENCE)
        return payload

    def submit(self) -> str:
        job_id: str = self.system.store.ask(Submit("email", {"to": "x"})).id
        return job_id

    def get(self, job_id: str, **headers: str) -> falcon.testing.Result:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.simulate_get(f"/jobs/{job_id}", headers=named)

    def post(self, prefer: str, **job: Any) -> falcon.testing.Result:
        return self.http.simulate_post("/jobs", json={"type": "email", **job}, headers={"Prefer": prefer})


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.may_work.set()
    served.system.stop()


# Waiting.


def test_a_client_that_waits_for_a_job_gets_it_finished(served: Served) -> None:
    job_id = served.submit()
    threading.Timer(0.05, served.may_work.set).start()
    answer = served.get(job_id, Prefer="wait=20")
    assert answer.status_code == 200
    assert (answer.json["status"], answer.json["result"]) == ("completed", {"to": "x"})
    assert answer.headers["preference-applied"] == "wait=20"


def test_a_client_that_submits_and_waits_gets_the_job_finished(served: Served) -> None:
    threading.Timer(0.05, served.may_work.set).start()
    answer = served.post("wait=100", payload=[1])
    assert answer.status_code == 201
    assert (answer.json["status"], answer.json["result"]) == ("completed", [1])
    assert answer.headers["preference-applied"] == "wait=60"
    assert answer.headers["location"] == f"/jobs/{answer.json['id']}"


def test_when_the_time_is_over_a_client_gets_the_job_as_it_is(served: Served) -> None:
    job_id = served.submit()
    eventually(lambda: served.get(job_id).json["status"] == "processing")
    job = asyncio.run(asking.finished(served.system.store, job_id, 0.02))
    assert job.status == "processing"
    for answer in (served.get(job_id, Prefer="wait=0"), served.post("wait=0")):
        assert answer.json["status"] in {"processing", "pending"}
        assert answer.headers["preference-applied"] == "wait=0"


def test_without_a_wait_that_can_be_understood_nothing_is_applied(served: Served) -> None:
    job_id = served.submit()
    for answer in (served.get(job_id), served.get(job_id, Prefer="wait=long"), served.post("respond-async")):
        assert answer.status_code in {200, 201}
        assert "preference-applied" not in answer.headers


def test_a_client_that_waits_for_a_job_that_is_not_there_hears_so_immediately(served: Served) -> None:
    answer = served.get("0" * 16, Prefer="wait=60")
    assert answer.status_code == 404
    assert "preference-applied" not in answer.headers


def test_a_job_that_was_stored_is_answered_with_201_even_if_the_wait_for_it_fails(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> Job:
        raise StorageFailed("the disk is gone")

    monkeypatch.setattr(jobs, "finished", fails)
    answer = served.post("wait=1")
    assert (answer.status_code, answer.json["status"]) == (201, "pending")


def test_a_client_that_waits_during_a_stop_hears_immediately(served: Served) -> None:
    job_id = served.submit()
    served.system.drain(grace=PATIENCE)
    answer = served.get(job_id, Prefer="wait=60")
    assert answer.status_code == 200
    assert answer.json["status"] in {"pending", "processing"}


# The tag.


def test_a_client_that_has_the_job_as_it_is_gets_304_without_a_body(served: Served) -> None:
    job_id = served.submit()
    eventually(lambda: served.get(job_id).json["status"] == "processing")
    first = served.get(job_id)
    second = served.get(job_id, If_None_Match=first.headers["etag"])
    assert (second.status_code, second.content) == (304, b"")
    for name in ("etag", "cache-control"):
        assert second.headers[name] == first.headers[name]
    assert "content-type" not in second.headers
    served.may_work.set()
    third = served.get(job_id, If_None_Match=first.headers["etag"], Prefer="wait=20")
    assert (third.status_code, third.json["status"]) == (200, "completed")
    assert third.headers["etag"] != first.headers["etag"]


@pytest.mark.parametrize(
    ("known", "status"),
    [
        ("{tag}", 304),
        ("W/{tag}", 304),
        ('"other", {tag}', 304),
        ('W/"other" , W/{tag},"a,b"', 304),
        ("*", 304),
        ('"other"', 200),
        ('"a,b", "other"', 200),
        ("", 200),
    ],
)
def test_any_tag_of_a_list_that_the_client_knows_counts(served: Served, known: str, status: int) -> None:
    job_id = served.submit()
    served.may_work.set()
    served.get(job_id, Prefer="wait=20")
    tag = served.get(job_id).headers["etag"].removeprefix("W/")
    assert served.get(job_id, If_None_Match=known.format(tag=tag)).status_code == status


def test_a_tag_of_a_job_that_is_not_there_is_not_found(served: Served) -> None:
    assert served.get("0" * 16, If_None_Match="*").status_code == 404


def test_a_wait_whose_job_has_not_changed_ends_with_304(served: Served) -> None:
    job_id = served.submit()
    eventually(lambda: served.get(job_id).json["status"] == "processing")
    tag = served.get(job_id).headers["etag"]
    answer = served.get(job_id, If_None_Match=tag, Prefer="wait=0")
    assert (answer.status_code, answer.headers["preference-applied"]) == (304, "wait=0")


@pytest.mark.parametrize("name", OTHER)
def test_the_tag_changes_with_all_that_a_job_shows(name: str) -> None:
    changed = replace(JOB, **{name: OTHER[name]})
    assert msgspec.json.encode(changed) != msgspec.json.encode(JOB)
    assert rendering.tag(changed) != rendering.tag(JOB)
    assert rendering.tag(replace(JOB)) == rendering.tag(JOB)


def test_the_tag_is_made_without_the_payload_and_the_result_which_may_be_large() -> None:
    large = replace(JOB, raw_payload=Raw(b"[]"), raw_result=Raw(b"null"))
    assert rendering.tag(large) == rendering.tag(replace(JOB, raw_payload=UNSET))


def test_a_tag_is_made_of_the_job_as_it_is_shown_now() -> None:
    shown = rendering.Rendering()
    req = falcon.testing.create_asgi_req()
    tags = []
    for job in (JOB, replace(JOB, progress=0.5), JOB):
        resp = falcon.asgi.Response()
        shown.show(job, req, resp)
        assert msgspec.json.decode(resp.data or b"").get("progress") == job.progress
        tags.append(resp.get_header("ETag"))
    assert tags[0] == tags[2] != tags[1]
