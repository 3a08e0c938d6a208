"""Recovery: what becomes of the jobs that were running when an earlier process crashed."""

from collections.abc import Container, Iterator
from datetime import datetime

from actors import lifecycle, log
from actors.lifecycle import Job
from actors.store.database import Database


def recovered(
    database: Database, running: Container[str], now: datetime, *, at_most_once: bool
) -> Iterator[tuple[Job, int, Job, int]]:
    """Yield each such job: as it was, its payload's bytes, as it is to be, and its crashes in a row.

    What is `running` in this process was not cut off by a crash. Raises sqlite3.Error.
    """
    for job, payload, crashes, is_unwanted in database.interrupted():
        if job.id in running:
            continue
        if is_unwanted:  # A job with a pending cancel is cancelled.
            after = lifecycle.cancelled(job, now)
        else:
            after = lifecycle.recovered(job, crashes + 1, now, at_most_once=at_most_once)
        log.logger("JobStore").warning(
            "recovered a job that was running during a crash", job=job.id, status=after.status
        )
        yield job, payload, after, crashes + 1
