"""What is kept is bounded: pending jobs and finished ones, in number and bytes, and finished ones in age."""

import asyncio
import gc
from datetime import timedelta
from typing import Any

import httpx
import pytest
from msgspec import Raw

from actors import Await, Settings, Submit, start
from actors.errors import CapacityReached, JobNotFound, SettingError
from actors.lifecycle import Job, Status
from actors.messages import Cancel, Complete, DeleteExpired, Fail, Get, ListJobs, Retry
from actors.settings import from_environment
from actors.store import retention
from api import create_app
from api.app import App
from api.request import Request
from tests.calling import Store, assert_totals
from tests.service import eventually
from tests.sizes import MOST, attack

YEARS = 10 * 365 * 86400


def sized(size: int, delay: float = 0) -> Submit:
    """Return a job whose payload has so many bytes."""
    return Submit("email", Raw(b'"' + b"x" * (size - 2) + b'"'), delay=delay)


def completed(store: Store, result: object = None) -> str:
    """Submit a job of two bytes and complete it; return its id."""
    job: Job = store.ask(Submit("email"))
    store.claim(job.id)
    store.ask(Complete(job.id, 1, result))
    return job.id


def failed(store: Store, error: str = "broken") -> str:
    """Submit a job of two bytes and let it fail; return its id."""
    job: Job = store.ask(Submit("email"))
    store.claim(job.id)
    store.ask(Fail(job.id, 1, error))
    return job.id


def listed(store: Store) -> list[str]:
    return [job.id for job in store.ask(ListJobs())]


# What is pending.


def test_delayed_jobs_never_take_the_place_of_those_that_could_run() -> None:
    store = Store(capacity=2, capacity_delayed=3)
    for _ in range(3):
        store.ask(Submit("email", delay=YEARS))
    with pytest.raises(CapacityReached, match=r"3 delayed jobs are pending.*GOFER_CAPACITY_DELAYED"):
        store.ask(Submit("email", delay=YEARS))
    for _ in range(2):
        store.ask(Submit("email"))
    with pytest.raises(CapacityReached, match=r"2 jobs are pending.*\(GOFER_CAPACITY\)"):
        store.ask(Submit("email"))
    assert_totals(store.database)


def test_jobs_are_refused_that_would_exceed_the_bytes_of_the_capacity() -> None:
    store = Store(capacity_bytes=100)
    first = store.ask(sized(60)).id
    store.ask(sized(40))
    with pytest.raises(CapacityReached, match=r"100 bytes are pending.*2 more.*GOFER_CAPACITY_BYTES"):
        store.ask(sized(2))
    store.claim(first)
    store.ask(sized(60))
    assert store.database.totals.bytes["pending"] == 100


def test_a_job_that_is_larger_than_the_capacity_is_admitted_where_nothing_is_pending() -> None:
    store = Store(capacity_bytes=10)
    store.ask(sized(60))
    with pytest.raises(CapacityReached):
        store.ask(sized(2))


def test_delayed_jobs_take_at_most_half_of_the_bytes() -> None:
    store = Store(capacity_bytes=100)
    store.ask(sized(30, delay=YEARS))
    with pytest.raises(CapacityReached, match="exceed half of 100"):
        store.ask(sized(21, delay=YEARS))
    store.ask(sized(20, delay=YEARS))
    store.ask(sized(50))
    with pytest.raises(CapacityReached, match="exceed 100"):
        store.ask(sized(2))


def test_a_retry_needs_room_for_its_bytes_too() -> None:
    store = Store(capacity_bytes=100)
    cancelled = store.ask(sized(60)).id
    store.ask(Cancel(cancelled))
    other = store.ask(sized(60)).id
    with pytest.raises(CapacityReached):
        store.ask(Retry(cancelled))
    store.claim(other)
    assert store.ask(Retry(cancelled)).status is Status.PENDING


# What is finished.


def test_no_number_of_successes_evicts_a_failure() -> None:
    store = Store(keep_finished=5, keep_failed=2)
    failures = [failed(store) for _ in range(3)]
    successes = [completed(store) for _ in range(100)]
    assert listed(store) == failures[1:] + successes[-5:]
    assert_totals(store.database)


def test_what_finished_first_is_deleted_when_too_many_bytes_are_kept() -> None:
    store = Store(keep_bytes=100)
    jobs = [completed(store, "x" * 16) for _ in range(9)]
    assert listed(store) == jobs[4:]
    assert store.database.totals.bytes["completed"] == 100
    assert_totals(store.database)


def test_successes_evict_no_failure_that_takes_less_than_half_of_the_bytes() -> None:
    store = Store(keep_bytes=100)
    failure = failed(store, "x" * 38)
    jobs = [completed(store, "x" * 16) for _ in range(9)]
    assert listed(store) == [failure, *jobs[-3:]]
    failures = [failed(store, "x" * 38) for _ in range(3)]
    assert listed(store) == [*jobs[-3:], failures[-1]]
    assert_totals(store.database)


def test_failures_may_take_all_of_the_bytes_where_nothing_else_is_kept() -> None:
    store = Store(keep_bytes=100)
    failures = [failed(store, "x" * 38) for _ in range(4)]
    assert listed(store) == failures[2:]


def test_a_lowered_limit_of_bytes_is_reached_a_few_jobs_at_a_time(tmp_path: object) -> None:
    path = f"{tmp_path}/jobs.db"
    store = Store(path)
    jobs = [completed(store, "x" * 16) for _ in range(20)]
    store.database.close()
    store = Store(path, keep_bytes=40)
    last = [completed(store, "x" * 16)]
    assert listed(store) == jobs[retention.DELETED_AT_ONCE :] + last
    last += [completed(store, "x" * 16) for _ in range(6)]
    assert listed(store) == last[-2:]


