"""The jobs in SQLite: one table, one connection, one owner."""

import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from actors.errors import StorageFailed
from actors.lifecycle import FINISHED, Job, Status

SCHEMA_VERSION: Final = 1

# The rowid is the job's id, so that the order of submission costs no index of its own, and a page of jobs
# costs the same wherever it starts. Times are microseconds since 1970, in UTC.
SCHEMA: Final = f"""
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    max_retries INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    run_at INTEGER,
    last_error TEXT,
    payload TEXT NOT NULL,
    result TEXT,
    CHECK ((finished_at IS NOT NULL) = (status IN ({", ".join(f"'{s}'" for s in sorted(FINISHED))})))
) STRICT;
CREATE INDEX jobs_by_status ON jobs (status);
CREATE INDEX jobs_by_type ON jobs (type);
CREATE INDEX jobs_by_finish ON jobs (finished_at) WHERE finished_at IS NOT NULL;
PRAGMA user_version = {SCHEMA_VERSION};
"""

SUMMARY: Final = (
    "id, type, status, created_at, attempts, max_retries, started_at, finished_at, run_at, last_error"
)
ID: Final = re.compile("[0-7][0-9a-f]{15}")
#: Seconds to wait for another owner of the file to close it: at a reload that is the old process, which
#: gunicorn gives 30 to finish its job.
OWNER_LEAVES: Final = 35.0
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Database:
    """The table of jobs, inside one transaction at a time that the owner commits or rolls back.

    A path names a file that survives the process; `:memory:` is the same without the file. It may be
    opened in one thread and used in another, but only in one. Its methods raise sqlite3.Error.
    """

    def __init__(self, path: str) -> None:
        #: Rows of jobs that were submitted since the last statement.
        self._inserts: list[tuple[Any, ...]] = []
        try:
            self._connection = sqlite3.connect(
                path, timeout=OWNER_LEAVES, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise _cannot_open(path, error) from error
        try:
            self._configure(durable=path != ":memory:")
            self._create()
        except sqlite3.Error as error:
            self._connection.close()
            raise _cannot_open(path, error) from error

    def _configure(self, *, durable: bool) -> None:
        if not durable:
            return
        # Exclusive before the first access: the WAL then needs no shared memory, and one connection is
        # all there is. FULL, or a power cut loses commits that were acknowledged (sqlite.org/pragma.html).
        self._pragma("locking_mode", "EXCLUSIVE", expected="exclusive")
        self._pragma("journal_mode", "WAL", expected="wal")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._pragma("synchronous", None, expected=2)

    def _pragma(self, name: str, value: str | None, *, expected: str | int) -> None:
        setting = "" if value is None else f" = {value}"
        (actual,) = self._connection.execute(f"PRAGMA {name}{setting}").fetchone()
        if actual != expected:
            raise sqlite3.OperationalError(f"{name} is {actual}, it must be {expected}")

    def _create(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"it has schema version {version}, this Gofer knows {SCHEMA_VERSION}")

    def commit(self) -> None:
        """Make all that was written since the last commit durable."""
        self._insert()
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """Forget all that was written since the last commit; a failed write may have done so already."""
        self._inserts.clear()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close; what was not committed is lost."""
        self._connection.close()

    def insert(self, job: Job, payload: bytes) -> None:
        """Add a job that was just submitted, with its payload in JSON."""
        self._inserts.append(
            (
                _rowid(job.id),
                job.type,
                job.status,
                _from_time(job.created_at),
                job.attempts,
                job.max_retries,
                _from_time(job.run_at),
                payload.decode(),
            )
        )

    def update(self, before: Job, after: Job) -> None:
        """Write a move, guarded by the status and attempt that the job had before it."""
        changed = self._write(
            "UPDATE jobs SET status = ?, attempts = ?, max_retries = ?, started_at = ?, finished_at = ?,"
            " run_at = ?, last_error = ?, result = ? WHERE id = ? AND status = ? AND attempts = ?",
            (
                after.status,
                after.attempts,
                after.max_retries,
                _from_time(after.started_at),
                _from_time(after.finished_at),
                _from_time(after.run_at),
                after.last_error,
                None if after.result is msgspec.UNSET else msgspec.json.encode(after.result).decode(),
                _rowid(before.id),
                before.status,
                before.attempts,
            ),
        )
        if changed.rowcount != 1:
            raise sqlite3.IntegrityError(f"job {before.id} is not what it was read as")

    def get(self, job_id: str) -> Job | None:
        """Return the whole job."""
        row = self._read(
            f"SELECT {SUMMARY}, payload, result FROM jobs WHERE id = ?", (_rowid(job_id),)
        ).fetchone()
        return None if row is None else _job(row)

    def page(
        self,
        *,
        status: Status | None = None,
        job_type: str | None = None,
        after: str | None = None,
        limit: int = -1,
        newest_first: bool = False,
    ) -> Iterator[Job]:
        """Yield jobs without payload and result, in the order of submission or its reverse."""
        wanted: list[tuple[str, Any]] = []
        if status is not None:
            wanted.append(("status = ?", status))
        if job_type is not None:
            wanted.append(("type = ?", job_type))
        if after is not None:
            wanted.append(("id < ?" if newest_first else "id > ?", _rowid(after)))
        where = " AND ".join(condition for condition, _ in wanted) or "TRUE"
        order = "DESC" if newest_first else "ASC"
        sql = f"SELECT {SUMMARY} FROM jobs WHERE {where} ORDER BY id {order} LIMIT ?"
        return map(_job, self._read(sql, (*(value for _, value in wanted), limit)))

    def count(self, status: Status) -> int:
        """Count the jobs with this status, one by one."""
        (number,) = self._read("SELECT count(*) FROM jobs WHERE status = ?", (status,)).fetchone()
        return int(number)

    def last_id(self) -> str:
        """Return the highest id, or the lowest possible one if there is no job."""
        (highest,) = self._read("SELECT max(id) FROM jobs", ()).fetchone()
        return f"{highest or 0:016x}"

    def delete_oldest_finished(self, limit: int) -> list[Status]:
        """Delete the jobs that finished first; return the status that each had."""
        rows = self._write(
            "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE finished_at IS NOT NULL"
            " ORDER BY finished_at LIMIT ?) RETURNING status",
            (limit,),
        )
        return [Status(status) for (status,) in rows.fetchall()]

    def _insert(self) -> None:
        # One statement for all that was submitted since the last: in each, sqlite3 lets go of the GIL,
        # and getting it back from a busy event loop takes longer than the statement.
        if self._inserts:
            rows, self._inserts = msgspec.json.encode(self._inserts).decode(), []
            self._write(
                "INSERT INTO jobs (id, type, status, created_at, attempts, max_retries, run_at, payload)"
                " SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6,"
                " value->>7 FROM json_each(?)",
                (rows,),
            )

    def _write(self, sql: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        self._insert()
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
        return self._connection.execute(sql, values)

    def _read(self, sql: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        self._insert()
        return self._connection.execute(sql, values)


def _cannot_open(path: str, error: sqlite3.Error) -> StorageFailed:
    return StorageFailed(f"the database {path!r} cannot be opened: {error}")


def _rowid(job_id: str) -> int:
    """Return the rowid of an id; -1, which no row has, if it is none."""
    if not ID.fullmatch(job_id):
        return -1
    return int(job_id, 16)


def _job(row: tuple[Any, ...]) -> Job:
    payload, result = row[10:] or (None, None)
    return Job(
        id=f"{row[0]:016x}",
        type=row[1],
        status=Status(row[2]),
        created_at=datetime.fromtimestamp(row[3] / 1e6, UTC),
        attempts=row[4],
        max_retries=row[5],
        started_at=_to_time(row[6]),
        finished_at=_to_time(row[7]),
        run_at=_to_time(row[8]),
        last_error=row[9],
        payload=msgspec.UNSET if payload is None else msgspec.json.decode(payload),
        result=msgspec.UNSET if result is None else msgspec.json.decode(result),
    )


def _from_time(time: datetime | None) -> int | None:
    return None if time is None else (time - EPOCH) // timedelta(microseconds=1)


def _to_time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else datetime.fromtimestamp(microseconds / 1e6, UTC)
