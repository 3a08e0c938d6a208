"""One process at a time owns a database file, however the second one comes about."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

import pytest

from actors import Settings, start
from actors.errors import HandlerError, StorageFailed
from tests.records import TYPE, Execution, executions, overlaps, stored
from tests.service import PATIENCE, TOP, Service, answer, eventually, running, starting

#: Seconds in which the next process has to serve when the owner is gone.
TAKEOVER = 1.0
#: For a busy machine, on which one process may wait for the others.
SLACK = 2.0
#: Seconds that jobs take.
SHORT = 0.01
LONG = 0.25
#: So many more than there are Workers that these have some left when the owner goes, on a slow machine, too.
LONG_ONES = 18
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Files:
    """A database, and the record of what was run."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "jobs.db"
        self.records = folder / "records"

    def settings(self, database: Path | str | None = None) -> dict[str, str]:
        """Return the settings of a service on the database, under this name of it."""
        return {
            "GOFER_DATABASE": str(database or self.database),
            "GOFER_HANDLERS": "tests.records:handlers",
            "GOFER_WORKERS": "3",
            "RECORDS": str(self.records),
        }

    def owner(self) -> int:
        """Return the process id in the lock file."""
        return int(Path(f"{self.database}-lock").read_text())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@contextlib.contextmanager
def waiting(files: Files, database: Path | str | None = None) -> Iterator[Service]:
    """Start a service that has to wait until the database is free."""
    with starting(**files.settings(database)) as service:
        eventually(lambda: "waiting for the owner" in service.log)
        yield service


def submit(service: Service, numbers: range) -> None:
    """Submit as many jobs, the last of which take so long that they are not done when this returns."""
    for number in numbers:
        seconds = LONG if number in numbers[-LONG_ONES:] else SHORT
        job = {"type": TYPE, "payload": {"number": number, "seconds": seconds}}
        service.client.post("/jobs", json=job).raise_for_status()


def run_all(service: Service) -> None:
    """Wait until nothing is left to do, and stop."""
    eventually(lambda: not any(service.jobs(status=status, limit=1) for status in ("pending", "processing")))
    assert service.stop(SIGTERM).code == 0


def assert_never_two(files: Files, count: int, processes: int) -> None:
    """See that all jobs ran, each once, in so many processes at least, never in two at the same time."""
    runs = executions(files.records)
    assert overlaps(runs) == []
    assert len({run.pid for run in runs}) >= processes
    assert sorted(run.number for run in runs) == list(range(count))
    assert {(job.status, job.attempts) for job in stored(files.database)} == {("completed", 1)}


# The ways in which a second process comes about.


def test_the_processes_of_reloads_never_run_jobs_at_the_same_time(files: Files) -> None:
    with running(**files.settings()) as service:
        for reload in range(3):
            submit(service, range(30 * reload, 30 * reload + 30))
            service.master.send_signal(signal.SIGHUP)
            eventually(lambda: service.log.count("ASGI server listening") == reload + 2)  # noqa: B023
        run_all(service)
    assert_never_two(files, 90, processes=3)


