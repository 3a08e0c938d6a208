"""How gunicorn with Gofer in it starts, refuses to start, and stops."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import SIGINT, SIGQUIT, SIGTERM

import httpx
import pytest

from actors import ListJobs, Settings, Status, Submit, start
from actors.store.database import Database
from tests.jobs import Phone
from tests.service import Exit, Service, answer, eventually, refused, running, starting

each_signal = pytest.mark.parametrize("signum", [SIGTERM, SIGINT, SIGQUIT], ids=lambda signum: signum.name)

HEAD = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SUBMIT = HEAD + b'Content-Length: 16\r\n\r\n{"type":"email"}'


def stored(database: Path) -> dict[str, tuple[str, int, datetime | None]]:
    """Return each job's status, attempts and end, as they are in the file."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT id, status, attempts, finished_at FROM jobs").fetchall()
    return {
        f"{job_id:016x}": (status, attempts, end and datetime.fromtimestamp(end / 1e6, UTC))
        for job_id, status, attempts, end in rows
    }


def position(events: list[str], start: str) -> int:
    """Return where the only event is that starts so."""
    (found,) = [number for number, event in enumerate(events) if event.startswith(start)]
    return found


def assert_stopped_in_order(service: Service) -> None:
    """See that the worker went through worker_exit to its end: nobody killed it."""
    starts = ["Worker exiting", "worker_stopped", "stopped", "Shutting down: Master"]
    positions = [position(service.events, start) for start in starts]
    assert positions == sorted(positions)
    assert "SIGKILL" not in service.log
    assert "Traceback" not in service.log


# The stop.


@each_signal
def test_a_stop_waits_for_the_running_job_and_for_none_of_the_queued(
    signum: signal.Signals, tmp_path: Path
) -> None:
    with running(GOFER_SIMULATED_SECONDS=1, GOFER_DATABASE=tmp_path / "jobs.db") as service:
        submitted = service.submit(1001)
        finished = job_just_started(service)
        exit_, ended = service.stop(signum), datetime.now(UTC)
        assert_stopped_in_order(service)
    jobs = stored(tmp_path / "jobs.db")
    assert list(jobs) == submitted
    for number, (job_id, (status, attempts, _)) in enumerate(jobs.items()):
        is_finished = number <= finished
        assert (job_id, status, attempts) == (job_id, *(("completed", 1) if is_finished else ("pending", 0)))
    assert_within(exit_, ended, jobs[submitted[finished]][2])


def job_just_started(service: Service) -> int:
    """Wait until a job has almost all of its second before it; return how many came before."""
    (earlier,) = eventually(lambda: service.jobs(status="processing"))
    eventually(lambda: [job for job in service.jobs(status="processing") if job["id"] > earlier["id"]])
    return len(service.jobs(status="completed"))


def assert_within(exit_: Exit, ended: datetime, job_ended: datetime | None) -> None:
    """See that the exit came at the most two seconds after the running job's end."""
    assert job_ended is not None
    assert exit_.code == 0
    assert ended - job_ended < timedelta(seconds=2)
    assert job_ended > ended - timedelta(seconds=exit_.seconds)


@each_signal
def test_a_stop_waits_for_no_client_that_holds_a_connection(signum: signal.Signals) -> None:
    with running() as service, connections(service, 52) as (half_a_head, half_a_body, *_silent):
        half_a_head.sendall(HEAD)
        half_a_body.sendall(SUBMIT[:-5])
        service.client.get("/health").raise_for_status()
        exit_ = service.stop(signum)
        assert_stopped_in_order(service)
    assert exit_.code == 0
    assert exit_.seconds < 5


