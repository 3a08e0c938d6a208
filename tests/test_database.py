"""The database file: how it is opened, and what is refused."""

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec import Raw

from actors import lifecycle
from actors.errors import StorageFailed
from actors.messages import ListJobs
from actors.store.database import Database
from actors.store.schema import FIRST_SCHEMA, MIGRATIONS

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


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


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("this is not a database, and it is long enough to be looked at" * 20)
    with pytest.raises(StorageFailed, match=r"notes\.txt' cannot be opened: file is not a database"):
        Database(str(path))


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="cannot be opened"):
        Database(str(tmp_path))


def test_a_file_of_a_newer_gofer_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.db")
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StorageFailed, match=r"schema version 99 .* a newer Gofer made it"):
        Database(path)


def test_a_database_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = str(tmp_path / "other.db")
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE songs (title)")
    with pytest.raises(StorageFailed, match="not a Gofer database"):
        Database(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_schema").fetchall() == [("songs",)]


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
        Database(str(path)).check()


def test_a_job_is_read_again_once_it_may_have_changed(database: Database) -> None:
    job = lifecycle.submitted("00000000000000aa", "email", NOW)
    database.insert(job, Raw(b"{}"))
    database.commit()
    pending = database.get(job.id)
    assert pending is not None
    assert database.get(job.id) is pending
    claimed = lifecycle.claimed(pending, NOW)
    database.update(pending, claimed)
    assert database.get(job.id) == claimed
    database.rollback()
    assert database.get(job.id) == pending
    database.update(pending, claimed)
    done = lifecycle.completed(claimed, 1, Raw(b"1"), NOW)
    database.update(claimed, done)
    assert database.get(job.id) == done
    database.delete_oldest_finished(1)
    assert database.get(job.id) is None
