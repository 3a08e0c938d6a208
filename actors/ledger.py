"""The ledger: what each message does to the jobs, inside the open transaction of the database."""

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from actors import lifecycle, log
from actors.database import Database
from actors.errors import CapacityReached, Draining, InvalidJob, JobNotFound
from actors.handlers import Handlers
from actors.interrupts import Interrupts
from actors.lifecycle import FINISHED, Job, Status
from actors.messages import Complete, Fail, ListJobs, Outcome, Release, Submit

#: Finished jobs deleted per job that finishes: more than one, so that a lowered limit is reached in time.
DELETED_AT_ONCE: Final = 4


class Changes:
    """What was done since the last commit, as far as something follows from it."""

    def __init__(self) -> None:
        #: Those that have become pending, in this order, and those that have finished.
        self.runnable: list[Job] = []
        self.finished: list[Job] = []
        #: Bytes of payloads and results that were written, about.
        self.bytes = 0
        #: Whether the commit had anything to write.
        self.were_written = False


class Ledger:
    """All jobs: as they are in the database, and what is known of the running ones besides.

    Nothing that it does is durable, or to be told to anybody, before `commit` has returned. Its methods
    raise sqlite3.Error if the database fails.
    """

    def __init__(  # noqa: PLR0913 - what it works with, and its four numbers
        self,
        database: Database,
        interrupts: Interrupts,
        handlers: Handlers,
        clock: Callable[[], datetime],
        *,
        capacity: int = 10_000,
        keep_finished: int = 100_000,
        max_retries: int = 0,
        at_most_once: bool = False,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._interrupts = interrupts
        self._handlers = handlers
        self._capacity = capacity
        self._keep_finished = keep_finished
        self._max_retries = max_retries
        self._at_most_once = at_most_once
        self._chance = chance
        self._clock = clock
        self._log = log.logger("JobStore")
        self._last_id = database.last_id()
        #: The jobs that were claimed here and run, without payloads but with their progress.
        self._running: dict[str, Job] = {}
        self._durable_running: dict[str, Job] = {}
        #: Bytes of their payloads.
        self._sizes: dict[str, int] = {}
        self._admits = True
        #: Whether no job is handed out any more.
        self.is_draining = False
        self.changes = Changes()

    @property
    def counts(self) -> dict[Status, int]:
        """How many jobs have each status."""
        return self._database.counts

    # What a client asks for.

    def submit(self, message: Submit) -> Job:
        """Add the job, pending."""
        self._handlers.find(message.type)
        self._handlers.argument(message.type, message.payload)
        payload = _json(message.payload)
        self._admit()
        given = (message.max_retries, self._handlers.options(message.type).max_retries, self._max_retries)
        now = self._clock()
        self._last_id = lifecycle.new_id(now, random.getrandbits(20), self._last_id)
        job = lifecycle.submitted(
            self._last_id,
            message.type,
            now,
            max_retries=next(retries for retries in given if retries is not None),
            delay=message.delay,
        )
        self._database.insert(job, payload)
        self.changes.bytes += len(payload)
        self.changes.runnable.append(job)
        return job

    def get(self, job_id: str) -> Job:
        """Return the job. Raises JobNotFound."""
        job = self._database.get(job_id)
        if job is None:
            raise JobNotFound(f"there is no job {job_id}")
        return self._with_progress(job)

    def page(self, query: ListJobs) -> list[Job]:
        """Return the jobs that are asked for."""
        jobs = self._database.page(
            status=query.status,
            job_type=query.type,
            after=query.after,
            limit=query.limit,
            newest_first=query.order == "newest",
        )
        return [self._with_progress(job) for job in jobs]

    def cancel(self, job_id: str) -> Job:
        """Cancel a pending job, or have a running one interrupted."""
        before = self.get(job_id)
        after = lifecycle.cancelled(before, self._clock())
        if before.status is Status.PROCESSING:
            self._database.mark_unwanted(job_id)
            self._interrupts.cancel(job_id)
            return before
        self._move(before, after)
        return after

    def retry(self, job_id: str) -> Job:
        """Make a failed or cancelled job pending again."""
        self._admit()
        before = self.get(job_id)
        after = lifecycle.retried(before)
        self._move(before, after)
        return after

    # What a Worker does.

    def claim(self, job_id: str) -> Job | None:
        """Hand the job out, if it is pending and due."""
        job = None if self.is_draining else self._database.get(job_id)
        if job is None or job.status is not Status.PENDING:
            return None
        now = self._clock()
        if not lifecycle.is_due(job, now):  # As when the clock was set; the channel goes by one of its own.
            self.changes.runnable.append(job)
            return None
        claimed = lifecycle.claimed(job, now)
        self._sizes[job_id] = len(msgspec.json.encode(job.payload))
        self._move(job, claimed, crashes=None)
        self._running[job_id] = replace(claimed, payload=msgspec.UNSET)
        return claimed

    def end(self, outcome: Outcome) -> None:
        """End an attempt. Raises IllegalMove if it is not the current one."""
        before = self._running.get(outcome.id) or self.get(outcome.id)
        after = self._after(before, outcome)
        self._move(before, after)
        del self._running[after.id]
        self._sizes.pop(after.id, None)

    def note_progress(self, job_id: str, value: float) -> None:
        """Remember how far the job is, if it still runs."""
        if job_id in self._running:
            self._running[job_id] = replace(self._running[job_id], progress=value)

    # What the wiring asks for.

    def recover(self) -> None:
        """Make the jobs pending again, or failed, that were running when an earlier process crashed."""
        now = self._clock()
        for job, crashes, is_unwanted in self._database.interrupted():
            if job.id in self._running:
                continue
            if is_unwanted:
                recovered = lifecycle.cancelled(job, now)
            else:
                recovered = lifecycle.recovered(job, crashes + 1, now, at_most_once=self._at_most_once)
            self._move(job, recovered, crashes=crashes + 1)
            self._log.warning("job was running at a crash", job=job.id, status=recovered.status)

    def drain(self, *, admits: bool) -> None:
        """Hand no job out any more, and take new ones only if somebody else will run them."""
        self.is_draining = True
        self._admits = admits

    # How it becomes durable, or is undone.

    def commit(self) -> Changes:
        """Make durable all that was done since the last commit, and return what follows from it."""
        self.changes.were_written = self._database.commit()
        changes, self.changes = self.changes, Changes()
        self._durable_running = self._running.copy()
        for job in changes.finished:
            self._interrupts.forget(job.id)
        return changes

    def rollback(self) -> None:
        """Forget all that was done since the last commit."""
        self.changes = Changes()
        self._running = self._durable_running.copy()
        self._database.rollback()

    def close(self) -> None:
        """Close the database; what was not committed is lost."""
        self._database.close()

    # How a move is made.

    def _admit(self) -> None:
        if not self._admits:
            raise Draining("the service is stopping and takes no new job; send it to the next one")
        if self.counts[Status.PENDING] >= self._capacity:
            raise CapacityReached(
                f"{self._capacity} jobs are pending, which is the capacity; try again later"
            )

    def _after(self, job: Job, outcome: Outcome) -> Job:
        """Return the job as the outcome leaves it."""
        now, attempt = self._clock(), outcome.attempt
        match outcome:
            case Complete(result=result):
                return lifecycle.completed(job, attempt, result, now)
            case Fail(error=error) if not self._interrupts.is_cancelled(job.id):
                if not lifecycle.has_retries_left(job):
                    return lifecycle.failed(job, attempt, error, now)
                first = self._handlers.options(job.type).backoff
                wait = lifecycle.backoff(attempt, first, self._chance())
                return lifecycle.backed_off(job, attempt, error, now, wait)
            case Release() if not self._interrupts.is_cancelled(job.id):
                return lifecycle.released(job, attempt)
            case _:
                return lifecycle.stopped(job, attempt, now)

    def _move(self, before: Job, after: Job, crashes: int | None = 0) -> None:
        """Write the move, and see to what it leads to: another run, or the end."""
        self.changes.bytes += self._database.update(before, after, crashes=crashes)
        self.changes.bytes += self._sizes.get(before.id, 0)  # SQLite writes the whole row anew.
        if after.status is Status.PENDING:
            self.changes.runnable.append(after)
        if after.status in FINISHED:
            self.changes.finished.append(after)
            self._delete_old()

    def _delete_old(self) -> None:
        finished = sum(self.counts[status] for status in FINISHED)
        if self._keep_finished and finished > self._keep_finished:
            self._database.delete_oldest_finished(min(finished - self._keep_finished, DELETED_AT_ONCE))

    def _with_progress(self, job: Job) -> Job:
        running = self._running.get(job.id)
        return job if running is None else replace(job, progress=running.progress)


def _json(payload: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJob(f"`payload` is not JSON: {error}") from None
