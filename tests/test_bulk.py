"""All jobs that match are cancelled or retried: in steps that hold nothing up, each job once."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import CancelMany, RetryMany, Submit, SubmitAll
from actors.errors import CapacityReached, Draining, StorageFailed
from actors.handlers import Handlers
from actors.lifecycle import Job
from actors.messages import Cancelled, Fail, Get, ListJobs, RecoverCrashed
from actors.store import interventions
from tests.calling import EMAIL, Store, assert_totals
from tests.service import Service, running

REPORT = Submit("report", [1])


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interventions, "STEP", 3)


def all_steps(store: Store, message: Any) -> list[tuple[int, int]]:
    """Ask for each step to the last; return what each came to."""
    steps = []
    while message is not None:
        moved, requested, message = store.ask(message)
        steps.append((moved, requested))
    return steps


def submit(store: Store, *jobs: Submit) -> list[Job]:
    found: list[Job] = store.ask(SubmitAll(jobs))
    return found


def statuses(store: Store) -> list[str]:
    return [job.status for job in store.ask(ListJobs())]


def fail(store: Store, job: Job) -> None:
    store.send(Fail(job.id, store.claim(job.id).attempts, "broken"))


# Cancel.


def test_all_pending_jobs_are_cancelled_in_steps_and_never_run() -> None:
    store = Store(workers=2)
    submit(store, *[EMAIL] * 7, Submit("email", delay=60))
    assert all_steps(store, CancelMany()) == [(3, 0), (3, 0), (2, 0), (0, 0)]
    assert statuses(store) == ["cancelled"] * 8
    assert store.delivered() == []
    assert_totals(store.database)


def test_what_runs_is_asked_to_stop_and_counted_apart() -> None:
    store = Store(workers=2)
    first, second, _ = submit(store, EMAIL, EMAIL, EMAIL)
    store.claim(first.id)
    store.take(second.id)  # Its Worker has yet to tell.
    assert all_steps(store, CancelMany()) == [(1, 2), (0, 0)]
    assert store.interrupts.is_cancelled(first.id)
    assert store.interrupts.is_cancelled(second.id)
    store.send(Cancelled(first.id, 1))
    assert statuses(store) == ["cancelled", "processing", "cancelled"]


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (CancelMany(status="pending"), ["processing", "cancelled", "cancelled", "cancelled"]),
        (CancelMany(type="report"), ["processing", "cancelled", "pending", "cancelled"]),
        (CancelMany(type="report", status="processing"), ["processing", "pending", "pending", "pending"]),
        (CancelMany(type="none"), ["processing", "pending", "pending", "pending"]),
    ],
)
def test_only_what_matches_is_cancelled(query: CancelMany, left: list[str]) -> None:
    store = Store(workers=1)
    first, *_ = submit(store, EMAIL, REPORT, EMAIL, Submit("report", delay=60))
    store.claim(first.id)
    all_steps(store, query)
    assert statuses(store) == left


def test_jobs_that_come_after_the_first_step_are_left_alone() -> None:
    store = Store(workers=1)
    submit(store, *[EMAIL] * 4)
    step = store.ask(CancelMany())
    (late,) = submit(store, EMAIL)
    assert all_steps(store, step.rest) == [(1, 0), (0, 0)]
    assert store.ask(Get(late.id)).status == "pending"


def test_other_messages_come_between_two_steps() -> None:
    store = Store()
    jobs = submit(store, *[EMAIL] * 5)
    step = store.ask(CancelMany())
    store.ask(RetryMany(status="cancelled", last=jobs[0].id))
    assert all_steps(store, step.rest) == [(2, 0), (0, 0)]
    assert statuses(store) == ["pending", *["cancelled"] * 4]


def test_large_jobs_are_few_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interventions, "STEP_BYTES", 100)
    store = Store()
    submit(store, *[Submit("email", "x" * 60)] * 4, *[EMAIL] * 2)
    assert all_steps(store, CancelMany()) == [(2, 0), (2, 0), (2, 0), (0, 0)]


def test_a_type_without_a_handler_is_no_complaint_once_its_jobs_are_cancelled(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.db")
    store = Store(path)
    submit(store, *[REPORT] * 4)
    store.database.close()
    after = Store(path, handlers=Handlers({"email": str}))
    after.recover()
    after.ask(EMAIL)
    assert after.ledger.unhandled == {"report"}
    all_steps(after, CancelMany())
    assert not after.ledger.unhandled


def test_a_crash_between_two_steps_keeps_those_done_and_a_repeat_goes_on(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.db")
    store = Store(path)
    submit(store, *[EMAIL] * 5)
    store.ask(CancelMany())
    store.database.close()
    after = Store(path)
    after.recover()
    assert statuses(after) == [*["cancelled"] * 3, *["pending"] * 2]
    assert all_steps(after, CancelMany()) == [(2, 0), (0, 0)]
    assert_totals(after.database)


def test_a_cancel_before_the_recovery_of_a_crash_asks_what_may_have_begun(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.db")
    store = Store(path, workers=1)
    submit(store, *[EMAIL] * 2)
    store.database.close()
    after = Store(path, workers=1)
    assert all_steps(after, CancelMany()) == [(2, 0), (0, 0)]
    after.ask(RecoverCrashed())
    assert statuses(after) == ["cancelled"] * 2


def test_a_commit_that_fails_cancels_none_of_the_step() -> None:
    store = Store(workers=1)
    jobs = submit(store, *[EMAIL] * 3)
    store.fail_writes = sqlite3.SQLITE_CONSTRAINT
    with pytest.raises(StorageFailed, match="nothing was stored"):
        store.ask(CancelMany())
    store.fail_writes = None
    assert statuses(store) == ["pending"] * 3
    assert store.delivered() == [jobs[0].id]


# Retry.


def test_failed_and_cancelled_jobs_are_retried_and_each_only_once() -> None:
    store = Store()
    jobs = submit(store, *[EMAIL] * 5)
    for job in jobs[:4]:
        fail(store, job)
    step = store.ask(RetryMany())
    assert (step.moved, step.requested) == (3, 0)
    fail(store, jobs[0])  # It failed again meanwhile, and is not tried again.
    assert all_steps(store, step.rest) == [(1, 0), (0, 0)]
    assert statuses(store) == ["failed", *["pending"] * 4]
    assert set(store.delivered()) == {job.id for job in jobs[1:]}
    assert_totals(store.database)


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (RetryMany(status="failed"), ["pending", "cancelled", "pending"]),
        (RetryMany(status="cancelled"), ["failed", "pending", "failed"]),
        (RetryMany(type="report"), ["failed", "cancelled", "pending"]),
    ],
)
def test_only_what_matches_is_retried(query: RetryMany, left: list[str]) -> None:
    store = Store()
    jobs = submit(store, EMAIL, EMAIL, REPORT)
    fail(store, jobs[0])
    fail(store, jobs[2])
    all_steps(store, CancelMany())
    all_steps(store, query)
    assert statuses(store) == left


def test_a_retry_goes_as_far_as_there_is_room_and_a_repeat_goes_on() -> None:
    store = Store(capacity=5)
    jobs = submit(store, *[EMAIL] * 5)
    all_steps(store, CancelMany())
    waiting = submit(store, EMAIL)
    first = store.ask(RetryMany())
    assert first.moved == 3
    second = store.ask(first.rest)
    assert second.moved == 1
    with pytest.raises(CapacityReached):
        store.ask(second.rest)
    assert statuses(store) == [*["pending"] * 4, "cancelled", "pending"]
    fail(store, waiting[0])
    assert all_steps(store, RetryMany(status="cancelled")) == [(1, 0), (0, 0)]
    assert store.ask(Get(jobs[4].id)).status == "pending"


@pytest.mark.parametrize("message", [CancelMany(), RetryMany()])
def test_no_step_is_begun_while_the_service_stops(message: Any) -> None:
    store = Store()
    store.drain()
    with pytest.raises(Draining):
        store.ask(message)


# Over HTTP.


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(GOFER_SIMULATED_SECONDS=60, GOFER_CAPACITY=260) as service:
        yield service


def post(service: Service, job_type: str, count: int) -> list[dict[str, Any]]:
    body = [{"type": job_type}] * count
    found: list[dict[str, Any]] = service.client.post("/jobs", json=body).raise_for_status().json()
    return found


def test_jobs_are_cancelled_and_retried_over_http_and_counted(service: Service) -> None:
    running_one, *_ = post(service, "one", 1)
    service.wait_for(running_one["id"], "processing")
    post(service, "many", 250)
    answer = service.client.post("/jobs/cancel", params={"type": "many", "status": "pending"})
    assert (answer.status_code, answer.json()) == (200, {"cancelled": 250, "requested": 0})
    assert service.client.post("/jobs/cancel?type=many").json() == {"cancelled": 0, "requested": 0}
    assert service.client.post("/jobs/cancel?type=one").json() == {"cancelled": 0, "requested": 1}
    assert service.wait_for(running_one["id"], "cancelled")
    post(service, "other", 60)
    answer = service.client.post("/jobs/retry", params={"status": "cancelled", "type": "many"})
    retried = answer.json()["retried"]
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert retried == len(service.jobs(type="many", status="pending"))
    assert 195 <= retried <= 205
    service.client.post("/jobs/cancel?type=other").raise_for_status()
    answer = service.client.post("/jobs/retry?type=many")
    assert (answer.status_code, answer.json()) == (200, {"retried": 250 - retried})


@pytest.mark.parametrize("path", ["/jobs/cancel", "/jobs/retry"])
@pytest.mark.parametrize(
    "query",
    [
        "status=completed",
        "status=",
        "status=x",
        "colour=red",
        "after=0000000000000001",
        "limit=1",
        "type=a&type=b",
    ],
)
def test_a_query_that_means_nothing_is_refused(service: Service, path: str, query: str) -> None:
    answer = service.client.post(f"{path}?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert "`type`" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/jobs/cancel", "/jobs/retry"])
def test_a_body_is_refused_as_it_would_not_be_looked_at(service: Service, path: str) -> None:
    answer = service.client.post(path, json={"type": "email"})
    assert answer.status_code == 400
    assert "no body" in answer.json()["detail"]