def test_jobs_are_deleted_when_they_finished_too_long_ago() -> None:
    store = Store(keep_seconds=60)
    old = [completed(store), failed(store)]
    store.now += timedelta(seconds=30)
    young = [completed(store), failed(store)]
    pending = store.ask(Submit("email")).id
    store.now += timedelta(seconds=29)
    assert store.ask(DeleteExpired()) is False
    assert listed(store) == [*old, *young, pending]
    store.now += timedelta(seconds=1)
    assert store.ask(DeleteExpired()) is False
    assert listed(store) == [*young, pending]
    with pytest.raises(JobNotFound):
        store.ask(Get(old[0]))
    assert_totals(store.database)


def test_one_step_deletes_few_jobs_and_says_that_more_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "EXPIRED_AT_ONCE", 3)
    monkeypatch.setattr(retention, "EXPIRED_BYTES", 200)
    store = Store(keep_seconds=60)
    small = [completed(store) for _ in range(4)]
    large = [failed(store, "x" * 150) for _ in range(2)]
    store.now += timedelta(seconds=100)
    assert store.ask(DeleteExpired()) is True
    assert listed(store) == [*small[3:], *large[1:]]
    assert store.ask(DeleteExpired()) is True
    assert store.ask(DeleteExpired()) is False
    assert listed(store) == []


def test_a_service_without_work_deletes_what_is_too_old() -> None:
    with start(Settings(keep_seconds=0.5), {"echo": lambda payload: payload}) as system:
        job = system.store.ask(Submit("echo"))
        system.store.ask(Await(job.id))
        eventually(lambda: system.store.ask(ListJobs()) == [])


# How sizes are set.


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("1000", 1000), ("512KiB", 512 * 1024), ("64 MiB", 64 * 1024**2), ("2GiB", 2 * 1024**3)],
)
def test_a_size_is_a_number_of_bytes_or_of_a_unit(text: str, size: int) -> None:
    assert from_environment({"GOFER_CAPACITY_BYTES": text}).capacity_bytes == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1KB", "1 kib", "1.5GiB", "MiB", "0MiB", "٣MiB"])
def test_any_other_size_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(SettingError, match=r"GOFER_CAPACITY_BYTES is .* 512KiB, 256MiB or 1GiB, at least 1"):
        from_environment({"GOFER_CAPACITY_BYTES": text})


def test_no_bytes_and_no_seconds_are_no_limit() -> None:
    store = Store(keep_bytes=0, keep_seconds=0, keep_finished=0, keep_failed=0)
    jobs = [completed(store), failed(store)]
    store.now += timedelta(seconds=YEARS)
    assert not store.ledger.expires
    assert listed(store) == jobs


# What a request leaves behind.


def left_behind(app: App, requests: list[tuple[str, str, dict[str, Any]]]) -> tuple[list[int], int]:
    """Send the requests; return the statuses, and how many requests only the collector would free."""

    async def send() -> list[int]:
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [
                (await client.request(method, path, **rest)).status_code for method, path, rest in requests
            ]

    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        statuses = asyncio.run(send())
        gc.collect()
        return statuses, sum(isinstance(each, Request) for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def test_no_request_waits_for_the_garbage_collector_whatever_its_answer() -> None:
    job, json = {"type": "email", "payload": "x" * 1000}, {"Content-Type": "application/json"}
    with start(Settings(capacity=1, workers=1, simulated_seconds=60)) as system:
        app = create_app(system)
        first = system.store.ask(Submit("email"))
        eventually(lambda: system.store.ask(Get(first.id)).status is Status.PROCESSING)
        requests: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", "/jobs", {"json": job}),
            ("POST", "/jobs", {"json": job}),
            ("POST", "/jobs", {"content": b"{" * 1000, "headers": json}),
            ("POST", "/jobs", {"content": b"\xff" * 1000, "headers": json}),
            ("POST", "/jobs", {"content": b"[" * 10_000, "headers": json}),
            ("POST", "/jobs", {"content": b"x" * 2_000_000, "headers": json}),
            ("POST", "/jobs", {"json": {"type": ""}}),
            ("POST", "/jobs", {"content": b"{}"}),
            ("POST", f"/jobs/{first.id}/retry", {}),
            ("GET", f"/jobs/{first.id}", {}),
            ("GET", "/jobs/none", {}),
            ("GET", "/jobs?limit=0", {}),
            ("GET", "/nothing", {}),
            ("PUT", "/jobs", {}),
            ("GET", "/health", {}),
        ]
        statuses, left = left_behind(app, requests)
        assert statuses == [201, 429, 400, 400, 400, 413, 400, 415, 409, 200, 404, 400, 404, 405, 200]
        assert left == 0
        system.drain(0)
        assert left_behind(app, [("POST", "/jobs", {"json": job}), ("GET", "/health", {})]) == ([503, 503], 0)


@pytest.mark.parametrize("on_a_file", [False, True], ids=["memory", "file"])
def test_memory_and_file_stay_bounded_whatever_is_posted(*, on_a_file: bool) -> None:
    seen = attack(150, on_a_file=on_a_file)
    assert seen.accepted >= 150
    assert max(seen.memory) <= MOST
    assert max(seen.file) <= MOST
