"""Actors that die: a Worker is replaced, and a JobStore makes the whole start anew."""

import ctypes
import json
import random
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pykka
import pytest

from actors import Await, Cancel, Get, Job, ListJobs, Settings, Submit, System, handler, start
from actors.errors import InvalidJob
from actors.handlers import Function, Handler
from actors.messages import Complete, Fail, Ping, Progress, Run
from actors.store.jobstore import JobStore
from actors.work.worker import Worker
from tests import jobs
from tests.jobs import LIMIT
from tests.service import Service, eventually, running

each_number_of_workers = pytest.mark.parametrize("workers", [1, 8])


class Lost:
    """Counts how often a system said that it is lost."""

    def __init__(self) -> None:
        self.times = 0
        self.is_told = threading.Event()

    def __call__(self) -> None:
        self.times += 1
        self.is_told.set()


class Bench:
    """Systems that are started, and stopped in the end, whatever became of them."""

    def __init__(self) -> None:
        self.before = set(threading.enumerate())
        self.lost = Lost()
        self.is_waiting = threading.Semaphore(0)
        self.over = threading.Event()
        self.systems: list[System] = []

    def start(self, handlers: dict[str, Function] | None = None, **settings: Any) -> System:
        given = {**jobs.handlers, "wait": self.wait, **(handlers or {})}
        self.systems.append(start(Settings(**settings), given, lost=self.lost))
        return self.systems[-1]

    def wait(self, _payload: jobs.Payload) -> str:
        self.is_waiting.release()
        assert self.over.wait(LIMIT)
        return "done"

    def stop(self) -> None:
        """Stop what runs, and see that no thread is left."""
        self.over.set()
        for system in self.systems:
            system.stop(grace=0)
        for thread in set(threading.enumerate()) - self.before:
            thread.join(LIMIT)
        assert set(threading.enumerate()) == self.before


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.stop()


def ask(system: System, message: Any) -> Any:
    return system.store.ask(message, block=True, timeout=LIMIT)


def submit(system: System, job_type: str, retries: int = 0, **payload: Any) -> str:
    return str(ask(system, Submit(job_type, payload, max_retries=retries)).id)


def finished(system: System, job_id: str) -> Job:
    job: Job = ask(system, Await(job_id))
    return job


def run(system: System, job_type: str, retries: int = 0) -> Job:
    return finished(system, submit(system, job_type, retries))


def assert_works(system: System, workers: int) -> None:
    """See that so many Workers run jobs side by side."""
    barrier = threading.Barrier(workers)
    system.handlers._known["meet"] = Handler("meet", lambda _payload: barrier.wait(LIMIT))
    ids = [submit(system, "meet") for _ in range(workers)]
    assert {finished(system, job_id).status for job_id in ids} == {"completed"}
    eventually(lambda: (len(system.workers), system.dead()) == (workers, []))


# A Worker that ends.


@each_number_of_workers
@pytest.mark.parametrize("job_type", ["stop_my_worker", "tell_my_worker_to_stop"])
def test_a_worker_whose_handler_stops_it_finishes_the_job_and_is_replaced(
    bench: Bench, workers: int, job_type: str
) -> None:
    system = bench.start(workers=workers)
    before = set(system.workers)
    job = run(system, job_type)
    assert (job.status, job.result) == ("completed", "done")
    eventually(lambda: len(before - set(system.workers)) == 1)
    assert_works(system, workers)
    assert bench.lost.times == 0


def break_workers(monkeypatch: pytest.MonkeyPatch, error: BaseException, times: int = 1) -> None:
    """Have that many attempts, of whichever Worker, end in an error of its own."""
    method, errors = Worker._outcome, iter([error] * times)

    def attempt(worker: Worker, run: Run) -> Any:
        for next_error in errors:
            raise next_error
        return method(worker, run)

    monkeypatch.setattr(Worker, "_outcome", attempt)


each_death = pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("a bug"), "the Worker died: ValueError: a bug"),
        (SystemExit(3), "the Worker died: RuntimeError: SystemExit: 3"),
        (KeyboardInterrupt(), "the Worker died: RuntimeError: KeyboardInterrupt: "),
    ],
)


