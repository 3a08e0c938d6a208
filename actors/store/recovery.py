"""Recovery: what becomes of the jobs that were running when an earlier process ended.

Whether it was stopped or crashed is told by its life (see life.py). After a crash every job that was running
could be the cause. None is failed for being near: who was there twice is a suspect, suspects run one at a
time, and who was there once more runs with nothing else. Then a crash tells.
"""

from collections.abc import Container, Iterator
from datetime import datetime
from typing import NamedTuple

from actors import lifecycle, log
from actors.lifecycle import Job
from actors.store.database import Database


class Recovered(NamedTuple):
    """A job as it was, its payload's bytes, as it is to be, and its crashes in a row."""

    before: Job
    payload: int
    after: Job
    crashes: int


def recovered(
    database: Database, running: Container[str], now: datetime, *, at_most_once: bool
) -> Iterator[Recovered]:
    """Yield each such job. What is `running` in this process was not cut short. Raises sqlite3.Error."""
    was_cut_off = database.life.was_cut_off
    for job, payload, earlier, is_unwanted in database.interrupted():
        if job.id in running:
            continue
        crashes = earlier if was_cut_off else earlier + 1
        if is_unwanted:  # A job with a pending cancel is cancelled.
            after = lifecycle.cancelled(job, now)
        elif was_cut_off:
            after = lifecycle.cut_off(job, job.attempts, "by a stop", now, at_most_once=at_most_once)
        else:
            after = lifecycle.crashed(job, crashes, now, at_most_once=at_most_once)
        how = "that a stop had cut off" if was_cut_off else "that was running during a crash"
        log.logger("JobStore").warning(f"recovered a job {how}", job=job.id, status=after.status)
        yield Recovered(job, payload, after, crashes)
