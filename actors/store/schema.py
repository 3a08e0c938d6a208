"""The schema of the database, and how a file with an older one gets there."""

import contextlib
import sqlite3
from typing import Final

from actors.lifecycle import FINISHED

#: What says in the header of a file that it is Gofer's; in older ones only the schema does.
APPLICATION_ID: Final = int.from_bytes(b"gofr")
# The rowid is the job's id, so that the order of submission costs no index of its own, and a page of jobs
# costs the same wherever it starts. Times are microseconds since 1970, in UTC.
FIRST_SCHEMA: Final = f"""
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
"""
#: Bytes that a job keeps, about: what no bound of ours limits to a few.
SIZE: Final = (
    "length(CAST(payload AS BLOB)) + coalesce(length(CAST(result AS BLOB)), 0)"
    " + coalesce(length(CAST(last_error AS BLOB)), 0)"
)
_KINDS: Final = {
    "pending": "status = 'pending' AND run_at IS NULL",
    "delayed": "status = 'pending' AND run_at IS NOT NULL",
    **{status: f"status = '{status}'" for status in ("processing", "completed", "failed", "cancelled")},
}
#: The columns of the totals besides `finish`, each with what it counts among the jobs.
COUNTED: Final = {f"{kind}_jobs": f"count(*) FILTER (WHERE {rule})" for kind, rule in _KINDS.items()} | {
    f"{kind}_bytes": f"coalesce(sum({SIZE}) FILTER (WHERE {rule}), 0)" for kind, rule in _KINDS.items()
}
#: Reads every job: for a migration only.
COUNT: Final = f"SELECT coalesce(max(finish), 0), {', '.join(COUNTED.values())} FROM jobs"
#: What leads from each version of the schema (`user_version`) to the next; a new file has version 0.
MIGRATIONS: Final = (
    FIRST_SCHEMA,
    # In how many crashes in a row an attempt was running; and whether the running one is to be cancelled.
    """ALTER TABLE jobs ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN is_unwanted INTEGER NOT NULL DEFAULT 0;""",
    "CREATE INDEX jobs_by_run_at ON jobs (run_at) WHERE run_at IS NOT NULL AND status = 'pending';",
    # The order in which jobs finished, which no clock can change; and indexes by which no page reads more
    # rows than it returns (see pages.py). Each costs a page of the WAL per move, so there are as few as
    # will do.
    """ALTER TABLE jobs ADD COLUMN finish INTEGER;
    UPDATE jobs SET finish = place FROM (
        SELECT id AS job, row_number() OVER (ORDER BY finished_at, id) AS place
        FROM jobs WHERE finished_at IS NOT NULL
    ) WHERE id = job;
    DROP INDEX jobs_by_status;
    DROP INDEX jobs_by_type;
    DROP INDEX jobs_by_finish;
    DROP INDEX jobs_by_run_at;
    CREATE INDEX jobs_by_status ON jobs (status, (run_at IS NOT NULL));
    CREATE INDEX jobs_by_type ON jobs (type, status);
    CREATE INDEX jobs_by_finish ON jobs (finish) WHERE finish IS NOT NULL;
    CREATE INDEX jobs_by_run_at ON jobs (run_at, id) WHERE status = 'pending' AND run_at IS NOT NULL;
    CREATE TABLE totals (status TEXT PRIMARY KEY, jobs INTEGER NOT NULL) STRICT, WITHOUT ROWID;""",
    # The totals with each commit, in one row (see totals.py); and failed jobs in an order of their own.
    f"""DROP INDEX jobs_by_finish;
    CREATE INDEX jobs_by_finish ON jobs ((status = 'failed'), finish) WHERE finish IS NOT NULL;
    DROP TABLE totals;
    CREATE TABLE totals (finish INTEGER NOT NULL, {", ".join(f"{name} INTEGER NOT NULL" for name in COUNTED)})
    STRICT;
    INSERT INTO totals {COUNT};""",
    # How many of a job's attempts were cut off, or crashed; and how the process that owns the file fares.
    """ALTER TABLE jobs ADD COLUMN interruptions INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE life (is_stopping INTEGER NOT NULL, boot TEXT NOT NULL) STRICT;
    INSERT INTO life VALUES (0, '');""",
    # The jobs that are reserved (see reservations.py).
    "ALTER TABLE life ADD COLUMN reserved TEXT NOT NULL DEFAULT '{}';",
    # The idempotency keys (see keys.py): digests of the key and of the request's body, and which jobs came.
    """CREATE TABLE keys (
        number INTEGER PRIMARY KEY, key BLOB NOT NULL, body BLOB NOT NULL, job INTEGER NOT NULL,
        jobs INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX keys_by_key ON keys (key);""",
)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a file up to date, or fill a new one, in one transaction. Raises sqlite3.Error."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < len(MIGRATIONS):
        connection.executescript(
            f"BEGIN IMMEDIATE; {''.join(MIGRATIONS[version:])} PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {len(MIGRATIONS)}; COMMIT;"
        )


def objects(version: int) -> dict[str, str]:
    """Return the SQL of each table and index that a file of this version has, by name."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript("".join(MIGRATIONS[:version]))
        return dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))