@each_death
@each_number_of_workers
def test_the_job_of_a_worker_that_dies_fails_and_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, workers: int, error: BaseException, text: str
) -> None:
    system = bench.start(workers=workers)
    others = [submit(system, "wait") for _ in range(workers - 1)]
    for _ in others:
        assert bench.is_waiting.acquire(timeout=LIMIT)
    break_workers(monkeypatch, error)
    job = run(system, "echo")
    assert (job.status, job.attempts, job.last_error) == ("failed", 1, text)
    bench.over.set()
    assert [finished(system, job_id).status for job_id in others] == ["completed"] * len(others)
    assert_works(system, workers)
    assert bench.lost.times == 0


@each_death
def test_the_job_of_a_worker_that_dies_is_tried_again_as_after_any_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: BaseException, text: str
) -> None:
    system = bench.start({"echo": handler(backoff=0.01)(lambda payload: payload)})
    break_workers(monkeypatch, error, times=2)
    job = run(system, "echo", retries=2)
    assert (job.status, job.attempts, job.last_error) == ("completed", 3, text)


def test_a_worker_that_dies_with_no_job_in_its_hands_is_replaced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = bench.start({"echo": jobs.echo})
    (before,) = system.workers
    monkeypatch.setattr(before._actor_weakref(), "on_receive", raising(ValueError("a bug")))
    before.tell("anything")
    eventually(lambda: before not in system.workers)
    assert_works(system, 1)


@pytest.mark.parametrize("error", [TimeoutError, SystemExit])
@each_number_of_workers
def test_an_exception_that_comes_too_late_for_its_handler_costs_no_worker(
    bench: Bench, workers: int, error: type[BaseException]
) -> None:
    """As of a time limit that a handler keeps by itself, with an exception sent to its thread."""
    system = bench.start(workers=workers)
    before = list(system.workers)
    threads = [worker.ask(Ping(), block=True, timeout=LIMIT) for worker in before]
    idle: Any = system._channel.changed
    eventually(lambda: len(idle._waiters) == workers)
    for thread in threads:
        number = ctypes.c_ulong(thread.ident)
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(error)) == 1
    assert_works(system, workers)
    assert system.workers == before


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*_: object) -> None:
        raise error

    return function


class Hands:
    """Handlers that see whether one job is in two hands, and that stop Workers while they run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_hands: set[int] = set()
        self.runs: list[int] = []
        self.clashes: list[int] = []
        self.most_threads = 0

    def hold(self, payload: jobs.Payload) -> None:
        number = payload["number"]
        with self._lock:
            self.runs.append(number)
            if number in self._in_hands:
                self.clashes.append(number)
            self._in_hands.add(number)
            self.most_threads = max(self.most_threads, threading.active_count())
        if number % 2:
            jobs.my_worker().stop(block=False)
        with self._lock:
            self._in_hands.discard(number)


@each_number_of_workers
def test_workers_that_stop_all_the_time_lose_no_job_and_run_none_twice(bench: Bench, workers: int) -> None:
    hands = Hands()
    system = bench.start({"hold": hands.hold}, workers=workers)
    ids = [submit(system, "hold", number=number) for number in range(400)]
    assert {finished(system, job_id).status for job_id in ids} == {"completed"}
    assert sorted(hands.runs) == list(range(400))
    assert hands.clashes == []
    # Each that ends lives a moment beside the one that takes its place.
    assert hands.most_threads <= len(bench.before) + 1 + 2 * workers + 4
    assert_works(system, workers)


@each_number_of_workers
def test_two_hundred_deaths_in_a_row_harm_no_other_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Every second job kills its Worker; the first time, as it is then tried again."""
    hands = Hands()
    killed: set[str] = set()
    attempt = Worker._outcome

    def dying(worker: Worker, run: Run) -> Any:
        assert isinstance(run.job.payload, dict)
        if run.job.payload["number"] % 4 == 0 and run.id not in killed:
            killed.add(run.id)
            raise ValueError("a bug")
        return attempt(worker, run)

    monkeypatch.setattr(Worker, "_outcome", dying)
    hold = handler(backoff=0.01)(lambda payload: hands.hold({"number": 2 * payload["number"]}))
    system = bench.start({"hold": hold}, workers=workers)
    ids = [submit(system, "hold", 1, number=number) for number in range(800)]
    ended = [finished(system, job_id) for job_id in ids]
    assert [(job.status, job.attempts) for job in ended] == [
        ("completed", 1 if number % 4 else 2) for number in range(800)
    ]
    assert len(killed) == 200
    assert sorted(hands.runs) == list(range(0, 1600, 2))
    assert hands.clashes == []
    assert hands.most_threads <= len(bench.before) + 1 + 2 * workers + 4
    assert len(system._crew._ending) <= 2 * workers + 4


