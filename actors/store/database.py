"""The jobs in SQLite: one table, one connection, one owner."""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain
from typing import Any, Final, NamedTuple

from msgspec import Raw
from msgspec.structs import replace

from actors.errors import JobNotFound, OutcomeInDoubt
from actors.lifecycle import FIRST_ID, Job, Status
from actors.messages import Due, ListJobs
from actors.requests import Many
from actors.settings import IN_MEMORY
from actors.store.checkpoints import Checkpoints
from actors.store.connection import connect
from actors.store.keys import Keys
from actors.store.life import Life
from actors.store.location import RESTORE, refused
from actors.store.pages import (
    COUNT_TYPES,
    DELAYED,
    DELETE_OLDEST,
    IMMEDIATE,
    OLDEST,
    ONE,
    PROCESSING,
    SET_BACK,
    SPAN,
    WHOLE,
    listed,
    matching,
)
from actors.store.presence import Presence
from actors.store.rows import (
    END_OF_TIME,
    GUARD,
    INSERT,
    MOVE,
    NO_ROW,
    due_of,
    from_time,
    inserted,
    job_of,
    kept,
    moved,
    rowid,
    to_time,
    values,
)
from actors.store.totals import Totals, kind

#: Rows that one statement writes, at most; SQLite takes 32,766 values.
MOST_ROWS: Final = 1000
#: Jobs that are kept until they run, at most, and bytes of their payloads.
MOST_FRESH: Final = 10_000
FRESH_BYTES: Final = 1024 * 1024


class Past(NamedTuple):
    """What a job has behind it."""

    #: In how many crashes in a row it was running.
    crashes: int
    #: How many of its attempts were cut off, or crashed, or perhaps never began.
    interruptions: int


#: That of a job that was never run.
NO_PAST: Final = Past(0, 0)


