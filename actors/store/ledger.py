"""The ledger: what each message does to the jobs, inside the open transaction of the database."""

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import UNSET
from msgspec.structs import replace

from actors import lifecycle
from actors.errors import JobNotFound
from actors.handlers import Handlers
from actors.interrupts import Interrupts
from actors.lifecycle import FINISHED, Job, Status
from actors.messages import (
    Cancel,
    Claim,
    Complete,
    DeleteExpired,
    Fail,
    Get,
    ListJobs,
    Outcome,
    Progress,
    RecoverCrashed,
    Release,
    Retry,
    Submit,
)
from actors.settings import Settings
from actors.store.admission import Admission
from actors.store.changes import Changes
from actors.store.database import Database
from actors.store.recovery import recovered
from actors.store.retention import Retention
from actors.store.totals import DELAYED


class Running(NamedTuple):
    """A job that runs: without its payload, of which the bytes are known, but with its progress."""

    job: Job
    payload: int


class Ledger:
    """All jobs: as they are in the database, and what is known of the running ones besides.

    Nothing that it does is durable, or to be told to any asker, before `commit` has returned. Its methods
    raise sqlite3.Error if the database fails.
    """

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        database: Database,
        interrupts: Interrupts,
        handlers: Handlers,
        settings: Settings,
        now: Callable[[], datetime],
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._interrupts = interrupts
        self._handlers = handlers
        self._now = now
        self._settings = settings
        self._admission = Admission(database.totals, interrupts, settings)
        self._retention = Retention(database, settings)
        self._chance = chance
        self._last_id = database.last_id()
        #: The jobs that were claimed here and run.
        self._running: dict[str, Running] = {}
        self._durable_running: dict[str, Running] = {}
        self.changes = Changes()

    @property
    def counts(self) -> dict[str, int]:
        """How many jobs have each status; pending ones that are delayed are counted apart, as "delayed"."""
        return self._database.totals.jobs

    @property
    def pending(self) -> int:
        """How many jobs are pending, delayed or not."""
        return self.counts[Status.PENDING] + self.counts[DELAYED]

    @property
    def expires(self) -> bool:
        """Whether finished jobs are deleted when they are too old."""
        return self._settings.keep_seconds > 0

    @property
    def is_draining(self) -> bool:
        """Whether jobs are no longer handed out."""
        return self._interrupts.is_draining

    def handle(self, message: Any) -> Any:
        """Do what the message says and return its answer; NotImplemented for one that is not about jobs."""
        match message:
            case Claim():
                return self._claim(message)
            case Outcome():
                return self._end(message)
            case Submit():
                return self._submit(message)
            case Progress(id=job_id, value=value):
                return self._note_progress(job_id, value)
            case Get(id=job_id):
                return self.get(job_id)
            case ListJobs():
                return [self._with_progress(job) for job in self._database.page(message)]
            case Cancel(id=job_id):
                return self._cancel(job_id)
            case Retry(id=job_id):
                return self._retry(job_id)
            case RecoverCrashed():
                return self._recover_crashed()
            case DeleteExpired():
                return self._delete_expired()
            case _:
                return NotImplemented

    # What a client asks for.

    def get(self, job_id: str) -> Job:
        """Return the job with payload and result. Raises JobNotFound."""
        job = self._database.get(job_id)
        if job is None:
            raise JobNotFound(f"there is no job {job_id}")
        return self._with_progress(job)

    def _submit(self, message: Submit) -> Job:
        handler = self._handlers.find(message.type)
        self._admission.admit(len(message.payload), is_delayed=message.delay > 0)
        given = (message.max_retries, handler.options.max_retries, self._settings.max_retries)
        now = self._now()
        self._last_id = lifecycle.new_id(now, random.getrandbits(20), self._last_id)
        job = lifecycle.submitted(
            self._last_id,
            message.type,
            now,
            max_retries=next(retries for retries in given if retries is not None),
            delay=message.delay,
        )
        self._database.insert(job, message.payload)
        self.changes.bytes += len(message.payload)
        self.changes.runnable.append(job)
        return job

    def _cancel(self, job_id: str) -> Job:
        before = self.get(job_id)
        after = lifecycle.cancelled(before, self._now())
        if before.status is Status.PROCESSING:
            self._database.mark_unwanted(job_id)
            self.changes.cancelled.add(job_id)
            return before
        self._move(before, after)
        return after

    def _retry(self, job_id: str) -> Job:
        before = self.get(job_id)
        after = lifecycle.retried(before)
        self._admission.admit(before.payload_size)
        self._move(before, after)
        return after

    # What a Worker does.

    def _claim(self, claim: Claim) -> Job | None:
        """Hand the job out, if it is pending and due."""
        job_id = claim.id
        job = None if self.is_draining else self._database.get(job_id)
        if job is None or job.status is not Status.PENDING:
            return None
        now = self._now()
        # Due by the channel's monotonic clock, or by the wall clock. If neither, the channel has waited for
        # an earlier `run_at` of the job, as from before a cancel and a retry; its own wait is still to end.
        if job.run_at != claim.run_at and not lifecycle.is_due(job, now):
            return None
        claimed = lifecycle.claimed(job, now)
        self._move(job, claimed, crashes=None)
        self._running[job_id] = Running(replace(claimed, raw_payload=UNSET), job.payload_size)
        return claimed

    def _end(self, outcome: Outcome) -> None:
        """End an attempt. Raises IllegalMove if it is not the current one."""
        running = self._running.get(outcome.id)
        if running is None:
            before = self.get(outcome.id)
            running = Running(before, before.payload_size)
        after = self._after(running.job, outcome)
        self._move(running.job, after, payload=running.payload)
        if isinstance(outcome, Fail) and after.status is Status.PENDING:
            self.changes.backed_off.append(after)
        self._running.pop(outcome.id, None)

    def _after(self, job: Job, outcome: Outcome) -> Job:
        """Return the job as the outcome leaves it."""
        now, attempt = self._now(), outcome.attempt
        is_cancelled = job.id in self.changes.cancelled or self._interrupts.is_cancelled(job.id)
        match outcome:
            case Complete(result=result):
                return lifecycle.completed(job, attempt, result, now)
            case Fail(error=error) if not is_cancelled:
                if not lifecycle.has_retries_left(job):
                    return lifecycle.failed(job, attempt, error, now)
                first = self._handlers.options(job.type).backoff
                wait = lifecycle.backoff(attempt, first, self._chance())
                return lifecycle.backed_off(job, attempt, error, now, wait)
            case Release() if not is_cancelled:
                return lifecycle.released(job, attempt)
            case _:
                return lifecycle.cancelled_while_running(job, attempt, now)

    def _note_progress(self, job_id: str, value: float) -> None:
        if running := self._running.get(job_id):
            self._running[job_id] = Running(replace(running.job, progress=value), running.payload)

    def _with_progress(self, job: Job) -> Job:
        running = self._running.get(job.id)
        return job if running is None else replace(job, progress=running.job.progress)

    # What the wiring asks for.

    def _recover_crashed(self) -> int:
        at_most_once = self._settings.on_crash == "fail"
        found = recovered(self._database, self._running, self._now(), at_most_once=at_most_once)
        for before, payload, after, crashes in found:
            self._move(before, after, payload=payload, crashes=crashes)
        return self.pending

    def _delete_expired(self) -> bool:
        return self._retention.delete_expired(self._now())

    # How it becomes durable, or is undone.

    def commit(self) -> Changes:
        """Make durable all that was done since the last commit, and return what follows from it."""
        if self.changes.finished:
            self._retention.delete_old(len(self.changes.finished))
        self.changes.wrote = self._database.commit()
        changes, self.changes = self.changes, Changes()
        self._durable_running = self._running.copy()
        for job_id in changes.cancelled:
            self._interrupts.cancel(job_id)
        for job in changes.finished:
            self._interrupts.forget(job.id)
        changes.report()
        return changes

    def rollback(self) -> None:
        """Forget all that was done since the last commit."""
        self.changes = Changes()
        self._running = self._durable_running.copy()
        self._database.rollback()

    def close(self) -> None:
        """Close the database; what was not committed is lost."""
        self._database.close()

    def _move(self, before: Job, after: Job, *, payload: int | None = None, crashes: int | None = 0) -> None:
        """Write the move, and see to what it leads to: another run, or the end.

        `payload` is the bytes of the job's payload, if `before` does not carry it.
        """
        # SQLite writes the whole row again.
        self.changes.bytes += self._database.update(before, after, payload=payload, crashes=crashes)
        if after.status is Status.PENDING:
            self.changes.runnable.append(after)
        if after.status in FINISHED:
            self.changes.finished.append(after)
