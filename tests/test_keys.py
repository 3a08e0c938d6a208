"""One idempotency key is one job, however many race, across a crash and a reload, until it is forgotten."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from actors import Await, Settings, Submit, SubmitAll, SubmitOnce, start
from actors.errors import CapacityReached, InvalidJob, InvalidKey, JobDeleted, KeyReused, StorageFailed
from actors.messages import Fail, ListJobs
from actors.store import keys
from tests.calling import EMAIL, Store, assert_totals
from tests.repeats import problem
from tests.service import Service, running

JSON = {"Content-Type": "application/json"}
JOB = b'{"type":"email","payload":{"to":"user@example.com"}}'
BATCH = SubmitAll((EMAIL, Submit("report", [1]), EMAIL))


# In the JobStore.


@pytest.fixture(params=["in memory", "on a file"])
def store(request: Any, tmp_path: Path) -> Store:
    return Store(":memory:" if request.param == "in memory" else str(tmp_path / "jobs.db"), capacity=100)


def test_a_repeat_gets_the_same_job_as_it_is_now(store: Store) -> None:
    first = store.ask(SubmitOnce("a", EMAIL))
    assert (first.is_replayed, first.jobs.status) == (False, "pending")
    assert store.ask(SubmitOnce("a", EMAIL)) == (first.jobs, True)
    store.claim(first.jobs.id)
    again = store.ask(SubmitOnce("a", EMAIL))
    assert (again.is_replayed, again.jobs.id, again.jobs.status) == (True, first.jobs.id, "processing")
    assert len(store.ask(ListJobs())) == 1


def test_another_key_is_another_job(store: Store) -> None:
    ids = {store.ask(SubmitOnce(key, EMAIL)).jobs.id for key in ("a", "A", "b", "a" * 255)}
    assert len(ids) == 4


def test_a_key_covers_all_of_an_array(store: Store) -> None:
    first = store.ask(SubmitOnce("a", BATCH)).jobs
    assert [job.type for job in first] == ["email", "report", "email"]
    store.ask(EMAIL)
    assert store.ask(SubmitOnce("a", BATCH)) == (first, True)
    assert len(store.ask(ListJobs())) == 4


@pytest.mark.parametrize("other", [Submit("email", 1), Submit("other", EMAIL.payload), SubmitAll((EMAIL,))])
def test_a_key_that_comes_with_another_request_is_refused(store: Store, other: Submit | SubmitAll) -> None:
    store.ask(SubmitOnce("a", EMAIL))
    for _ in range(2):
        with pytest.raises(KeyReused):
            store.ask(SubmitOnce("a", other))
    assert len(store.ask(ListJobs())) == 1


def test_it_is_the_bytes_of_the_body_that_count(store: Store) -> None:
    first = store.ask(SubmitOnce("a", EMAIL, b"one way"))
    assert store.ask(SubmitOnce("a", EMAIL, b"one way")).jobs.id == first.jobs.id
    with pytest.raises(KeyReused):
        store.ask(SubmitOnce("a", EMAIL, b"another"))


def test_many_repeats_in_one_commit_are_one_job(store: Store) -> None:
    store.more_is_waiting(True)
    replies = [store.send(SubmitOnce("a", EMAIL)) for _ in range(100)]
    refused = store.send(SubmitOnce("a", BATCH))
    store.more_is_waiting(False)
    store.ask(EMAIL)
    answers = [reply.get(timeout=0) for reply in replies]
    assert [answer.is_replayed for answer in answers] == [False] + [True] * 99
    assert len({answer.jobs.id for answer in answers}) == 1
    with pytest.raises(KeyReused):
        refused.get(timeout=0)


def test_a_key_whose_job_was_refused_is_still_free() -> None:
    store = Store(capacity=1)
    waiting = store.ask(EMAIL).id
    with pytest.raises(CapacityReached):
        store.ask(SubmitOnce("a", EMAIL))
    store.claim(waiting)
    assert not store.ask(SubmitOnce("a", EMAIL)).is_replayed


def test_a_repeat_is_answered_even_when_there_is_no_room_for_another_job_or_the_service_stops() -> None:
    store = Store(capacity=1)
    first = store.ask(SubmitOnce("a", EMAIL))
    assert store.ask(SubmitOnce("a", EMAIL)).jobs.id == first.jobs.id
    store.drain()
    assert store.ask(SubmitOnce("a", EMAIL)).jobs.id == first.jobs.id


def test_a_key_is_forgotten_with_its_job_if_the_commit_fails(store: Store) -> None:
    store.fail_writes = sqlite3.SQLITE_CONSTRAINT
    with pytest.raises(StorageFailed, match="nothing was stored"):
        store.ask(SubmitOnce("a", EMAIL))
    store.fail_writes = None
    first = store.ask(SubmitOnce("a", EMAIL))
    assert not first.is_replayed
    assert [job.id for job in store.ask(ListJobs())] == [first.jobs.id]


def test_a_repeat_after_a_crash_and_a_start_gets_the_same_job(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.db")
    store = Store(path)
    first = store.ask(SubmitOnce("a", EMAIL)).jobs
    batch = store.ask(SubmitOnce("b", BATCH)).jobs
    store.database.close()
    after = Store(path)
    after.recover()
    assert after.ask(SubmitOnce("a", EMAIL)).jobs.id == first.id
    assert after.ask(SubmitOnce("b", BATCH)).is_replayed
    assert [job.id for job in after.ask(SubmitOnce("b", BATCH)).jobs] == [job.id for job in batch]
    assert_totals(after.database)


def test_a_repeat_of_a_job_that_was_deleted_says_so() -> None:
    store = Store(keep_failed=1)
    first = store.ask(SubmitOnce("a", EMAIL)).jobs
    batch = store.ask(SubmitOnce("b", BATCH)).jobs
    for job in (first, *batch[:2]):
        store.send(Fail(job.id, store.claim(job.id).attempts, "broken"))
    with pytest.raises(JobDeleted, match=first.id):
        store.ask(SubmitOnce("a", EMAIL))
    with pytest.raises(JobDeleted, match=f"1 of the 3 jobs.*{batch[1].id} to {batch[2].id}"):
        store.ask(SubmitOnce("b", BATCH))
    with pytest.raises(KeyReused):
        store.ask(SubmitOnce("a", BATCH))


def test_only_the_last_keys_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MOST", 3)
    for number in range(5):
        store.ask(SubmitOnce(f"{number}", EMAIL))
    assert store.database._connection.execute("SELECT count(*) FROM keys").fetchone() == (3,)
    replayed = [store.ask(SubmitOnce(f"{number}", EMAIL)).is_replayed for number in (2, 3, 4)]
    assert replayed == [True] * 3
    assert not store.ask(SubmitOnce("1", EMAIL)).is_replayed
    assert not store.ask(SubmitOnce("2", EMAIL)).is_replayed


def test_more_keys_than_are_kept_may_come_in_one_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MOST", 3)
    store.more_is_waiting(True)
    replies = [store.send(SubmitOnce(f"{number}", EMAIL)) for number in range(10)]
    store.more_is_waiting(False)
    store.ask(EMAIL)
    assert len({reply.get(timeout=0).jobs.id for reply in replies}) == 10
    assert store.ask(SubmitOnce("7", EMAIL)).is_replayed
    assert not store.ask(SubmitOnce("6", EMAIL)).is_replayed


@pytest.mark.parametrize("key", ["", " ", "a b", "a\n", "ü", "x" * 256])
def test_what_is_no_key_cannot_even_be_described(key: str) -> None:
    with pytest.raises(InvalidKey, match="1 to 255 visible"):
        SubmitOnce(key, EMAIL)


def test_a_job_is_submitted_once_in_python_too() -> None:
    with start(Settings(simulated_seconds=0)) as system:
        first = system.store.ask(SubmitOnce("a", Submit("email", {"n": 1})))
        assert system.store.ask(Await(first.jobs.id)).status == "completed"
        again = system.store.ask(SubmitOnce("a", Submit("email", {"n": 1})))
        assert (again.is_replayed, again.jobs.id, again.jobs.status) == (True, first.jobs.id, "completed")


def test_a_repeat_is_answered_even_if_its_job_could_no_longer_be_submitted() -> None:
    store = Store()
    refusal = InvalidJob("no handler")
    with pytest.raises(InvalidJob):
        store.ask(SubmitOnce("a", EMAIL, refusal=refusal))
    first = store.ask(SubmitOnce("a", EMAIL))
    assert store.ask(SubmitOnce("a", EMAIL, refusal=refusal)) == (first.jobs, True)


# Over HTTP.


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    path = tmp_path_factory.mktemp("keys") / "jobs.db"
    with running(GOFER_SIMULATED_SECONDS=0, GOFER_DATABASE=path, GOFER_KEEP_FAILED=1) as service:
        yield service


def post(service: Service, key: str, body: bytes = JOB) -> httpx.Response:
    return service.client.post("/jobs", content=body, headers=JSON | {"Idempotency-Key": key})


def test_a_repeat_over_http_is_answered_as_the_first_and_says_that_it_is_one(service: Service) -> None:
    first, again, bare = post(service, '"http"'), post(service, '"http"'), post(service, "http")
    assert [answer.status_code for answer in (first, again, bare)] == [201] * 3
    assert first.headers["location"] == again.headers["location"] == bare.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == bare.headers["idempotent-replayed"] == "true"


def test_a_repeat_of_an_array_gets_the_array(service: Service) -> None:
    body = b"[%s]" % b",".join([JOB] * 3)
    first, again = post(service, "array", body), post(service, "array", body)
    assert [job["id"] for job in first.json()] == [job["id"] for job in again.json()]
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("other", [JOB + b" ", b"[%s]" % JOB, b'{"type":"other"}'])
def test_a_key_with_another_body_is_422(service: Service, other: bytes) -> None:
    post(service, "other")
    answer = post(service, "other", other)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert "key" in answer.json()["detail"]


@pytest.mark.parametrize(
    "key",
    ["", '""', '"a', "a b", '"a b"', "x" * 256, f'"{"x" * 256}"', '"a";p=1', '"a", "b"', '"a"b"', r'"\x"',
     '"ü"'],
)  # fmt: skip
def test_a_malformed_key_is_400_and_says_what_is_right(service: Service, key: str) -> None:
    headers = JSON | {"Idempotency-Key": key}
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = service.client.post("/jobs", content=JOB, headers=encoded)
    assert answer.status_code == 400
    assert "1 to 255 visible ASCII characters" in answer.json()["detail"]


def test_two_keys_are_one_too_many(service: Service) -> None:
    headers = [("Content-Type", "application/json"), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert service.client.post("/jobs", content=JOB, headers=headers).status_code == 400


@pytest.mark.parametrize(("quoted", "bare"), [(r'"a\"b"', 'a"b'), (r'"a\\b"', r"a\b"), ('"x,y"', "x,y")])
def test_a_key_is_what_stands_in_the_quotes(service: Service, quoted: str, bare: str) -> None:
    assert post(service, quoted).headers["location"] == post(service, bare).headers["location"]


def test_the_longest_key_is_a_key(service: Service) -> None:
    assert post(service, "x" * 255).headers["location"] == post(service, f'"{"x" * 255}"').headers["location"]


def test_a_key_with_what_is_no_job_is_400_and_stays_free(tmp_path: Path) -> None:
    with running(GOFER_HANDLERS="tests.jobs:handlers", GOFER_DATABASE=tmp_path / "jobs.db") as service:
        assert post(service, "a", b'{"type":"unknown"}').status_code == 400
        assert post(service, "a", b"[]").status_code == 400
        assert post(service, "a", b'{"type":"echo"}').status_code == 201


@pytest.mark.parametrize("how", ["none", "kill", "reload"])
def test_two_hundred_posts_of_one_key_are_one_job(tmp_path: Path, how: str) -> None:
    with running(GOFER_DATABASE=tmp_path / "jobs.db", GOFER_SIMULATED_SECONDS=0) as service:
        for number, delay in enumerate((0.02, 0.1)):
            assert problem(service, number, how, delay) is None