class Database:
    """The table of jobs, inside one transaction at a time that the owner commits or rolls back.

    It may be opened in one thread and used in another, but only in one. Its methods raise sqlite3.Error.
    """

    def __init__(self, path: str, *, is_suspect: bool = False) -> None:
        """Open the file, and read all of it if it may be damaged. Raises StorageFailed."""
        #: Rows of jobs that were submitted since the last statement, and by id those of jobs that moved.
        self._inserts: list[tuple[Any, ...]] = []
        self._moves: dict[int, tuple[Any, ...]] = {}
        self._connection = connect(path, is_suspect=is_suspect)
        self._presence = Presence(path)
        try:
            #: How many jobs there are of each kind, and their bytes, including what is not committed yet.
            self.totals = Totals(self._connection, are_kept=path != IN_MEMORY)
            self.life = Life(self._connection, self._write, is_kept=path != IN_MEMORY)
            self.keys = Keys(self._connection, self._write)
            real = None if path == IN_MEMORY else os.path.realpath(path)
            self._checkpoints = Checkpoints(self._connection, real)
        except Exception as error:
            self._connection.close()
            raise refused(path, str(error), RESTORE) from error
        #: What `find` returned last, unless it may have changed since. No other connection writes.
        self._last_read: tuple[Job, Past] | None = None
        #: Jobs that were submitted and have not moved since, so that few are read before they run.
        self._fresh: dict[str, tuple[Job, Past]] = {}
        self._fresh_bytes = 0

    def commit(self) -> bool:
        """Make all that was written since the last commit durable; tell whether there was anything."""
        self._flush()
        self.keys.write()
        if not self._connection.in_transaction:
            return False
        self.totals.write()
        try:
            self._checkpoints.begin_commit()
            self._connection.execute("COMMIT")
        except MemoryError:
            if not self._connection.in_transaction:  # Python's own, perhaps after SQLite had committed.
                raise OutcomeInDoubt("out of memory during a commit") from None
            raise
        finally:
            self._checkpoints.end_commit()
        self._presence.check()
        self.totals.committed()
        return True

    def rollback(self) -> None:
        """Forget all that was written since the last commit; a failed write may have done so already."""
        self._last_read = None
        self._fresh, self._fresh_bytes = {}, 0
        self._inserts.clear()
        self._moves.clear()
        self.keys.rollback()
        self.totals.rollback()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close; what was not committed is lost."""
        self._connection.close()
        self._checkpoints.close()

    def insert(self, job: Job, payload: Raw) -> None:
        """Add a job that was just submitted, with its payload."""
        self._inserts.append(inserted(job, payload))
        self.totals.add(kind(job), len(payload))
        has_room = len(self._fresh) < MOST_FRESH and self._fresh_bytes + len(payload) < FRESH_BYTES
        if has_room and job.run_at is None:
            self._fresh[job.id] = replace(job, raw_payload=payload), NO_PAST
            self._fresh_bytes += len(payload)

    def update(self, before: Job, after: Job, past: Past = NO_PAST, *, payload: int | None = None) -> int:
        """Write a move, guarded by the status and attempt that the job had before; return the row's bytes.

        `past` is what the job has behind it after the move, `payload` the bytes of its payload, if `before`
        does not carry it.
        """
        self._forget(before.id)
        self.totals.finish += after.finished_at is not None
        row, finish = int(before.id, 16), None if after.finished_at is None else self.totals.finish
        self._moves[row] = (*self._guard(row, before), *moved(after, finish), *past)
        payload = before.payload_size if payload is None else payload
        size = payload + kept(after)
        self.totals.add(kind(before), -payload - kept(before), -1)
        self.totals.add(kind(after), size)
        return size

    def _guard(self, row: int, before: Job) -> tuple[Any, ...]:
        """Of several moves in one commit the first has the guard; the last will have the values."""
        earlier, guard = self._moves.get(row), (row, before.status, before.attempts)
        if earlier is None:
            return guard
        if earlier[len(GUARD) :][:2] != guard[1:]:
            raise sqlite3.IntegrityError(f"job {before.id} is not what it was read as")
        return earlier[: len(GUARD)]

    def existing(self, job_id: str) -> tuple[Job, Past]:
        """Return the whole job, and what it has behind it. Raises JobNotFound."""
        found = self.find(job_id)
        if found is None:
            raise unknown(job_id)
        return found

    def summary(self, job_id: str) -> Job:
        """Return the job; payload and result are not read for it. Raises JobNotFound."""
        if job_id in self._fresh or (self._last_read is not None and self._last_read[0].id == job_id):
            return self.existing(job_id)[0]
        row = self._read(ONE, (rowid(job_id),)).fetchone()
        if row is None:
            raise unknown(job_id)
        return job_of(row)

    def find(self, job_id: str) -> tuple[Job, Past] | None:
        """Return the whole job: the same object until it changes or another is read, as clients poll.

        And what it has behind it.
        """
        if fresh := self._fresh.get(job_id):
            return fresh
        if self._last_read is None or self._last_read[0].id != job_id:
            row = self._read(WHOLE, (rowid(job_id),)).fetchone()
            self._last_read = None if row is None else (job_of(row[2:]), Past(row[0], row[1]))
        return self._last_read

    def page(self, query: ListJobs) -> Iterator[Job]:
        """Yield the jobs asked for, without payload and result. Raises JobNotFound for a wrong `after`."""
        after = None if query.after is None else rowid(query.after)
        if after == NO_ROW:
            raise JobNotFound(f"`after` is {query.after!r}, which is not the id of a job")
        return map(job_of, self._read(*listed(query, after)))

    def span(self, first: int, jobs: int) -> Iterator[Job]:
        """Yield the jobs of so many consecutive ids that are still there, as a page does."""
        return map(job_of, self._read(SPAN, (first, first + jobs)))

    def matching(
        self, statuses: Iterable[Status], query: Many, limit: int
    ) -> Iterator[tuple[Job, int, Past]]:
        """Yield the first jobs with these statuses that the query means, with bytes of payload and past."""
        for row in self._read(*matching(statuses, query, limit)):
            yield job_of(row[4:]), row[0], Past(row[1], row[2])

    def immediate(self, *, after: str, limit: int) -> list[Due]:
        """Return pending jobs without a `run_at`, by id."""
        return [due_of(row) for row in self._read(IMMEDIATE, (rowid(after), limit))]

    def delayed(self, *, after: tuple[datetime, str], limit: int) -> list[Due]:
        """Return pending jobs with a `run_at`, by that and id."""
        run_at, job_id = after
        values = {"run_at": from_time(run_at), "id": rowid(job_id), "limit": limit}
        return [due_of(row) for row in self._read(DELAYED, values)]

    def set_back(self, seconds: float) -> None:
        """Move the `run_at` of all pending jobs back, as the wall clock was; this reads all of them."""
        self._last_read = None
        self._write(SET_BACK, (round(seconds * 1e6),))

    def mark_unwanted(self, job_id: str) -> None:
        """Note that the running attempt is to be cancelled; the job's next move forgets it."""
        self._write("UPDATE jobs SET is_unwanted = 1 WHERE id = ?", (rowid(job_id),))

    def interrupted(self) -> list[tuple[Job, int, Past, bool]]:
        """Return the jobs that are processing, each with its bytes of payload, past, and if unwanted."""
        found = self._read(PROCESSING, ()).fetchall()
        return [(job_of(row[4:]), row[0], Past(row[1], row[2]), bool(row[3])) for row in found]

    def last_id(self) -> str:
        """Return the highest id, or the lowest possible one if there is no job."""
        (highest,) = self._read("SELECT max(id) FROM jobs", ()).fetchone()
        return FIRST_ID if highest is None else f"{highest:016x}"

    def count_types(self) -> Iterator[tuple[str, str, int]]:
        """Yield how many jobs there are of which type and status; this reads an entry for each job."""
        return iter(self._read(COUNT_TYPES, ()))

    def oldest_pending(self, job_type: str) -> datetime | None:
        """Return when the oldest pending job of this type was submitted."""
        row = self._read(OLDEST, (job_type,)).fetchone()
        return None if row is None else to_time(row[0])

    def delete_oldest(
        self, limit: int, *, failed: bool, by: datetime | None = None
    ) -> list[tuple[str, Status]]:
        """Delete the jobs that finished first, failed ones or others, at most `limit`.

        Return the type and status of each. With `by`, only those that finished by then.
        """
        last = END_OF_TIME if by is None else from_time(by)
        deleted = self._write(DELETE_OLDEST, (failed, limit, last)).fetchall()
        self._last_read = None
        for _type, status, size in deleted:
            self.totals.add(status, -size, -1)
        return [(job_type, Status(status)) for job_type, status, _size in deleted]

    def _forget(self, job_id: str) -> None:
        """Keep nothing of a job that is about to change."""
        if self._last_read is not None and self._last_read[0].id == job_id:
            self._last_read = None
        if fresh := self._fresh.pop(job_id, None):
            self._fresh_bytes -= fresh[0].payload_size

    def _flush(self) -> None:
        """Write the rows that wait to be: one statement for all that were submitted, one for all that moved.

        In each statement sqlite3 lets go of the GIL, and getting it back from a busy event loop takes longer
        than the statement.
        """
        while self._inserts:
            rows, self._inserts = self._inserts[:MOST_ROWS], self._inserts[MOST_ROWS:]
            self._execute(INSERT.format(values(rows)), tuple(chain.from_iterable(rows)))
        while self._moves:
            rows = [self._moves.pop(row) for row in list(self._moves)[:MOST_ROWS]]
            changed = self._execute(MOVE.format(values(rows)), tuple(chain.from_iterable(rows)))
            if changed.rowcount != len(rows):
                raise sqlite3.IntegrityError(f"one of {len(rows)} jobs that moved is not what it was read as")

    def _write(self, sql: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        self._flush()
        return self._execute(sql, values)

    def _execute(self, sql: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
        return self._connection.execute(sql, values)

    def _read(self, sql: str, values: tuple[Any, ...] | dict[str, Any]) -> sqlite3.Cursor:
        self._flush()
        return self._connection.execute(sql, values)


def unknown(job_id: str) -> JobNotFound:
    """Return the refusal of a message about a job that is not there."""
    return JobNotFound(f"there is no job {job_id}")