def test_a_second_service_on_the_file_waits_and_goes_on_where_the_first_stopped(
    files: Files, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with running(**files.settings()) as owner, waiting(files, tmp_path / "link" / "jobs.db") as next_:
        submit(owner, range(30))
        assert files.owner() == owner.worker
        assert owner.stop(SIGTERM).code == 0
        gone = time.monotonic()
        eventually(next_.is_well)
        assert time.monotonic() - gone < TAKEOVER + SLACK
        assert files.owner() == next_.worker
        run_all(next_)
    assert_never_two(files, 30, processes=2)


def test_the_master_of_an_upgrade_takes_over_when_the_old_one_stops(files: Files) -> None:
    with running(**files.settings()) as service:
        submit(service, range(30))
        service.master.send_signal(signal.SIGUSR2)
        eventually(lambda: "waiting for the owner" in service.log)
        (master,) = re.findall(r"Listening at: .*?\((\d+)\)", service.log)[1:]
        new = upgraded(service)
        assert service.stop(SIGTERM).code == 0
        gone = time.monotonic()
        assert eventually(lambda: service.client.get("/health").is_success)
        assert time.monotonic() - gone < TAKEOVER + SLACK
        assert files.owner() == new
        submit(service, range(30, 50))
        eventually(lambda: not service.jobs(status="pending") and not service.jobs(status="processing"))
        os.kill(int(master), SIGTERM)
        eventually(lambda: service.log.count("Shutting down: Master") == 2)
    assert_never_two(files, 50, processes=2)


def upgraded(service: Service) -> int:
    """Return the worker of the new master."""
    return int(re.findall(r"Booting worker with pid: (\d+)", service.log)[-1])


def test_a_child_of_a_handler_does_not_keep_the_database(files: Files) -> None:
    with running(**files.settings()) as owner:
        job = owner.client.post("/jobs", json={"type": "fork", "payload": {"seconds": 60}}).json()["id"]
        child = owner.wait_for(job, "completed")["result"]
        os.kill(owner.worker, SIGKILL)
        killed = time.monotonic()
        try:
            eventually(lambda: files.owner() != owner.worker)
            assert time.monotonic() - killed < TAKEOVER + SLACK
            eventually(owner.is_well)
            os.kill(child, 0)
        finally:
            os.kill(child, SIGKILL)


def test_a_killed_owner_is_replaced_by_who_waits(files: Files) -> None:
    with running(**files.settings()) as owner, waiting(files) as next_:
        submit(owner, range(30))
        eventually(lambda: executions(files.records))
        os.killpg(owner.master.pid, SIGKILL)
        killed = time.monotonic()
        eventually(next_.is_well)
        assert time.monotonic() - killed < TAKEOVER + SLACK
        run_all(next_)
    runs = executions(files.records)
    assert overlaps(runs) == []
    assert {run.number for run in runs} == set(range(30))
    assert len(runs) <= 30 + 3  # as many as there are Workers ran at the kill
    assert {job.status for job in stored(files.database)} == {"completed"}


# Who waits.


def test_who_waits_answers_nobody_and_needs_no_cpu_until_the_database_is_free(files: Files) -> None:
    with running(**files.settings()) as owner, waiting(files) as next_, next_.connect() as connection:
        connection.sendall(HEALTH)
        connection.settimeout(1)
        before = cpu_seconds(next_.worker)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert cpu_seconds(next_.worker) - before <= 0.02
        owner.stop(SIGTERM)
        connection.settimeout(PATIENCE)
        assert answer(connection).status_code == 200


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that the process has used, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_who_waits_stops_at_a_signal_and_leaves_the_owner_alone(files: Files) -> None:
    with running(**files.settings()) as owner:
        for signum in (SIGTERM, SIGINT):
            with waiting(files) as next_:
                exit_ = next_.stop(signum)
            assert exit_.code == 0
            assert exit_.seconds < 5
            assert files.owner() == owner.worker
        submit(owner, range(1))
        run_all(owner)
    assert_never_two(files, 1, processes=1)


def test_a_reload_of_who_waits_leaves_one_that_waits(files: Files) -> None:
    with running(**files.settings()) as owner, waiting(files) as next_:
        next_.master.send_signal(signal.SIGHUP)
        eventually(lambda: next_.log.count("waiting for the owner") == 2)
        eventually(lambda: not Path(f"/proc/{next_.worker}").exists())
        assert files.owner() == owner.worker
        owner.stop(SIGTERM)
        eventually(next_.is_well)


# In Python.


@pytest.mark.parametrize("name", ["jobs.db", "link.db", "link/jobs.db"])
def test_a_system_on_a_file_that_is_owned_refuses_to_start_at_once(
    name: str, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link.db").symlink_to(files.database)
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    with start(Settings(database=str(files.database), simulated_seconds=1)):
        begun = time.monotonic()
        with pytest.raises(StorageFailed, match=f"belongs to process {os.getpid()}"):
            start(Settings(database=name, simulated_seconds=1))
        assert time.monotonic() - begun < 0.5
    with start(Settings(database=name, simulated_seconds=1)) as system:
        assert system.store.is_alive()


def test_a_system_on_the_file_of_a_service_refuses_to_start_at_once(files: Files) -> None:
    with running(**files.settings()) as owner:
        begun = time.monotonic()
        with pytest.raises(StorageFailed, match=f"belongs to process {owner.worker}"):
            start(Settings(database=str(files.database), simulated_seconds=1))
        assert time.monotonic() - begun < 0.5
        assert owner.stop(SIGTERM).code == 0
    with start(Settings(database=str(files.database), simulated_seconds=0)) as system:
        assert system.store.is_alive()


def test_the_prompt_on_a_file_that_is_owned_ends_with_one_line(files: Files) -> None:
    with start(Settings(database=str(files.database), simulated_seconds=1)):
        ended = subprocess.run(
            [sys.executable, "-m", "actors"],
            cwd=TOP,
            env={**os.environ, "GOFER_DATABASE": str(files.database), "GOFER_SIMULATED_SECONDS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("gofer: GOFER_DATABASE is ")
    assert f"belongs to process {os.getpid()}" in line
    assert ended.stdout == ""


def test_the_lock_file_stays_with_the_id_of_its_last_owner(files: Files) -> None:
    with start(Settings(database=str(files.database), simulated_seconds=1)):
        assert files.owner() == os.getpid()
    assert files.owner() == os.getpid()
    before = Path(f"{files.database}-lock").stat().st_ino
    with running(**files.settings()) as service:
        assert files.owner() == service.worker
    assert Path(f"{files.database}-lock").stat().st_ino == before


# The lock file is deleted by a person.


def test_a_reload_after_the_lock_file_was_deleted_waits_for_the_owner_and_goes_on(files: Files) -> None:
    lock = Path(f"{files.database}-lock")
    with running(**files.settings()) as service:
        for reload in range(2):
            submit(service, range(30 * reload, 30 * reload + 30))
            lock.unlink()
            service.master.send_signal(signal.SIGHUP)
            eventually(lambda: service.log.count("ASGI server listening") == reload + 2)  # noqa: B023
        assert lock.exists()
        run_all(service)
    assert_never_two(files, 60, processes=3)


def test_a_second_service_waits_for_an_owner_whose_lock_file_was_deleted(files: Files) -> None:
    with running(**files.settings()) as owner:
        submit(owner, range(30))
        Path(f"{files.database}-lock").unlink()
        with waiting(files) as next_:
            before = cpu_seconds(next_.worker)
            submit(owner, range(30, 60))
            assert cpu_seconds(next_.worker) - before <= 0.02
            assert owner.stop(SIGTERM).code == 0
            eventually(next_.is_well)
            assert files.owner() == next_.worker
            run_all(next_)
    assert_never_two(files, 60, processes=2)


def test_in_python_a_start_is_refused_at_once_and_leaves_no_lock_file(files: Files) -> None:
    lock = Path(f"{files.database}-lock")
    with running(**files.settings()):
        lock.unlink()
        with pytest.raises(StorageFailed, match="belongs to another process"):
            start(Settings(database=str(files.database), simulated_seconds=0))
        assert not lock.exists()


def test_who_waited_for_a_lock_file_that_was_deleted_makes_another(files: Files) -> None:
    lock = Path(f"{files.database}-lock")
    with running(**files.settings()) as owner, waiting(files) as next_:
        lock.unlink()
        assert owner.stop(SIGTERM).code == 0
        eventually(next_.is_well)
        assert files.owner() == next_.worker
        with pytest.raises(StorageFailed, match=f"belongs to process {next_.worker}"):
            start(Settings(database=str(files.database), simulated_seconds=0))


def test_a_boot_that_fails_leaves_no_lock_file_that_it_made(files: Files) -> None:
    with pytest.raises(HandlerError):
        start(Settings(database=str(files.database), executor="tests.nowhere:factory", simulated_seconds=0))
    assert list(files.database.parent.iterdir()) == []


# What the tests rest on.


@pytest.mark.parametrize(
    ("other", "overlapping"),
    [((1.5, 3.0), True), ((0.0, 1.5), True), ((2.0, 3.0), False), ((1.2, None), True), ((2.5, None), False)],
)
def test_runs_of_two_processes_at_one_time_are_found(
    other: tuple[float, float | None], overlapping: bool
) -> None:
    runs = sorted([Execution(1, 10, 1.0, 2.0), Execution(2, 20, *other)], key=lambda run: run.started)
    assert bool(overlaps(runs)) is overlapping
