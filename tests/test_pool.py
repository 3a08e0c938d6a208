"""Handlers on an executor: in other threads, and in other processes."""

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actors import Await, Cancel, Get, Job, Settings, Submit, System, handler, start
from actors.errors import HandlerError
from actors.interrupts import Interrupt, Interrupted
from actors.opaque import decode
from actors.work.attempt import RemoteError
from actors.work.pool import Pool
from actors.work.task import ExecutorFailed
from tests import jobs
from tests.jobs import LIMIT, Phone
from tests.service import eventually, running

BOTH = ["processes", "threads"]
each_executor = pytest.mark.parametrize("executor", BOTH)


@pytest.fixture
def phone() -> Iterator[Phone]:
    with Phone() as phone:
        yield phone


@pytest.fixture(scope="module", params=BOTH)
def shared(request: pytest.FixtureRequest) -> Iterator[System]:
    """Two Workers on either executor, for tests that leave it in order."""
    with started(request.param) as system:
        yield system


@contextlib.contextmanager
def started(executor: str, **settings: Any) -> Iterator[System]:
    """Start Workers on that executor; a test that fails leaves nothing that runs on."""
    named = Settings(executor=f"tests.jobs:{executor}", **{"workers": 2} | settings)
    with start(named, jobs.on_executor) as system:
        yield system


def ask(system: System, message: Any) -> Any:
    return system.store.ask(message, block=True, timeout=LIMIT)


def submit(system: System, job_type: str, payload: jobs.Payload | None = None, retries: int = 0) -> str:
    return str(ask(system, Submit(job_type, payload or {}, max_retries=retries)).id)


def finished(system: System, job_id: str) -> Job:
    job: Job = ask(system, Await(job_id))
    return job


def run(system: System, job_type: str, payload: jobs.Payload | None = None) -> Job:
    return finished(system, submit(system, job_type, payload))


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# A result, or an error.


def test_a_handler_runs_on_the_executor_and_its_result_comes_back(shared: System) -> None:
    assert run(shared, "echo", {"a": [1, "ä", None]}).result == {"a": [1, "ä", None]}


def test_handlers_run_in_the_processes_of_a_process_pool() -> None:
    with started("one_process") as system:
        first, second = run(system, "where").result, run(system, "where").result
        assert first == second != os.getpid()
        assert first in {child.pid for child in multiprocessing.active_children()}


def test_a_handler_gets_its_payload_as_the_struct_that_it_asks_for(shared: System) -> None:
    assert run(shared, "send", {"to": "you"}).result == "to you"


NOT_JSON = "the result is not JSON that can be kept"


@pytest.mark.parametrize(
    ("job_type", "error"),
    [
        ("no_json", f"ValueError: {NOT_JSON}: Encoding objects of type object is unsupported"),
        ("too_large", "ValueError: the result has 1048578 bytes; 1048576 is the limit"),
        ("leave", "SystemExit: 3"),
        ("interrupt", "KeyboardInterrupt: "),
        ("unpicklable", "Unpicklable: with a lock"),
        ("not_unpicklable", "NotUnpicklable: this and that"),
        ("for_ever", "TimeoutError: the attempt took longer than 0.2 seconds"),
    ],
)
def test_what_a_handler_does_wrong_fails_its_job_and_no_other(
    shared: System, phone: Phone, job_type: str, error: str
) -> None:
    other = submit(shared, "call", phone.payload())
    call = phone.take()
    job = run(shared, job_type)
    assert (job.status, job.attempts, job.last_error) == ("failed", 1, error)
    call.answer()
    assert (finished(shared, other).status, finished(shared, other).result) == ("completed", call.pid)
    assert run(shared, "echo", {"a": 1}).status == "completed"


def test_what_a_handler_raises_is_logged_with_its_own_traceback(
    shared: System, caplog: pytest.LogCaptureFixture
) -> None:
    run(shared, "leave")
    (record,) = [record for record in caplog.records if record.message == "job_failed"]
    assert "sys.exit(3)" in vars(record)["exception"]


