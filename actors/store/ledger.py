"""The ledger: what each message does to the jobs, inside the open transaction of the database."""

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
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
from actors.store.admission import Admission
from actors.store.changes import Changes
from actors.store.database import Database
from actors.store.recovery import recovered
from actors.store.retention import Retention


class Ledger:
    """All jobs: as they are in the database, and what is known of the running ones besides.

    Nothing that it does is durable, or to be told to any asker, before `commit` has returned. Its methods
    raise sqlite3.Error if the database fails.
    """

    def __init__(  # noqa: PLR0913 - what it works with, and its four numbers
        self,
        database: Database,
        interrupts: Interrupts,
        handlers: Handlers,
        now: Callable[[], datetime],
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
        self._now = now
        self._admission = Admission(database, interrupts, capacity)
        self._retention = Retention(database, keep_finished)
        self._max_retries = max_retries
        self._at_most_once = at_most_once
        self._chance = chance
        self._last_id = database.last_id()
        #: The jobs that were claimed here and run: without payloads, but with their progress.
        self._running: dict[str, Job] = {}
        self._durable_running: dict[str, Job] = {}
        #: Bytes of their payloads.
        self._sizes: dict[str, int] = {}
        self.changes = Changes()

    @property
    def counts(self) -> dict[Status, int]:
        """How many jobs have each status."""
        return self._database.counts

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
        self._admission.admit()
        given = (message.max_retries, handler.options.max_retries, self._max_retries)
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
        self._admission.admit()
        before = self.get(job_id)
        after = lifecycle.retried(before)
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
        self._sizes[job_id] = len(job.raw_payload) if job.raw_payload else 0
        self._move(job, claimed, crashes=None)
        self._running[job_id] = replace(claimed, raw_payload=msgspec.UNSET)
        return claimed

    def _end(self, outcome: Outcome) -> None:
        """End an attempt. Raises IllegalMove if it is not the current one."""
        before = self._running.get(outcome.id) or self.get(outcome.id)
        self._move(before, self._after(before, outcome))
        self._running.pop(outcome.id, None)
        self._sizes.pop(outcome.id, None)

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
        if job_id in self._running:
            self._running[job_id] = replace(self._running[job_id], progress=value)

    def _with_progress(self, job: Job) -> Job:
        running = self._running.get(job.id)
        return job if running is None else replace(job, progress=running.progress)

    # What the wiring asks for.

    def _recover_crashed(self) -> int:
        found = recovered(self._database, self._running, self._now(), at_most_once=self._at_most_once)
        for before, after, crashes in found:
            self._move(before, after, crashes=crashes)
        return self.counts[Status.PENDING]

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
        return changes

    def rollback(self) -> None:
        """Forget all that was done since the last commit."""
        self.changes = Changes()
        self._running = self._durable_running.copy()
        self._database.rollback()

    def close(self, *, sound: bool) -> None:
        """Close the database; what was not committed is lost. `sound` tells whether it can be trusted."""
        self._database.close(sound=sound)

    def _move(self, before: Job, after: Job, crashes: int | None = 0) -> None:
        """Write the move, and see to what it leads to: another run, or the end."""
        self.changes.bytes += self._database.update(before, after, crashes=crashes)
        self.changes.bytes += self._sizes.get(before.id, 0)  # SQLite writes the whole row again.
        if after.status is Status.PENDING:
            self.changes.runnable.append(after)
        if after.status in FINISHED:
            self.changes.finished.append(after)
