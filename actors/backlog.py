"""The backlog: which of the pending jobs are in the channel, and which follow when those are taken."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from actors.database import Database
from actors.lifecycle import FIRST_ID, Job
from actors.mailbox import Channel
from actors.messages import Run

#: Jobs that are read at once, and how many of them are left in the channel when more are.
PAGE: Final = 1000
AGAIN: Final = 200
#: Jobs in the channel, of which some may have been cancelled, at which it is emptied and read anew.
MOST: Final = 20_000
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Backlog:
    """Sends jobs to the channel: each as it becomes pending, but very many only a page at a time.

    Of the latter, those without a `run_at` follow one another by id, the delayed ones by `run_at`. What lies
    behind a mark waits in the database; None says that nothing does.
    """

    def __init__(self, database: Database, channel: Channel, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._channel = channel
        self._clock = clock
        self._prompt: str | None = None
        self._delayed: tuple[datetime, str] | None = None

    def reopen(self) -> None:
        """Begin with what is pending in the database, as a start does."""
        self._channel.clear()
        self._prompt, self._delayed = FIRST_ID, (LONG_AGO, FIRST_ID)

    def send(self, jobs: Iterable[Job]) -> None:
        """Send these, which have just become pending, and of those that wait what there is room for."""
        if self._channel.prompt + self._channel.delayed > MOST:
            self.reopen()
        for job in jobs:
            if not self._is_behind(job):
                self._send(job)
        while self._prompt is not None and self._has_room(self._channel.prompt):
            page = self._database.prompt(after=self._prompt, limit=PAGE)
            self._prompt = page[-1].id if len(page) == PAGE else None
            for job in page:
                self._send(job)
        while self._delayed is not None and self._has_room(self._channel.delayed):
            page = self._database.delayed(after=self._delayed, limit=PAGE)
            self._delayed = _mark(page[-1]) if len(page) == PAGE else None
            for job in page:
                self._send(job)

    def _has_room(self, queued: int) -> bool:
        return queued < AGAIN and self._channel.is_open

    def _is_behind(self, job: Job) -> bool:
        if job.run_at is None:
            return self._prompt is not None and job.id > self._prompt
        return self._delayed is not None and _mark(job) > self._delayed

    def _send(self, job: Job) -> None:
        wait = None if job.run_at is None else (job.run_at - self._clock()).total_seconds()
        self._channel.send(Run(job.id), wait)


def _mark(job: Job) -> tuple[datetime, str]:
    return job.run_at or LONG_AGO, job.id