def test_a_handler_that_other_processes_cannot_have_fails_its_job_and_no_other() -> None:
    functions = {"lambda": lambda _: 1, "echo": jobs.echo}
    with start(Settings(executor="tests.jobs:one_process"), functions) as system:
        job = run(system, "lambda")
        assert (job.status, "local object" in str(job.last_error)) == ("failed", True)
        assert "lambda" in str(job.last_error)
        assert run(system, "echo").status == "completed"


def test_in_other_threads_a_handler_may_be_any_function() -> None:
    with start(Settings(executor="tests.jobs:threads"), {"lambda": lambda _: 1}) as system:
        assert run(system, "lambda").result == 1


def test_without_handlers_jobs_are_simulated_on_the_executor() -> None:
    with start(Settings(executor="tests.jobs:one_process", simulated_seconds=0.01)) as system:
        assert run(system, "email").status == "completed"
        assert len(multiprocessing.active_children()) == 1


# Progress, and a cancel.


@each_executor
def test_the_progress_of_a_generator_is_seen_while_it_runs(executor: str, phone: Phone) -> None:
    with started(executor) as system:
        job_id = submit(system, "halfway", phone.payload())
        call = phone.take()
        eventually(lambda: ask(system, Get(job_id)).progress == 0.5)
        assert ask(system, Get(job_id)).status == "processing"
        call.answer()
        assert finished(system, job_id).status == "completed"


@each_executor
def test_a_job_on_an_executor_runs_to_its_end_in_spite_of_a_cancel(executor: str, phone: Phone) -> None:
    with started(executor) as system:
        job_id = submit(system, "halfway", phone.payload())
        call = phone.take()
        assert ask(system, Cancel(job_id)).status == "processing"
        call.answer()
        assert finished(system, job_id).status == "completed"


# A process that dies.


def test_a_job_whose_process_is_killed_fails_if_it_may_run_only_once_and_the_next_one_runs(
    phone: Phone,
) -> None:
    with started("processes", on_crash="fail") as system:
        job_id = submit(system, "call", phone.payload(), retries=5)
        os.kill(phone.take().pid, signal.SIGKILL)
        job = finished(system, job_id)
        assert (job.status, job.attempts) == ("failed", 1)
        error = str(job.last_error)
        assert error.startswith("the attempt was cut off by its executor: BrokenProcessPool: A process in ")
        assert error.endswith("(GOFER_ON_CRASH=fail)")
        for _ in range(3):
            assert run(system, "echo").status == "completed"


def test_a_job_whose_process_is_killed_runs_again_in_a_new_one_and_uses_no_retry(phone: Phone) -> None:
    with started("processes") as system:
        job_id = submit(system, "call", phone.payload(), retries=0)
        killed = phone.take()
        os.kill(killed.pid, signal.SIGKILL)
        second = phone.take()
        second.answer()
        job = finished(system, job_id)
        assert (job.status, job.attempts, job.result) == ("completed", 2, second.pid)
        assert second.pid != killed.pid


def test_a_job_that_always_kills_its_process_leaves_the_pool_to_others_more_and_more() -> None:
    with started("one_process", workers=1) as system:
        poison = submit(system, "die")
        others = [submit(system, "echo", {"n": n}) for n in range(5)]
        assert [finished(system, job_id).status for job_id in others] == ["completed"] * 5
        job = eventually(lambda: job if (job := ask(system, Get(poison))).attempts >= 2 else None)
        assert job.status in ("processing", "pending")
        job = eventually(lambda: job if (job := ask(system, Get(poison))).status == "pending" else None)
        assert job.last_error is not None
        assert "by its executor: BrokenProcessPool" in job.last_error
        assert run(system, "echo").status == "completed"


# A handler that is given up.


