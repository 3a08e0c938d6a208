"""Rows of the table of jobs: how a job becomes one, and one a job."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec import UNSET, Raw

from actors.lifecycle import ID, Job, Status
from actors.messages import Due

#: The rowid of a text that is not an id.
NO_ROW: Final = -1
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
#: A time after all others, in microseconds.
END_OF_TIME: Final = 2**63 - 1


def rowid(job_id: str) -> int:
    """Return the rowid of an id; NO_ROW for a text that is not an id."""
    return int(job_id, 16) if re.match(ID, job_id) else NO_ROW


def job_of(row: Sequence[Any]) -> Job:
    """Return the job in a row of SUMMARY, perhaps with payload and result."""
    payload, result = row[10:] or (None, None)
    return Job(
        id=f"{row[0]:016x}",
        type=row[1],
        status=Status(row[2]),
        created_at=datetime.fromtimestamp(row[3] / 1e6, UTC),
        attempts=row[4],
        max_retries=row[5],
        started_at=to_time(row[6]),
        finished_at=to_time(row[7]),
        run_at=to_time(row[8]),
        last_error=row[9],
        raw_payload=UNSET if payload is None else Raw(payload),
        raw_result=UNSET if result is None else Raw(result),
    )


def due_of(row: Sequence[Any]) -> Due:
    """Return what says that the job in a row of LINE may run."""
    return Due(f"{row[0]:016x}", row[1], to_time(row[2]))


def kept(job: Job) -> int:
    """Return the bytes that a job keeps besides its payload, as SIZE counts them."""
    result = 0 if job.raw_result is UNSET else len(job.raw_result)
    return result if job.last_error is None else result + len(job.last_error.encode())


#: The columns of a new job, and those that a move writes besides `is_unwanted`.
INSERTED: Final = ("id", "type", "status", "created_at", "attempts", "max_retries", "run_at", "payload")
MOVED: Final = (
    "status", "attempts", "started_at", "finished_at", "run_at", "last_error", "result", "finish",
    "crashes", "interruptions",
)  # fmt: skip

INSERT: Final = f"INSERT INTO jobs ({', '.join(INSERTED)}) {{}}"
#: By what a row is found that moves, and what is written of it.
GUARD: Final = ("id", "status", "attempts")
MOVE: Final = (
    "UPDATE jobs SET is_unwanted = 0, "
    + ", ".join(f"{name} = moved.column{place}" for place, name in enumerate(MOVED, len(GUARD) + 1))
    + " FROM ({}) AS moved WHERE "
    + " AND ".join(f"jobs.{name} = moved.column{place}" for place, name in enumerate(GUARD, 1))
)


def values(rows: Sequence[Sequence[object]]) -> str:
    """Return the clause that holds these rows, for INSERT and MOVE."""
    places = f"({', '.join('?' * len(rows[0]))})"
    return f"VALUES {', '.join([places] * len(rows))}"


def inserted(submitted: Job, payload: Raw) -> tuple[Any, ...]:
    """Return the values of INSERTED."""
    return (
        int(submitted.id, 16),
        submitted.type,
        submitted.status,
        from_time(submitted.created_at),
        submitted.attempts,
        submitted.max_retries,
        from_time(submitted.run_at),
        bytes(payload).decode(),
    )


def moved(job: Job, finish: int | None) -> tuple[Any, ...]:
    """Return the values of MOVED but for the last two; `finish` is the number of a finish."""
    return (
        job.status,
        job.attempts,
        from_time(job.started_at),
        from_time(job.finished_at),
        from_time(job.run_at),
        job.last_error,
        None if job.raw_result is UNSET else bytes(job.raw_result).decode(),
        finish,
    )


def from_time(time: datetime | None) -> int | None:
    """Return microseconds since 1970, in UTC."""
    return None if time is None else (time - EPOCH) // MICROSECOND


def to_time(microseconds: int | None) -> datetime | None:
    """Return the time in UTC."""
    return None if microseconds is None else datetime.fromtimestamp(microseconds / 1e6, UTC)
