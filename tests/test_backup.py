"""`python -m actors backup TARGET` makes a whole copy, or none, whatever happens meanwhile."""

import contextlib
import fcntl
import itertools
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec import Raw

from actors import Settings, lifecycle, start
from actors.errors import StorageFailed
from actors.store.backup import MOST_TRIES, _state, back_up
from actors.store.database import Database
from tests.service import TOP, Service, running
from tests.storage import FINISH, OPEN, needs_strace, peek, run_to_the_end, statuses

CLIENTS = 4
COPIES = 4


class Load:
    """Clients that submit jobs all the time, and the ids that they were told."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._is_over = threading.Event()
        #: Appended to from many threads; each append is one step.
        self.admitted: list[str] = []

    def submit(self, client: int) -> None:
        """Submit one after the other, of several sizes, until the load is over."""
        for number in itertools.count():
            if self._is_over.is_set():
                return
            payload = {"text": "x" * ((client + number) % 5 * 4_000)}
            answer = self._service.client.post("/jobs", json={"type": "email", "payload": payload})
            assert answer.status_code == 201, answer.text
            self.admitted.append(answer.json()["id"])

    def end(self) -> None:
        """Submit no more."""
        self._is_over.set()

    def wait_for(self, jobs: int) -> None:
        """Wait until so many more were admitted."""
        goal = len(self.admitted) + jobs
        while len(self.admitted) < goal and not self._is_over.is_set():
            self._is_over.wait(0.01)


def backup(database: Path | str, target: Path, *before: str) -> subprocess.CompletedProcess[str]:
    """Run the command, perhaps under another."""
    return subprocess.run(
        [*before, sys.executable, "-m", "actors", "backup", str(target)],
        cwd=TOP,
        env={**os.environ, "GOFER_DATABASE": str(database)},
        capture_output=True,
        text=True,
        timeout=FINISH,
        check=False,
    )


def filled(database: Path, jobs: int = 20) -> list[str]:
    """Make a database with so many pending jobs; return their ids."""
    made = Database(str(database))
    ids = [f"{number:016x}" for number in range(1, jobs + 1)]
    for job_id in ids:
        made.insert(lifecycle.submitted(job_id, "email", datetime.now(UTC)), Raw(b'"payload"'))
    made.commit()
    made.close()
    return ids


def test_copies_made_while_the_service_works_hold_every_job_admitted_before(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    copies: list[tuple[Path, list[str]]] = []
    with running(GOFER_DATABASE=database, GOFER_SIMULATED_SECONDS=0.01, GOFER_CAPACITY=100_000) as service:
        load = Load(service)
        with ThreadPoolExecutor(CLIENTS) as clients:
            clients_ends = [clients.submit(load.submit, client) for client in range(CLIENTS)]
            try:
                for number in range(COPIES):
                    load.wait_for(150)
                    target = tmp_path / f"copy {number}.db"
                    admitted = load.admitted.copy()
                    done = backup(database, target)
                    assert (done.returncode, done.stderr) == (0, "")
                    assert re.fullmatch(rf"\d+ jobs, {target.stat().st_size} bytes: .*\n", done.stdout)
                    copies.append((target, admitted))
                load.wait_for(50)
                assert_owned(database)
            finally:
                load.end()
            for end in clients_ends:
                end.result()
        assert service.log.count("Booting worker") == 1
        assert service.stop(signal.SIGTERM).code == 0
    assert statuses(database).keys() == set(load.admitted)
    for target, admitted in copies:
        assert target.stat().st_mode & 0o777 == 0o600
        assert_sound(target, admitted)


def test_while_somebody_copies_commits_go_on_and_the_database_does_not_change(tmp_path: Path) -> None:
    path, log = tmp_path / "jobs.db", tmp_path / "jobs.db-wal"
    database = Database(str(path))
    jobs = 0

    def commit(many: int) -> None:
        nonlocal jobs
        for _ in range(many):
            jobs += 1
            job = lifecycle.submitted(f"{jobs:016x}", "email", datetime.now(UTC))
            database.insert(job, Raw(b'"' + b"x" * 100_000 + b'"'))
            database.commit()

    commit(60)
    with held(log):
        before, size = path.read_bytes(), log.stat().st_size
        commit(60)
        assert path.read_bytes() == before
        assert log.stat().st_size > size
    commit(1)
    assert path.read_bytes() != before
    commit(120)
    assert log.stat().st_size < size + 80 * 100_000
    database.close()


def test_a_copy_is_made_while_no_service_runs_and_of_what_a_crash_left(tmp_path: Path) -> None:
    database = tmp_path / "jobs.db"
    ids = filled(database)
    assert backup(database, tmp_path / "first.db").returncode == 0
    open_one = Database(str(database))
    open_one.delete_oldest(1, failed=False)
    open_one.insert(lifecycle.submitted("00000000000000ff", "email", datetime.now(UTC)), Raw(b"{}"))
    open_one.commit()
    for suffix in ("", "-wal"):
        shutil.copy(f"{database}{suffix}", tmp_path / f"crashed.db{suffix}")
    open_one.close()
    assert backup(tmp_path / "crashed.db", tmp_path / "second.db").returncode == 0
    assert statuses(tmp_path / "first.db").keys() == set(ids)
    assert statuses(tmp_path / "second.db").keys() == {*ids, "00000000000000ff"}
    assert sorted(path.name for path in tmp_path.iterdir() if "partial" in path.name) == []


def test_a_copy_counts_only_if_the_files_stayed_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "jobs.db"
    filled(database)
    states = itertools.count()
    monkeypatch.setattr("actors.store.backup._state", lambda *_: (next(states),))
    with pytest.raises(StorageFailed, match="was not copied: services start and end on it all the time"):
        back_up(str(database), tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()
    assert next(states) == 2 * MOST_TRIES


def test_a_service_that_starts_or_ends_meanwhile_changes_what_is_compared(tmp_path: Path) -> None:
    database, log = tmp_path / "jobs.db", tmp_path / "jobs.db-wal"
    filled(database)
    states = {_state(database, log)}
    opened = Database(str(database))
    states.add(_state(database, log))
    opened.insert(lifecycle.submitted("00000000000000ff", "email", datetime.now(UTC)), Raw(b"{}"))
    opened.commit()
    states.add(_state(database, log))
    opened.insert(lifecycle.submitted("00000000000000fe", "email", datetime.now(UTC)), Raw(b"{}"))
    opened.commit()
    assert _state(database, log) in states  # The log has grown: that does no harm.
    opened.close()
    states.add(_state(database, log))
    assert len(states) == 4


@needs_strace
@pytest.mark.parametrize("call", ["openat", "write", "pwrite64", "fsync", "rename", "close"])
def test_a_backup_that_is_killed_leaves_a_whole_copy_or_none_and_can_be_made_again(
    tmp_path: Path, call: str
) -> None:
    database, target = tmp_path / "jobs.db", tmp_path / "copy.db"
    ids = filled(database, 300)
    before = database.read_bytes()
    paths = [database, target, f"{target}-partial", f"{target}-partial-wal", tmp_path]
    for number in itertools.count(1):
        inject = [f"--trace-path={path}" for path in paths]
        inject += ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
        done = backup(database, target, "strace", "-f", "-o", os.devnull, *inject)
        assert database.read_bytes() == before
        if target.exists():
            assert statuses(target).keys() == set(ids)
            target.unlink()
        if done.returncode == 0:
            break
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done
    assert number > 1


@pytest.mark.parametrize(
    ("database", "target", "words"),
    [
        (":memory:", "copy.db", "GOFER_DATABASE is not set: jobs in memory cannot be copied"),
        ("missing.db", "copy.db", r"missing\.db', which cannot be opened: there is no such file"),
        ("jobs.db", "jobs.db", r"jobs\.db' exists already; name another file"),
        ("jobs.db", "missing/copy.db", r"missing/copy\.db' cannot be written: No such file"),
        ("song.db", "copy.db", "the copy cannot be used, so the database may be damaged: no such table"),
        ("notes.txt", "copy.db", "the copy cannot be used.* file is not a database"),
        ("sqlite:///jobs.db", "copy.db", "it is a URL"),
    ],
)
def test_a_backup_that_cannot_be_made_says_why_in_one_line_and_leaves_nothing(
    tmp_path: Path, database: str, target: str, words: str
) -> None:
    filled(tmp_path / "jobs.db", 1)
    (tmp_path / "notes.txt").write_text("not a database at all, but long enough to be looked at" * 20)
    with contextlib.closing(sqlite3.connect(tmp_path / "song.db")) as song:
        song.execute("CREATE TABLE songs (title)")
    before = sorted(path.name for path in tmp_path.iterdir())
    source = database if ":" in database else tmp_path / database
    done = backup(source, tmp_path / target)
    assert done.returncode == 1
    assert re.fullmatch(rf"gofer: .*{words}.*\n", done.stderr), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_two_backups_to_one_target_do_not_mix(tmp_path: Path) -> None:
    filled(tmp_path / "jobs.db", 1)
    with held(tmp_path / "copy.db-partial", make=True):
        done = backup(tmp_path / "jobs.db", tmp_path / "copy.db")
    assert (done.returncode, "is under way; wait for it" in done.stderr) == (1, True)


@contextlib.contextmanager
def held(path: Path, *, make: bool = False) -> Iterator[None]:
    """Lock a file as a backup does."""
    if make:
        path.touch()
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def assert_owned(database: Path) -> None:
    with pytest.raises(StorageFailed, match="belongs to process"):
        start(Settings(database=str(database), simulated_seconds=0))


def assert_sound(copy: Path, admitted: list[str]) -> None:
    copied = peek(copy)
    assert copied.keys() >= set(admitted)
    assert set(copied.values()) & set(OPEN)
    ended = run_to_the_end(copy)
    assert ended == dict.fromkeys(copied, "completed")