@each_executor
def test_a_function_that_hangs_is_given_up_at_its_limit_and_harms_no_other_job(
    executor: str, phone: Phone
) -> None:
    with started(executor) as system:
        run(system, "echo")  # The limit is not to be spent on starting processes.
        other = submit(system, "call", phone.payload())
        call = phone.take()
        job = run(system, "stuck", phone.payload())
        hanging = phone.take()
        assert (job.status, job.last_error) == (
            "failed",
            "TimeoutError: the attempt took longer than 1 seconds",
        )
        assert job.started_at is not None
        assert job.finished_at is not None
        assert 1 <= (job.finished_at - job.started_at).total_seconds() < 5
        assert run(system, "echo").status == "completed"
        call.answer()
        assert (finished(system, other).status, finished(system, other).result) == ("completed", call.pid)
        if executor == "processes":
            eventually(lambda: is_gone(hanging.pid))
        else:
            hanging.answer()
        assert run(system, "echo").status == "completed"


@pytest.mark.parametrize("executor", ["one_process", "one_thread"])
def test_jobs_that_wait_behind_a_function_that_hangs_run_once_it_is_given_up(
    executor: str, phone: Phone
) -> None:
    with started(executor, workers=4) as system:
        run(system, "echo")
        hanging = submit(system, "stuck", phone.payload())
        phone.take()
        behind = [submit(system, "echo", {"n": n}) for n in range(6)]
        assert [finished(system, job_id).status for job_id in behind] == ["completed"] * 6
        assert finished(system, hanging).status == "failed"


# The stop.


def stored(database: Path) -> list[tuple[str, int]]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT status, attempts FROM jobs ORDER BY id").fetchall()


@pytest.mark.parametrize("executor", ["one_process", "one_thread"])
def test_jobs_that_the_executor_has_not_begun_are_given_back_at_a_stop(
    executor: str, phone: Phone, tmp_path: Path
) -> None:
    database = tmp_path / "jobs.db"
    with started(executor, workers=4, database=str(database)) as system:
        submit(system, "call", phone.payload())
        call = phone.take()
        others = [submit(system, "echo") for _ in range(5)]
        eventually(lambda: [ask(system, Get(job_id)).status for job_id in others].count("processing") == 3)
        system.drain(grace=LIMIT)
        call.answer()
        system.stop()
        assert not multiprocessing.active_children()
    assert stored(database) == [("completed", 1), *[("pending", 0)] * 5]