@contextlib.contextmanager
def connections(service: Service, count: int) -> Iterator[list[socket.socket]]:
    """Open connections and see them accepted."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(service.connect()) for _ in range(count)]
        # They are accepted in turn, so when this one is answered all of them were.
        service.client.get("/health").raise_for_status()
        yield opened


def test_a_stop_waits_for_no_client_that_leaves_its_answer_unread() -> None:
    with running(GOFER_SIMULATED_SECONDS=0) as service, connections(service, 1) as (connection,):
        service.submit(1000)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /jobs HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
        exit_ = service.stop(SIGTERM)
        assert_stopped_in_order(service)
    assert exit_.code == 0
    assert exit_.seconds < 5


def test_a_job_submitted_during_the_drain_is_refused(tmp_path: Path) -> None:
    with running(GOFER_SIMULATED_SECONDS=2, GOFER_DATABASE=tmp_path / "jobs.db") as service:
        (job,) = service.submit()
        service.wait_for(job, "processing")
        with connections(service, 2) as (submitting, asking):
            service.drain(SIGTERM)
            submitting.sendall(SUBMIT)
            asking.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert_stopping(answer(submitting))
            assert_stopping(answer(asking), retry=False)
        assert service.master.wait(20) == 0
    assert [status for status, _, _ in stored(tmp_path / "jobs.db").values()] == ["completed"]


def assert_stopping(response: httpx.Response, *, retry: bool = True) -> None:
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert "stopping" in response.json()["detail"]
    assert not retry or int(response.headers["retry-after"]) > 0


def test_no_connection_is_accepted_during_the_drain() -> None:
    with running(GOFER_SIMULATED_SECONDS=2) as service:
        (job,) = service.submit()
        service.wait_for(job, "processing")
        service.drain(SIGTERM)
        with pytest.raises(ConnectionRefusedError):
            service.connect()


@pytest.mark.parametrize(
    ("first", "second"),
    [(SIGTERM, SIGTERM), (SIGINT, SIGINT), (SIGINT, SIGTERM), (SIGTERM, SIGINT), (SIGTERM, SIGQUIT)],
    ids=lambda signum: signum.name,
)
def test_a_second_signal_during_the_drain_does_not_kill_the_running_job(
    first: signal.Signals, second: signal.Signals, tmp_path: Path
) -> None:
    with running(GOFER_SIMULATED_SECONDS=1.5, GOFER_DATABASE=tmp_path / "jobs.db") as service:
        (job,) = service.submit()
        service.wait_for(job, "processing")
        service.drain(first)
        assert service.stop(second).code == 0
        assert_stopped_in_order(service)
    assert [status for status, _, _ in stored(tmp_path / "jobs.db").values()] == ["completed"]


def test_control_c_in_a_terminal_stops_as_cleanly_even_twice() -> None:
    with running() as service:
        (job,) = service.submit()
        service.wait_for(job, "processing")
        with connections(service, 1):
            for _ in range(2):  # A terminal sends it to all of its processes, the worker too.
                os.killpg(service.master.pid, SIGINT)
            assert service.master.wait(20) == 0
        assert_stopped_in_order(service)
        assert '"completed": 1' in service.log


def test_control_c_in_a_terminal_lets_the_job_of_a_process_pool_come_to_its_end(tmp_path: Path) -> None:
    settings = {"GOFER_HANDLERS": "tests.jobs:handlers", "GOFER_EXECUTOR": "tests.jobs:processes"}
    with Phone() as phone, running(GOFER_DATABASE=tmp_path / "jobs.db", **settings) as service:
        job = {"type": "call", "payload": phone.payload()}
        service.client.post("/jobs", json=job).raise_for_status()
        call = phone.take()
        for _ in range(2):  # All of its processes: those of the pool too, whether they have work or not.
            os.killpg(service.master.pid, SIGINT)
        eventually(lambda: "Handling signal" in service.log)
        call.answer()
        assert service.master.wait(20) == 0
        assert_stopped_in_order(service)
        eventually(lambda: is_gone(call.pid))
    assert [job[:2] for job in stored(tmp_path / "jobs.db").values()] == [("completed", 1)]


# The grace.


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("signum", [SIGTERM, SIGINT], ids=lambda signum: signum.name)
def test_jobs_that_outlive_the_grace_are_given_back_when_it_ends(
    signum: signal.Signals, tmp_path: Path
) -> None:
    database = tmp_path / "jobs.db"
    settings = {"GOFER_SIMULATED_SECONDS": 600, "GOFER_WORKERS": 8, "GOFER_GRACE": 2}
    with running(**settings, GOFER_DATABASE=database) as service:
        service.submit(8)
        eventually(lambda: len(service.jobs(status="processing")) == 8)
        exit_ = service.stop(signum)
        (stopped,) = [line for line in service.log.splitlines() if '"stopped"' in line]
        assert "SIGKILL" not in service.log
        assert "Traceback" not in service.log
    assert exit_.code == 0
    assert 1.9 <= exit_.seconds <= 4.5
    counts = json.loads(stopped)
    assert (counts["pending"], counts["processing"], counts["completed"]) == (8, 0, 0)
    assert [job[:2] for job in stored(database).values()] == [("pending", 0)] * 8


def test_jobs_that_outlive_the_grace_are_given_back_in_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[tuple[str, int]] = []
    close = Database.close

    def look_and_close(database: Database) -> None:
        left.extend((job.status, job.attempts) for job in database.page(ListJobs()))
        close(database)

    monkeypatch.setattr(Database, "close", look_and_close)
    system = start(Settings(simulated_seconds=600, workers=8))
    for _ in range(9):
        system.store.ask(Submit("email"), block=True, timeout=20)
    running_jobs = ListJobs(status=Status.PROCESSING)
    eventually(lambda: len(system.store.ask(running_jobs, block=True, timeout=20)) == 8)
    before = time.monotonic()
    system.stop(grace=0.5)
    assert 0.5 <= time.monotonic() - before < 3
    assert left == [("pending", 0)] * 9


# The start.


@each_signal
def test_a_stop_during_the_start_ends_it(signum: signal.Signals) -> None:
    with contextlib.ExitStack() as stack:
        services = []
        for _ in range(3):  # How far a start has come when the signal comes is chance.
            services.append(stack.enter_context(starting()))
            services[-1].master.send_signal(signum)
        for service in services:
            assert service.master.wait(5) == 0
            assert "Traceback" not in service.log
            assert "SIGKILL" not in service.log


def test_sigttin_leaves_one_worker() -> None:
    with running(GOFER_SIMULATED_SECONDS=0) as service:
        service.master.send_signal(signal.SIGTTIN)
        eventually(lambda: "SIGTTIN and SIGTTOU are ignored" in service.log)
        (job,) = service.submit()
        service.wait_for(job, "completed")
        assert service.log.count("Booting worker") == 1
        assert service.stop(SIGTERM).code == 0
        assert service.log.count("Booting worker") == 1


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["-w", "2"], "leave workers at 1"),
        (["--preload"], "preload_app"),
        (["--max-requests", "5"], "max_requests"),
        (["-k", "gthread"], "leave it at asgi"),
    ],
    ids=["workers", "preload", "max-requests", "gthread"],
)
def test_an_option_that_would_break_the_service_is_refused(options: list[str], advice: str) -> None:
    ended = refused(*options)
    assert ended.returncode > 0
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("gofer: ")
    assert advice in line
    assert "Booting worker" not in ended.stderr


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "abc", "from 0 to 65535"),
        ("PORT", "65536", "from 0 to 65535"),
        ("GOFER_CAPACITY", "0", "at least 1"),
        ("GOFER_CAPACITY", "", "at least 1"),
        ("GOFER_LOG", "loud", "DEBUG, INFO, WARNING or ERROR"),
        ("GOFER_NONSENSE", "1", "GOFER_CAPACITY"),
        ("GOFER_SIMULATED_SECONDS", "nan", "from 0"),
        ("GOFER_SIMULATED_SECONDS", "-1", "from 0"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(name: str, value: str, allowed: str) -> None:
    ended = refused(**{name: value})
    assert ended.returncode > 0
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith(f"gofer: {name} is ")
    assert allowed in line
    assert name == "GOFER_NONSENSE" or f"{value!r}" in line


@pytest.mark.parametrize("path", ["", "nowhere/jobs.db"])
def test_a_database_that_cannot_be_opened_stops_the_start(path: str, tmp_path: Path) -> None:
    start = time.monotonic()
    ended = refused(GOFER_DATABASE=tmp_path / path)
    assert ended.returncode > 0
    (line,) = [line for line in ended.stderr.splitlines() if "gofer: " in line]
    assert f"gofer: GOFER_DATABASE is '{tmp_path / path}', which cannot be opened" in line
    assert ended.stderr.count("Booting worker") == 1
    assert "Traceback" not in ended.stderr
    assert time.monotonic() - start < 10
