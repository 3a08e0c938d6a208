"""The backlog: which of the pending jobs are in the channel, and which follow when those are taken.

Why no pending job is forgotten: all that is pending is either in the channel or past a mark in the
database. A job that becomes pending is sent, unless it is past a mark: then a later page holds it. A page
is read when the channel runs low, and the mark moves only after the page was read, so an error in between
reads the same page again. A job that is sent twice does no harm, as only one claim of it succeeds. After a
crash the marks start at the beginning.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from actors.lifecycle import FIRST_ID, Job
from actors.messages import Run
from actors.messaging import Channel
from actors.store.database import Database

#: Jobs read in one page, and how few of a kind are left in the channel when the next page is read.
PAGE: Final = 1000
AGAIN: Final = 200
#: Jobs in the channel, of which some may have been cancelled, at which it is emptied and read again.
MOST: Final = 20_000
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Backlog:
    """Sends jobs to the channel: each as it becomes pending, but very many only a page at a time.

    Of the latter, those without a `run_at` follow one another by id, the delayed ones by `run_at`. Jobs
    past a mark are still only in the database; None means that all were sent.
    """

    def __init__(self, database: Database, channel: Channel, now: Callable[[], datetime]) -> None:
        self._database = database
        self._channel = channel
        self._now = now
        self._immediate: str | None = FIRST_ID
        self._delayed: tuple[datetime, str] | None = (LONG_AGO, FIRST_ID)

    def set_back(self, seconds: float) -> None:
        """Move the mark with all that waits, as the wall clock was set back."""
        if self._delayed is not None:
            run_at, job_id = self._delayed
            self._delayed = max(run_at - timedelta(seconds=seconds), LONG_AGO), job_id

    def send(self, jobs: Sequence[Job]) -> None:
        """Send these, which have just become pending, then refill the channel from the database."""
        if not jobs and self._immediate is None and self._delayed is None:
            return
        immediate, delayed = self._channel.queued
        if immediate + delayed > MOST:
            self._channel.clear()
            self._immediate, self._delayed = FIRST_ID, (LONG_AGO, FIRST_ID)
        for job in jobs:
            if not self._is_past_a_mark(job):
                self._send(job)
        while self._immediate is not None and self._has_room(self._channel.immediate):
            page = self._database.immediate(after=self._immediate, limit=PAGE)
            self._immediate = page[-1].id if len(page) == PAGE else None
            for job in page:
                self._send(job)
        while self._delayed is not None and self._has_room(self._channel.delayed):
            page = self._database.delayed(after=self._delayed, limit=PAGE)
            self._delayed = _mark(page[-1]) if len(page) == PAGE else None
            for job in page:
                self._send(job)

    def _has_room(self, queued: int) -> bool:
        return queued < AGAIN and self._channel.is_open

    def _is_past_a_mark(self, job: Job) -> bool:
        if job.run_at is None:
            return self._immediate is not None and job.id > self._immediate
        return self._delayed is not None and _mark(job) > self._delayed

    def _send(self, job: Job) -> None:
        if job.run_at is None:
            self._channel.send(Run(job.id))
        else:
            wait = (job.run_at - self._now()).total_seconds()
            self._channel.send(Run(job.id, job.run_at), wait, job.run_at.timestamp())


def _mark(job: Job) -> tuple[datetime, str]:
    return job.run_at or LONG_AGO, job.id
