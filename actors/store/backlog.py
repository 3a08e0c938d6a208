"""The backlog: the line of pending jobs, of which the next is reserved when the channel has room.

Why no pending job is forgotten: all that is pending is reserved, in the line, on its way there (the delayed
ones, which the JobStore's mailbox times), or past a mark in the database. A job that becomes pending is added
to the line, unless it is past a mark: then a later page holds it. A page is read when the line runs low, and
the mark moves only after the page was read. What was added and taken in a commit that fails is undone with
it. A job that is in the line twice does no harm, as it is reserved only once. After a crash the marks start
at the beginning.
"""

from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from actors.lifecycle import FIRST_ID, Job
from actors.messages import Due
from actors.messaging import Channel
from actors.store.changes import Changes
from actors.store.database import Database

#: Jobs read in one page, and how few of a kind are left in the line when the next page is read.
PAGE: Final = 1000
AGAIN: Final = 200
#: Jobs in the line, of which some may have been cancelled, at which it is emptied and read again.
MOST: Final = 20_000
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: Jobs past a mark are still only in the database; None means that none is. The immediate ones follow one
#: another by id, those with a `run_at` by that.
Marks = tuple[str | None, tuple[datetime, str] | None]
START: Final[Marks] = FIRST_ID, (LONG_AGO, FIRST_ID)


class Backlog:
    """The line in memory: each job as it becomes pending, but of very many only a page at a time."""

    def __init__(self, database: Database, delayed: Channel, now: Callable[[], datetime]) -> None:
        """Have `delayed` hand a Due to the JobStore when one is."""
        self._database = database
        self._waiting = delayed
        self._now = now
        self._line: deque[Due] = deque()
        self._immediate, self._delayed = self._durable = START
        #: Since the last commit: what was taken from the front, and how many were added at the end.
        self._taken: list[Due] = []
        self._added = 0
        #: By how many seconds the mark was moved since then.
        self._back = 0.0
        #: How many of the line are delayed ones that have become due.
        self._late = 0

    def first(self) -> Due | None:
        """Return the first in the line, if there is one. Raises sqlite3.Error."""
        if not self._line:  # All that was in it may have been cancelled, and no commit has to follow.
            self.refill()
        return self._line[0] if self._line else None

    def look(self) -> Due | None:
        """Return the first of what is in memory of the line."""
        return self._line[0] if self._line else None

    def take(self) -> None:
        """Take the first out of the line."""
        due = self._line.popleft()
        self._taken.append(due)
        self._late -= due.run_at is not None

    def put_back(self) -> None:
        """Put back what was just taken."""
        self._put_first(self._taken.pop())

    def put(self, due: Due) -> None:
        """Add a job that is due now; no rollback undoes that, so it comes before what one would."""
        self._line.insert(len(self._line) - self._added, due)
        self._late += due.run_at is not None

    def add(self, jobs: Iterable[Job]) -> None:
        """Add those that have just become pending; the delayed ones follow with the commit."""
        if len(self._line) + self._waiting.delayed > MOST:
            self._start_again()
        for job in jobs:
            if job.run_at is None and not self._is_past_a_mark(job):
                self._append(Due(job.id, job.type))

    def refill(self) -> None:
        """Refill the line from the database, if it runs low. Raises sqlite3.Error."""
        while self._immediate is not None and len(self._line) < AGAIN:
            page = self._database.immediate(after=self._immediate, limit=PAGE)
            self._immediate = page[-1].id if len(page) == PAGE else None
            for due in page:
                self._append(due)
        while self._delayed is not None and self._waiting.delayed + self._late < AGAIN:
            page = self._database.delayed(after=self._delayed, limit=PAGE)
            self._delayed = _mark(page[-1]) if len(page) == PAGE else None
            for due in page:
                self._wait_for(due)

    def set_back(self, seconds: float) -> None:
        """Move the mark with all that waits, by as much as the wall clock was set back since the last commit.

        May be repeated.
        """
        if seconds > self._back and self._delayed is not None:
            run_at, job_id = self._delayed
            self._delayed = max(run_at - timedelta(seconds=seconds - self._back), LONG_AGO), job_id
        self._back = seconds

    def commit(self, changes: Changes) -> None:
        """Note that all is durable; time the delayed ones of the jobs that have become pending."""
        self._taken.clear()
        self._added = 0
        self.set_back(changes.back)
        self._back = 0.0
        self._durable = self._immediate, self._delayed
        for job in changes.runnable:
            if job.run_at is not None and not self._is_past_a_mark(job):
                self._wait_for(Due(job.id, job.type, job.run_at))

    def rollback(self) -> None:
        """Undo all since the last commit, but what was put."""
        while self._taken:
            self._put_first(self._taken.pop())
        for _ in range(self._added):
            self._line.pop()
        self._added, self._back = 0, 0.0
        self._immediate, self._delayed = self._durable

    def _start_again(self) -> None:
        self._line.clear()
        self._late = 0
        self._waiting.withdraw(lambda message: isinstance(message, Due))
        self._immediate, self._delayed = self._durable = START

    def _is_past_a_mark(self, job: Job) -> bool:
        if job.run_at is None:
            return self._immediate is not None and job.id > self._immediate
        return self._delayed is not None and _mark(job) > self._delayed

    def _put_first(self, due: Due) -> None:
        self._line.appendleft(due)
        self._late += due.run_at is not None

    def _append(self, due: Due) -> None:
        self._line.append(due)
        self._added += 1

    def _wait_for(self, due: Due) -> None:
        assert due.run_at is not None
        wait = (due.run_at - self._now()).total_seconds()
        self._waiting.send(due, wait, due.run_at.timestamp())


def _mark(job: Job | Due) -> tuple[datetime, str]:
    return job.run_at or LONG_AGO, job.id