@each_executor
def test_a_stop_leaves_no_thread_no_process_and_no_file(
    executor: str, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        before = set(threading.enumerate())
        with started(executor) as system:
            job_id = submit(system, "halfway", phone.payload())
            call = phone.take()
            assert list(Path(folder).glob("gofer-*/*"))
            system.drain(grace=0)
            call.answer()
        assert set(threading.enumerate()) == before
        assert not multiprocessing.active_children()
        assert not list(Path(folder).iterdir())
    assert job_id


def test_a_stop_leaves_nothing_of_what_was_given_up_or_killed(phone: Phone) -> None:
    before = set(threading.enumerate())
    with started("processes") as system:
        run(system, "echo")
        job_id = submit(system, "call", phone.payload())
        os.kill(phone.take().pid, signal.SIGKILL)
        phone.take().answer()
        assert finished(system, job_id).status == "completed"
        assert run(system, "stuck", phone.payload()).status == "failed"
        hanging = phone.take()
    assert set(threading.enumerate()) == before
    assert not multiprocessing.active_children()
    assert is_gone(hanging.pid)


# The pool alone.


@pytest.fixture(params=["one_process", "one_thread"])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    pool = Pool(getattr(jobs, request.param))
    yield pool
    pool.stop()


def ignore(_progress: float) -> None:
    pass


def test_a_pool_returns_the_result_and_reports_the_progress(pool: Pool, phone: Phone) -> None:
    told: list[float] = []
    heard = threading.Event()

    def report(progress: float) -> None:
        told.append(progress)
        heard.set()

    def answer() -> None:
        call = phone.take()
        assert heard.wait(LIMIT)
        call.answer()

    answering = threading.Thread(target=answer)
    answering.start()
    assert isinstance(decode(pool.call(jobs.halfway, phone.payload(), None, report)), int)
    answering.join()
    assert told == [0.5]


def test_a_pool_raises_what_the_handler_raised_in_words(pool: Pool) -> None:
    with pytest.raises(RemoteError) as caught:
        pool.call(jobs.leave, {}, None, ignore)
    assert caught.value.description == "SystemExit: 3"
    assert "sys.exit(3)" in str(caught.value)


def test_a_pool_that_is_closed_begins_nothing(pool: Pool) -> None:
    pool.close()
    with pytest.raises(Interrupted) as caught:
        pool.call(jobs.echo, {}, None, ignore)
    assert caught.value.reason is Interrupt.RELEASE


def test_a_pool_whose_process_is_killed_has_another_for_the_next_handler(phone: Phone) -> None:
    pool = Pool(jobs.one_process)
    killing = threading.Thread(target=lambda: os.kill(phone.take().pid, signal.SIGKILL))
    killing.start()
    with pytest.raises(ExecutorFailed, match="BrokenProcessPool"):
        pool.call(jobs.call, phone.payload(), None, ignore)
    killing.join()
    assert decode(pool.call(jobs.echo, {"a": 1}, None, ignore)) == {"a": 1}
    pool.stop()
    assert not multiprocessing.active_children()


def test_a_process_that_is_just_starting_does_not_hear_control_c(phone: Phone) -> None:
    pool = Pool(jobs.one_process)
    results: list[int] = []
    performing = threading.Thread(
        target=lambda: results.append(decode(pool.call(jobs.call, phone.payload(), None, ignore)))
    )
    performing.start()
    (child,) = eventually(multiprocessing.active_children)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGINT)
    call = phone.take()
    call.answer()
    performing.join()
    assert results == [call.pid] == [child.pid]
    pool.stop()


def test_the_processes_of_a_pool_end_with_a_service_that_is_killed(phone: Phone) -> None:
    settings = {"GOFER_HANDLERS": "tests.jobs:handlers", "GOFER_EXECUTOR": "tests.jobs:processes"}
    with running(**settings) as service:
        job = {"type": "call", "payload": phone.payload()}
        service.client.post("/jobs", json=job).raise_for_status()
        call = phone.take()
        os.kill(service.worker, signal.SIGKILL)
        eventually(lambda: is_gone(call.pid))


# The start.


@pytest.mark.parametrize(
    ("executor", "reason"),
    [
        ("tests.nowhere:processes", "it cannot be imported: ModuleNotFoundError"),
        ("tests.jobs:nothing", "it cannot be imported: AttributeError"),
        ("tests.jobs:no_function", "it must name a function that returns an executor"),
        ("tests.jobs:none", "it failed to make one: TypeError('None is not a concurrent.futures.Executor')"),
        ("tests.jobs:refusing", "it failed to make one: OSError('no cluster')"),
        ("tests.jobs:call", "it failed to make one: TypeError"),
    ],
)
def test_a_wrong_executor_stops_the_start_with_one_line(executor: str, reason: str) -> None:
    before = set(threading.enumerate())
    with pytest.raises(HandlerError) as caught:
        start(Settings(executor=executor))
    assert str(caught.value).startswith(f"GOFER_EXECUTOR is '{executor}'; {reason}")
    assert "\n" not in str(caught.value)
    assert set(threading.enumerate()) == before


def test_a_time_limit_on_a_plain_function_needs_an_executor() -> None:
    with pytest.raises(HandlerError, match="GOFER_EXECUTOR"):
        start(Settings(), {"stuck": jobs.stuck})
    limited = handler(timeout=LIMIT)(partial(jobs.echo))
    with start(Settings(executor="tests.jobs:threads"), {"quick": limited}) as system:
        assert run(system, "quick", {"a": 1}).result == {"a": 1}