def test_workers_stopped_from_outside_while_jobs_run_are_all_replaced(bench: Bench) -> None:
    hands = Hands()
    system = bench.start({"hold": lambda p: hands.hold({"number": p["number"] * 2})}, workers=8)
    ids = []
    for number in range(200):
        ids.append(submit(system, "hold", number=number))
        random.choice(list(system.workers)).stop(block=False)
    assert {finished(system, job_id).status for job_id in ids} == {"completed"}
    assert sorted(hands.runs) == list(range(0, 400, 2))
    assert hands.clashes == []
    assert_works(system, 8)


def test_a_job_that_yields_for_ever_on_a_replaced_worker_is_cancelled_as_ever(bench: Bench) -> None:
    system = bench.start()
    run(system, "stop_my_worker")
    job_id = submit(system, "steady")
    eventually(lambda: ask(system, Get(job_id)).progress == 0.5)
    ask(system, Cancel(job_id))
    assert finished(system, job_id).status == "cancelled"


def test_a_job_that_yields_for_ever_on_a_replaced_worker_is_given_back_as_ever(
    bench: Bench, tmp_path: Path
) -> None:
    database = str(tmp_path / "jobs.db")
    system = bench.start(database=database)
    run(system, "stop_my_worker")
    job_id = submit(system, "steady")
    eventually(lambda: ask(system, Get(job_id)).progress == 0.5)
    system.stop(grace=0.1)
    later = bench.start({"steady": jobs.echo}, database=database)
    assert (finished(later, job_id).status, finished(later, job_id).attempts) == ("completed", 1)


@each_number_of_workers
def test_an_ordinary_stop_replaces_nobody_and_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    system = bench.start(workers=workers)
    run(system, "echo")
    started: list[object] = []
    monkeypatch.setattr(Worker, "start", lambda *given, **_: started.append(given))
    system.stop()
    assert (started, bench.lost.times) == ([], 0)
    assert set(threading.enumerate()) == bench.before


# A JobStore that ends.


def asks(system: System, job_id: str) -> list[pykka.Future[Any]]:
    """Ask in every way there is."""
    messages = [Await(job_id), Get(job_id), Submit("echo"), ListJobs(), Ping(), Cancel("0" * 16)]
    return [system.store.ask(message, block=False) for message in messages]


def assert_all_answered(replies: list[pykka.Future[Any]]) -> None:
    for reply in replies:
        try:
            reply.get(timeout=LIMIT / 6)
        except pykka.Timeout:
            raise
        except Exception:  # noqa: BLE001 - a refusal is an answer
            continue


def assert_lost(bench: Bench, system: System, *others: pykka.Future[Any]) -> None:
    """See that the end of the JobStore was told once, and that everything else ends in order."""
    assert bench.lost.is_told.wait(LIMIT)
    assert_all_answered(list(others))
    bench.over.set()
    system.stop()
    assert bench.lost.times == 1
    with pytest.raises(pykka.ActorDeadError):
        ask(system, ListJobs())


@each_number_of_workers
def test_a_jobstore_that_is_stopped_is_lost_and_answers_everybody(bench: Bench, workers: int) -> None:
    system = bench.start(workers=workers)
    job_id = submit(system, "wait")
    replies = asks(system, job_id)
    system.store.stop(block=False)
    replies += asks(system, job_id)
    assert_lost(bench, system, *replies)


@each_number_of_workers
def test_a_handler_that_stops_the_jobstore_loses_it_and_hangs_nothing(bench: Bench, workers: int) -> None:
    system = bench.start(workers=workers)
    others = asks(system, submit(system, "wait")) if workers > 1 else []
    submit(system, "stop_the_store")
    assert_lost(bench, system, *others)


@each_number_of_workers
def test_a_handler_that_stops_all_actors_loses_the_jobstore_and_hangs_nothing(
    bench: Bench, workers: int
) -> None:
    system = bench.start(workers=workers)
    for _ in range(20):
        run(system, "echo")
    replies = asks(system, submit(system, "echo"))
    submit(system, "stop_all")
    assert_lost(bench, system, *replies)
    again = bench.start()
    assert run(again, "echo").status == "completed"


