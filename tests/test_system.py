"""Real actors: the whole without HTTP."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from actors import Await, Get, ListJobs, Settings, Submit, System, messages, start
from actors.__main__ import complete, names
from actors.errors import StorageFailed
from actors.store import connection
from actors.store.database import Database
from actors.store.ownership import NOTE

TOP = Path(__file__).parent.parent
AT_ONCE = Settings(simulated_seconds=0, capacity=100_000)


def ask(system: System, message: Any) -> Any:
    return system.store.ask(message, block=True, timeout=30)


def test_a_submitted_job_is_completed_by_a_worker() -> None:
    with start(AT_ONCE) as system:
        job = ask(system, Submit("email", {"to": "user@example.com"}))
        assert ask(system, Await(job.id)).status == "completed"


def test_several_workers_run_jobs_side_by_side() -> None:
    with start(Settings(simulated_seconds=0.5, workers=8)) as system:
        ids = [ask(system, Submit("email")).id for _ in range(8)]
        jobs = [ask(system, Await(job_id)) for job_id in ids]
    assert max(job.started_at for job in jobs) < min(job.finished_at for job in jobs)


def test_thousands_of_jobs_on_many_workers_are_each_processed_once() -> None:
    with start(Settings(simulated_seconds=0, workers=8, capacity=100_000)) as system:
        replies = [system.store.ask(Submit("email"), block=False) for _ in range(5000)]
        for reply in replies:
            ask(system, Await(reply.get().id))
        jobs = ask(system, ListJobs(limit=10_000))
    assert {(job.status, job.attempts) for job in jobs} == {("completed", 1)}
    assert len({job.id for job in jobs}) == 5000


def test_leaving_the_context_ends_every_thread() -> None:
    before = set(threading.enumerate())
    with start(Settings(workers=3)) as system:
        assert len(set(threading.enumerate()) - before) == 4
        ask(system, Submit("email"))
    assert set(threading.enumerate()) == before


def test_a_stop_waits_for_the_running_job_and_starts_no_other(tmp_path: Path) -> None:
    settings = Settings(simulated_seconds=0.5, database=str(tmp_path / "jobs.db"))
    with start(settings) as system:
        ids = [ask(system, Submit("email")).id for _ in range(10)]
        ask(system, Await(ids[0]))
        while ask(system, Get(ids[1])).status == "pending":
            pass
    with start(Settings(simulated_seconds=0, database=settings.database)) as system:
        first, second, *others = [ask(system, Await(job_id)) for job_id in ids]
    assert (first.attempts, second.attempts) == (1, 1)
    assert second.finished_at < min(job.started_at for job in others)


def test_a_job_that_outlives_the_grace_is_given_back(tmp_path: Path) -> None:
    settings = Settings(simulated_seconds=600, database=str(tmp_path / "jobs.db"))
    system = start(settings)
    job_id = ask(system, Submit("email")).id
    while ask(system, Get(job_id)).status == "pending":
        pass
    system.stop(grace=0.2)
    with start(Settings(simulated_seconds=0, database=settings.database)) as system:
        assert ask(system, Await(job_id)).attempts == 1


def test_a_database_that_cannot_be_opened_starts_nothing(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(StorageFailed):
        start(Settings(database=str(tmp_path), simulated_seconds=0))
    assert set(threading.enumerate()) == before


def test_the_prompt_ends_with_one_line_on_a_wrong_setting() -> None:
    prompt = subprocess.run(
        [sys.executable, "-m", "actors"],
        cwd=TOP,
        env={"GOFER_CAPACITY": "lots"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert prompt.returncode == 1
    assert prompt.stderr == (
        "gofer: GOFER_CAPACITY is 'lots'; it must be a whole number of pending jobs, at least 1\n"
    )


def test_the_prompt_knows_every_message_and_the_system() -> None:
    with start(AT_ONCE) as system:
        typed = names(system)
        assert (typed["system"], typed["store"]) == (system, system.store)
    kinds = [kind for kind in vars(messages).values() if isinstance(kind, type)]
    protocol = [kind for kind in kinds if issubclass(kind, messages.Message)]
    assert len(protocol) > 15
    assert all(typed[kind.__name__] is kind for kind in protocol)


def test_the_prompt_shows_a_refusal_as_one_line_and_other_errors_in_full() -> None:
    prompt = subprocess.run(
        [sys.executable, "-m", "actors"],
        cwd=TOP,
        input='store.ask(Get("x"))\nSettings(workers=0)\nsystem.stop(); store.ask(ListJobs())\n1 / 0\n',
        env={},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    shown = prompt.stderr.partition("store.ask(Await(job.id)).status\n")[2].splitlines()
    assert shown[0] == "JobNotFound: there is no job x"
    assert shown[1].startswith("SettingError: workers is 0; it must be ")
    assert shown[2].startswith("ActorDeadError: ")
    assert shown[3] == "Traceback (most recent call last):"
    assert "ZeroDivisionError: division by zero" in shown[4:]


def test_the_prompt_completes_what_is_typed(capfd: pytest.CaptureFixture[str]) -> None:
    readline = pytest.importorskip("readline")
    with start(AT_ONCE) as system:
        complete(names(system))
        assert readline.get_completer()("system.sto", 0).startswith("system.stop(")
        assert readline.get_completer()("RecoverC", 0).startswith("RecoverCrashed(")
    readline.set_completer(None)
    assert capfd.readouterr().out == ""


def test_after_a_broken_disk_the_next_start_checks_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_database: Database) -> bool:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    settings = Settings(database=str(tmp_path / "jobs.db"), simulated_seconds=1)
    lock = tmp_path / "jobs.db-lock"
    lost = threading.Event()
    system = start(settings, lost=lost.set)
    with monkeypatch.context() as patch:
        patch.setattr(Database, "commit", broken)
        with pytest.raises(StorageFailed, match="whether this was stored is unknown"):
            ask(system, Submit("email"))
        assert lost.wait(30)
    system.stop()
    assert NOTE in lock.read_bytes()
    checks: list[bool] = []
    with monkeypatch.context() as patch:
        patch.setattr(connection, "_verify", lambda _connection: checks.append(True))
        start(settings).stop()
    assert checks == [True]
    assert NOTE not in lock.read_bytes()
