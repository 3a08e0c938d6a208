"""The database file: how it is opened, and what is refused."""

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from actors import lifecycle
from actors.errors import StorageFailed
from actors.lifecycle import FINISHED, FIRST_ID, Job, Status
from actors.messages import Due, ListJobs
from actors.store import schema
from actors.store.database import Database
from actors.store.rows import EPOCH
from actors.store.schema import FIRST_SCHEMA, MIGRATIONS
from tests.calling import assert_totals

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
#: The version of the schema that brought the order in which jobs finish.
FINISH_ORDER = 4


def pragma(database: Database, name: str) -> object:
    return database._connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_a_file_is_opened_so_that_a_commit_survives_a_power_cut(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "jobs.db"))
    assert pragma(database, "journal_mode") == "wal"
    assert pragma(database, "synchronous") == 2
    assert pragma(database, "locking_mode") == "exclusive"
    database.close()


def test_what_is_committed_is_there_after_a_reopen_to_the_microsecond(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.db")
    job = lifecycle.submitted("00000000000000aa", 'quote " and ünïcode', NOW)
    database = Database(path)
    database.insert(job, Raw(b'{"text":"\\u0000 \\" \xc3\xbc","n":1e400,"big":12345678901234567890123}'))
    database.commit()
    database.insert(lifecycle.submitted("00000000000000ab", "lost", NOW), Raw(b"{}"))
    database.close()
    reopened = Database(path)
    stored = reopened._connection.execute("SELECT payload FROM jobs").fetchall()
    assert stored == [('{"text":"\\u0000 \\" ü","n":1e400,"big":12345678901234567890123}',)]
    assert list(reopened.page(ListJobs())) == [job]
    reopened.close()


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database(":memory:")
    yield database
    database.close()


def test_an_update_of_a_job_that_has_moved_on_is_refused(database: Database) -> None:
    job = lifecycle.submitted("00000000000000aa", "email", NOW)
    database.insert(job, Raw(b"{}"))
    claimed = lifecycle.claimed(job, NOW)
    database.update(job, claimed)
    with pytest.raises(sqlite3.IntegrityError):
        database.update(job, claimed)


def test_the_schema_refuses_a_pending_job_that_has_finished(database: Database) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        database._connection.execute(
            "INSERT INTO jobs (id, type, status, created_at, attempts, max_retries, finished_at, payload)"
            " VALUES (1, 'email', 'pending', 0, 0, 0, 1, '{}')"
        )


def test_a_file_of_the_first_version_is_brought_up_to_date_with_its_jobs(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.db")
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(
            f"{FIRST_SCHEMA} PRAGMA user_version = 1;"
            "INSERT INTO jobs (id, type, status, created_at, attempts, max_retries, payload)"
            " VALUES (7, 'email', 'pending', 0, 0, 0, '{}');"
        )
    database = Database(path)
    assert pragma(database, "user_version") == len(MIGRATIONS)
    (job,) = database.page(ListJobs())
    assert (job.id, database.interrupted()) == ("0000000000000007", [])
    database.close()


#: Jobs as every version of the schema has them; by when they finished, and then by id: 4, 2, 5, 3.
JOBS_OF_OLD = """
INSERT INTO jobs (
    id, type, status, created_at, attempts, max_retries, started_at, finished_at, run_at, payload
) VALUES (1, 'email', 'pending', 0, 0, 0, NULL, NULL, NULL, '{}'),
    (2, 'email', 'completed', 0, 1, 0, 1, 20, NULL, '{}'),
    (3, 'report', 'failed', 0, 1, 0, 1, 30, NULL, '{}'),
    (4, 'email', 'cancelled', 0, 0, 0, NULL, 10, 99, '{}'),
    (5, 'report', 'completed', 0, 1, 0, 1, 20, NULL, '{}'),
    (6, 'email', 'pending', 0, 0, 0, NULL, NULL, 99, '{}'),
    (7, 'report', 'processing', 0, 1, 0, 1, NULL, NULL, '{}');
"""


def old_file(path: str, version: int) -> None:
    with contextlib.closing(sqlite3.connect(path)) as old:
        statements = "".join(MIGRATIONS[:version])
        old.executescript(f"{statements} PRAGMA user_version = {version}; {JOBS_OF_OLD if version else ''}")


def numbers(jobs: Iterable[Job | Due]) -> list[int]:
    return [int(job.id, 16) for job in jobs]


@pytest.mark.parametrize("version", range(1, FINISH_ORDER))
def test_a_file_of_each_older_version_is_brought_up_to_date_with_its_jobs(
    tmp_path: Path, version: int
) -> None:
    path = str(tmp_path / "jobs.db")
    old_file(path, version)
    database = Database(path)
    assert pragma(database, "user_version") == len(MIGRATIONS)
    assert pragma(database, "integrity_check") == "ok"
    assert_totals(database)
    assert database.totals.jobs == {
        "pending": 1,
        "delayed": 1,
        "processing": 1,
        "completed": 2,
        "failed": 1,
        "cancelled": 1,
    }
    assert numbers(database.page(ListJobs())) == [1, 2, 3, 4, 5, 6, 7]
    assert numbers(database.page(ListJobs(Status.COMPLETED, "report"))) == [5]
    assert numbers(database.immediate(after=FIRST_ID, limit=9)) == [1]
    assert numbers(database.delayed(after=(EPOCH, FIRST_ID), limit=9)) == [6]
    assert [int(job.id, 16) for job, _, _, _ in database.interrupted()] == [7]
    (running,) = database.page(ListJobs(Status.PROCESSING))
    database.update(running, lifecycle.completed(running, 1, Raw(b"1"), EPOCH), payload=2)
    for first in (4, 2, 5, 3, 7):
        assert first in numbers(database.page(ListJobs()))
        assert len(database.delete_oldest(1, failed=first == 3)) == 1
        assert first not in numbers(database.page(ListJobs()))
    assert_totals(database)
    database.close()


@pytest.mark.parametrize("version", range(len(MIGRATIONS)))
def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    path = str(tmp_path / "jobs.db")
    old_file(path, version)
    with contextlib.closing(sqlite3.connect(path)) as old:
        before = list(old.iterdump())
    broken = f"{MIGRATIONS[version]} INSERT INTO jobs (id) VALUES (NULL);"
    migrations = (*MIGRATIONS[:version], broken, *MIGRATIONS[version + 1 :])
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", migrations)
        with pytest.raises(StorageFailed, match="NOT NULL"):
            Database(path)
    with contextlib.closing(sqlite3.connect(path)) as old:
        assert list(old.iterdump()) == before
        assert old.execute("PRAGMA user_version").fetchone() == (version,)
    Database(path).close()


def fill(database: Database, jobs: int, first: int = 1) -> None:
    """Submit so many jobs: of three types, every fourth delayed, and in each status in turn."""
    for number in range(first, first + jobs):
        job = lifecycle.submitted(
            f"{number:016x}", f"type {number % 3}", NOW, delay=60 if number % 4 == 0 else 0
        )
        claimed = lifecycle.claimed(job, NOW)
        database.insert(job, Raw(b"{}"))
        if number % 5 == 1:
            database.update(job, lifecycle.cancelled(job, NOW), payload=2)
        if number % 5 > 1:
            database.update(job, claimed, payload=2)
        if number % 5 == 3:
            database.update(claimed, lifecycle.completed(claimed, 1, Raw(b"1"), NOW), payload=2)
        if number % 5 == 4:
            database.update(claimed, lifecycle.failed(claimed, 1, "broken", NOW), payload=2)


@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize("after", [None, 0, 31, 61])
@pytest.mark.parametrize("limit", [1, 7, 100])
def test_each_page_holds_the_jobs_asked_for_in_order(
    database: Database, order: Any, after: int | None, limit: int
) -> None:
    fill(database, 60)
    everything = list(database.page(ListJobs()))
    assert numbers(everything) == list(range(1, 61))
    for status, job_type in itertools.product([None, *Status], [None, "type 1", "unknown"]):
        expected = [
            job
            for job in everything[:: 1 if order == "oldest" else -1]
            if (status in (None, job.status) and job_type in (None, job.type))
            and (after is None or (int(job.id, 16) > after) is (order == "oldest"))
            and int(job.id, 16) != after
        ]
        cursor = None if after is None else f"{after:016x}"
        query = ListJobs(status, job_type, limit=limit, after=cursor, order=order)
        assert list(database.page(query)) == expected[:limit]


def test_delayed_jobs_are_read_by_when_they_are_due_and_then_by_id(database: Database) -> None:
    seconds = [3, 1, 2, 1, 3, 2, 1]
    for number, delay in enumerate(seconds, start=1):
        job = lifecycle.submitted(f"{number:016x}", "email", NOW, delay=delay)
        database.insert(job, Raw(b"{}"))
    whole = database.delayed(after=(EPOCH, FIRST_ID), limit=100)
    assert numbers(whole) == [2, 4, 7, 3, 6, 1, 5]
    for place, due in enumerate(whole, start=1):
        assert due.run_at is not None
        for limit in (1, 2, 100):
            page = database.delayed(after=(due.run_at, due.id), limit=limit)
            assert page == whole[place : place + limit]


@pytest.mark.parametrize("commits", list(itertools.product([True, False], repeat=3)))
def test_the_totals_of_a_start_are_those_of_the_last_commit_however_the_process_ended(
    tmp_path: Path, commits: tuple[bool, ...]
) -> None:
    path = str(tmp_path / "jobs.db")
    for number, commits_at_the_end in enumerate(commits):
        database = Database(path)
        assert_totals(database)
        fill(database, 10, first=1 + 100 * number)
        assert_totals(database)
        database.commit()
        fill(database, 7, first=50 + 100 * number)
        database.rollback()
        assert_totals(database)
        database.delete_oldest(number, failed=False)
        database.delete_oldest(number, failed=True)
        database.commit()
        fill(database, 3, first=70 + 100 * number)
        if commits_at_the_end:
            database.commit()
        database.close()
    database = Database(path)
    assert_totals(database)
    assert database.totals.finish >= sum(database.totals.jobs[status] for status in FINISHED) > 0
    database.close()


def test_the_bytes_of_a_job_are_those_of_payload_result_and_error(database: Database) -> None:
    job = lifecycle.submitted("00000000000000aa", "email", NOW, max_retries=1)
    database.insert(job, Raw(b'"0123456789"'))
    assert database.totals.bytes["pending"] == 12
    claimed = lifecycle.claimed(job, NOW)
    database.update(job, claimed, payload=12)
    assert database.totals.bytes["processing"] == 12
    failed = lifecycle.backed_off(claimed, 1, "h\u00f6chst \0", NOW, 1)
    database.update(claimed, failed, payload=12)
    assert database.totals.bytes["delayed"] == 12 + 9
    again = lifecycle.claimed(failed, NOW)
    database.update(failed, again, payload=12)
    database.update(again, lifecycle.completed(again, 2, Raw(b"[1]"), NOW), payload=12)
    assert database.totals.bytes["completed"] == 12 + 9 + 3
    assert_totals(database)
    database.delete_oldest(1, failed=False)
    assert set(database.totals.bytes.values()) == {0}


def test_a_check_finds_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    database = Database(str(path))
    for number in range(1, 1000):
        database.insert(lifecycle.submitted(f"{number:016x}", "email", NOW), Raw(b"{}"))
    database.commit()
    database.close()
    with path.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(StorageFailed, match=r"is damaged|cannot be opened"):
        Database(str(path), is_suspect=True)


def get(database: Database, job_id: str) -> Job | None:
    found = database.find(job_id)
    return found and found[0]


def test_a_job_is_read_again_once_it_may_have_changed(database: Database) -> None:
    job = lifecycle.submitted("00000000000000aa", "email", NOW)
    database.insert(job, Raw(b"{}"))
    database.commit()
    pending = get(database, job.id)
    assert pending is not None
    assert get(database, job.id) is pending
    claimed = lifecycle.claimed(pending, NOW)
    database.update(pending, claimed)
    assert get(database, job.id) == claimed
    database.rollback()
    assert get(database, job.id) == pending
    database.update(pending, claimed)
    done = lifecycle.completed(claimed, 1, Raw(b"1"), NOW)
    database.update(claimed, done)
    assert get(database, job.id) == done
    database.delete_oldest(1, failed=False)
    assert get(database, job.id) is None
