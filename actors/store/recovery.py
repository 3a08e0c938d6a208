"""Recovery: what becomes of the jobs that were running, or reserved, when an earlier process ended.

Whether it was stopped or crashed is told by its life (see life.py). After a crash every job that was running
could be the cause. None is failed for being near: who was there twice is a suspect, suspects run one at a
time, and who was there once more with others runs with nothing else. A crash with one suspect alone tells.
"""

from collections.abc import Container, Iterator
from datetime import datetime
from itertools import chain
from typing import NamedTuple

from actors import lifecycle
from actors.lifecycle import Job, Status
from actors.store.database import Database, Past


class Recovered(NamedTuple):
    """A job as it was, its payload's bytes, as it is to be, its past then, and why."""

    before: Job
    payload: int
    after: Job
    past: Past
    reason: str


def recovered(
    database: Database, running: Container[str], now: datetime, *, at_most_once: bool
) -> Iterator[Recovered]:
    """Yield each such job. What is `running` in this process was not cut short. Raises sqlite3.Error."""
    was_cut_off = database.life.was_cut_off
    begun = [it for it in chain(database.interrupted(), _certain(database)) if it[0].id not in running]
    perhaps = [it for it in _reserved(database, is_certain=False) if it[0].id not in running]
    was_alone = len(begun) + len(perhaps) == 1
    for before, payload, past, is_unwanted in begun:
        job = before if before.status is Status.PROCESSING else lifecycle.claimed(before, now)
        crashes = past.crashes if was_cut_off else past.crashes + 1
        if is_unwanted:  # A job with a pending cancel is cancelled.
            after, crashes = lifecycle.cancelled(job, now), 0
        elif was_cut_off:
            after = lifecycle.cut_off(job, job.attempts, "by a stop", now, at_most_once=at_most_once)
        else:
            after = lifecycle.crashed(job, crashes, now, was_alone=was_alone, at_most_once=at_most_once)
        reason = "a stop had cut it off" if was_cut_off else "it was running during a crash"
        yield Recovered(before, payload, after, Past(crashes, past.interruptions + 1), reason)
    for before, past in perhaps:
        after = lifecycle.perhaps_begun(before, now, at_most_once=at_most_once)
        past = past._replace(interruptions=past.interruptions + 1)  # noqa: PLW2901 - what it has now
        yield Recovered(before, before.payload_size, after, past, "it had perhaps begun when a process ended")


def _certain(database: Database) -> Iterator[tuple[Job, int, Past, bool]]:
    for job, past in _reserved(database, is_certain=True):
        yield job, job.payload_size, past, False


def _reserved(database: Database, *, is_certain: bool) -> Iterator[tuple[Job, Past]]:
    """Yield the reserved jobs of which nothing more was stored, certainly begun or perhaps."""
    for job_id, was_certain in database.life.reserved.items():
        found = database.find(job_id) if was_certain is is_certain else None
        if found is not None and found[0].status is Status.PENDING:
            yield found
