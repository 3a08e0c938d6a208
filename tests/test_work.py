"""Real actors that do real work, seen over HTTP."""

import contextlib
import sys
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any

import falcon.testing
import pytest

from actors import Await, Get, Settings, Submit, System, handler, start
from api import create_app

FINISH = 30.0
#: Enough for every Worker to have failures and successes side by side.
JOBS = 6_000


class Work:
    """Handlers of every kind, and what they do."""

    def __init__(self) -> None:
        self.failures: dict[int, int] = {}
        self._lock = threading.Lock()
        self._in_hands: set[int] = set()
        self.was_in_two_hands: set[int] = set()
        self.is_running = threading.Event()
        self.may_end = threading.Event()

    def handlers(self) -> dict[str, Any]:
        return {
            "flaky": self.flaky,
            "exit": lambda _: sys.exit(1),
            "interrupt": self.interrupt,
            "for_ever": self.for_ever,
            "silent": self.silent,
            "second": self.second,
            "echo": lambda payload: payload,
        }

    @handler(backoff=0.01)
    def flaky(self, payload: dict[str, int]) -> str:
        """Fail as often as every third number asks for."""
        number = payload["number"]
        with self.in_hand(number):
            self.failures[number] = self.failures.get(number, 0) + 1
            if number % 3 == 0 and self.failures[number] <= 2:
                raise ConnectionError("not yet")
        return "done"

    @contextlib.contextmanager
    def in_hand(self, number: int) -> Iterator[None]:
        with self._lock:
            if number in self._in_hands:
                self.was_in_two_hands.add(number)
            self._in_hands.add(number)
        yield_to_others()
        try:
            yield
        finally:
            with self._lock:
                self._in_hands.discard(number)

    def second(self, _payload: dict[str, Any]) -> None:
        """Take a second."""
        threading.Event().wait(1)

    def interrupt(self, _payload: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    def for_ever(self, _payload: dict[str, Any]) -> Generator[float]:
        while True:
            self.is_running.set()
            yield 0.5

    def silent(self, _payload: dict[str, Any]) -> str:
        self.is_running.set()
        assert self.may_end.wait(FINISH)
        return "done"


def yield_to_others() -> None:
    """Let other threads run, so that who could clash does."""
    time.sleep(0)


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def system(work: Work) -> Iterator[System]:
    settings = Settings(workers=8, capacity=100_000)
    system = start(settings, work.handlers())
    yield system
    work.may_end.set()
    system.stop(grace=0)


@pytest.fixture
def client(system: System) -> falcon.testing.TestClient:
    return falcon.testing.TestClient(create_app(system))


def finished(system: System, job_id: str) -> Any:
    return system.store.ask(Await(job_id), block=True, timeout=FINISH)


def submit(client: falcon.testing.TestClient, **job: Any) -> str:
    answer = client.simulate_post("/jobs", json=job)
    assert answer.status_code == 201, answer.text
    return str(answer.json["id"])


def test_every_third_of_thousands_of_jobs_fails_twice_and_all_are_completed(
    system: System, work: Work
) -> None:
    asked = [
        system.store.ask(Submit("flaky", {"number": number}, max_retries=3), block=False)
        for number in range(JOBS)
    ]
    for number, reply in enumerate(asked):
        job = finished(system, reply.get().id)
        assert (job.status, job.attempts) == ("completed", 1 if number % 3 else 3)
    assert work.failures == {number: 1 if number % 3 else 3 for number in range(JOBS)}
    assert work.was_in_two_hands == set()


def test_sixteen_jobs_of_a_second_take_eight_workers_two_seconds(system: System) -> None:
    before = time.monotonic()
    asked = [system.store.ask(Submit("second"), block=False) for _ in range(16)]
    done = sorted((finished(system, reply.get().id) for reply in asked), key=lambda job: job.started_at)
    assert 2 <= time.monotonic() - before < 3.5
    first, second = done[:8], done[8:]
    assert max(job.started_at for job in first) < min(job.finished_at for job in first)
    assert min(job.finished_at for job in first) <= min(job.started_at for job in second)
    assert max(job.started_at for job in second) < min(job.finished_at for job in second)


def test_a_job_that_lasts_delays_no_other(system: System, work: Work) -> None:
    lasting = system.store.ask(Submit("silent"), block=True, timeout=FINISH)
    assert work.is_running.wait(FINISH)
    asked = [system.store.ask(Submit("echo", {"n": n}), block=False) for n in range(100)]
    assert [finished(system, reply.get().id).result["n"] for reply in asked] == list(range(100))
    assert system.store.ask(Get(lasting.id), block=True, timeout=FINISH).status == "processing"
    work.may_end.set()
    assert finished(system, lasting.id).status == "completed"


@pytest.mark.parametrize("job_type", ["exit", "interrupt"])
def test_a_handler_that_wants_to_end_the_process_fails_its_job_and_nothing_else(
    system: System, client: falcon.testing.TestClient, job_type: str
) -> None:
    job = finished(system, submit(client, type=job_type))
    assert (job.status, job.last_error.split(":")[0] in {"SystemExit", "KeyboardInterrupt"}) == (
        "failed",
        True,
    )
    assert client.simulate_get("/health").status_code == 200
    assert finished(system, submit(client, type="echo", payload={"a": 1})).result == {"a": 1}


def test_a_running_job_that_yields_is_cancelled(
    system: System, client: falcon.testing.TestClient, work: Work
) -> None:
    job_id = submit(client, type="for_ever")
    assert work.is_running.wait(FINISH)
    answer = client.simulate_delete(f"/jobs/{job_id}")
    assert (answer.status_code, answer.json["status"]) == (202, "processing")
    assert finished(system, job_id).status == "cancelled"
    assert client.simulate_delete(f"/jobs/{job_id}").status_code == 409


def test_a_running_job_that_never_yields_is_completed_in_spite_of_a_cancel(
    system: System, client: falcon.testing.TestClient, work: Work
) -> None:
    job_id = submit(client, type="silent")
    assert work.is_running.wait(FINISH)
    assert client.simulate_delete(f"/jobs/{job_id}").status_code == 202
    work.may_end.set()
    assert finished(system, job_id).status == "completed"


def test_a_delayed_job_is_cancelled_at_once_and_runs_when_it_is_retried(
    system: System, client: falcon.testing.TestClient
) -> None:
    job_id = submit(client, type="echo", delay=3600)
    shown = client.simulate_get(f"/jobs/{job_id}").json
    assert (shown["status"], "run_at" in shown) == ("pending", True)
    answer = client.simulate_delete(f"/jobs/{job_id}")
    assert (answer.status_code, answer.json["status"]) == (200, "cancelled")
    answer = client.simulate_post(f"/jobs/{job_id}/retry")
    assert (answer.status_code, answer.json["status"]) == (200, "pending")
    assert finished(system, job_id).status == "completed"
    assert client.simulate_post(f"/jobs/{job_id}/retry").status_code == 409


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ({"type": "emial"}, "no handler for `type` 'emial'; there are: echo, exit, flaky"),
        ({"type": "echo", "max_retries": -1}, "$.max_retries"),
        ({"type": "echo", "max_retries": 1.5}, "$.max_retries"),
        ({"type": "echo", "delay": "soon"}, "$.delay"),
        ({"type": "echo", "delay": -1}, "$.delay"),
    ],
)
def test_a_job_that_cannot_be_run_is_refused_with_what_to_change(
    client: falcon.testing.TestClient, job: dict[str, Any], reason: str
) -> None:
    answer = client.simulate_post("/jobs", json=job)
    assert (answer.status_code, reason in answer.json["detail"]) == (400, True), answer.text
    assert client.simulate_get("/jobs").json == []


@pytest.mark.parametrize("path", ["/jobs/0000000000000000", "/jobs/nope"])
def test_an_unknown_job_is_neither_cancelled_nor_retried(
    client: falcon.testing.TestClient, path: str
) -> None:
    assert client.simulate_delete(path).status_code == 404
    assert client.simulate_post(f"{path}/retry").status_code == 404