class Exits(msgspec.Struct):
    """A payload whose own code, which runs with whoever submits, wants to end the process."""

    text: str = ""

    def __post_init__(self) -> None:
        raise SystemExit(self.text)


def exits(_payload: Exits) -> None:
    pass


def test_a_payload_type_that_exits_harms_nobody_else(bench: Bench) -> None:
    system = bench.start({"exits": exits})
    with pytest.raises(InvalidJob, match="the payload does not fit: SystemExit"):
        system.store.ask(Submit("exits"), block=False)
    assert run(system, "echo").status == "completed"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        SystemExit(3),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
@each_number_of_workers
def test_a_jobstore_that_dies_is_lost_and_answers_everybody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, workers: int, error: BaseException
) -> None:
    system = bench.start(workers=workers)
    job_id = submit(system, "wait")
    assert bench.is_waiting.acquire(timeout=LIMIT)
    replies = [system.store.ask(Await(job_id), block=False) for _ in range(3)]
    ask(system, ListJobs())
    is_dying, may_die = threading.Event(), threading.Event()

    def die(_store: JobStore) -> None:
        is_dying.set()
        assert may_die.wait(LIMIT)
        raise error

    monkeypatch.setattr(JobStore, "_commit", die)
    system.store.tell(Progress("0" * 16, 0.5))
    assert is_dying.wait(LIMIT)
    replies += [system.store.ask(Submit("echo"), block=False) for _ in range(100)]
    may_die.set()
    assert_lost(bench, system, *replies)


def test_an_outcome_for_a_jobstore_that_has_ended_is_dropped(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    system = bench.start(workers=2)
    job_id = submit(system, "wait")
    assert bench.is_waiting.acquire(timeout=LIMIT)
    system.store.stop()
    assert_lost(bench, system)
    assert "it cannot be told" in caplog.text
    for outcome in (Complete(job_id, 1, None), Fail(job_id, 1, "")):
        with pytest.raises(pykka.ActorDeadError):
            system.store.tell(outcome)


# Under gunicorn.


def test_the_service_outlives_what_handlers_do_to_themselves_and_their_workers() -> None:
    with running(GOFER_HANDLERS="tests.jobs:handlers", GOFER_WORKERS=2) as service:
        for job_type in ("leave", "interrupt", "stop_my_worker", "tell_my_worker_to_stop"):
            for job_id in service.submit(3, job_type):
                eventually(partial(is_finished, service, job_id))
        for job_id in service.submit(4, "echo"):
            service.wait_for(job_id, "completed")
        assert service.client.get("/health").json() == {"status": "ok"}
        assert service.log.count("Booting worker") == 1
        assert service.log.count("a Worker has ended; another takes its place") == 6
        exit_ = service.stop(signal.SIGTERM)
        assert (exit_.code, exit_.seconds < 4) == (0, True)
        assert "SIGKILL" not in service.log


def is_finished(service: Service, job_id: str) -> bool:
    return service.job(job_id)["status"] in {"completed", "failed"}


def critical(service: Service) -> list[str]:
    lines = [json.loads(line) for line in service.log.splitlines()]
    return [line["event"] for line in lines if line["level"] == "critical"]


def post(service: Service, job_type: str, **payload: Any) -> str:
    answer = service.client.post("/jobs", json={"type": job_type, "payload": payload})
    return str(answer.raise_for_status().json()["id"])


@pytest.mark.parametrize("job_type", ["stop_the_store", "stop_all"])
def test_a_service_that_loses_its_jobstore_starts_a_new_process_with_the_jobs(
    job_type: str, tmp_path: Path
) -> None:
    settings = {"GOFER_HANDLERS": "tests.jobs:handlers", "GOFER_DATABASE": str(tmp_path / "jobs.db")}
    with jobs.Phone() as phone, running(**settings) as service:
        ids = [post(service, "call", **phone.payload())]
        call = phone.take()
        ids.append(post(service, job_type, once=str(tmp_path / "once")))
        ids += [post(service, "echo") for _ in range(5)]
        call.answer()
        eventually(lambda: service.log.count("Booting worker") == 2)
        eventually(service.is_well)
        for job_id in ids:
            service.wait_for(job_id, "completed")
        assert critical(service) == ["the JobStore has ended; restart Gofer to recover its jobs"]
        assert service.stop(signal.SIGTERM).code == 0
        assert "SIGKILL" not in service.log
        assert "Traceback" not in service.log
