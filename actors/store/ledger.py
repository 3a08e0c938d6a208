"""The ledger: what each message does to the jobs, inside the open transaction of the database."""

import random
from collections.abc import Callable
from typing import Any, Final

from actors import lifecycle
from actors.handlers import Handlers
from actors.interrupts import Interrupts
from actors.lifecycle import ALONE, Job, Status
from actors.messages import (
    Cancel,
    Claim,
    DeleteExpired,
    Drain,
    Get,
    ListJobs,
    Outcome,
    Progress,
    RecoverCrashed,
    Retry,
    Submit,
)
from actors.settings import Settings
from actors.store.admission import Admission
from actors.store.attempts import Attempts
from actors.store.changes import Changes
from actors.store.clock import Clock
from actors.store.database import Database
from actors.store.moves import Moves
from actors.store.recovery import recovered
from actors.store.retention import Retention
from actors.store.totals import DELAYED

#: How many ids a start may skip, in bits: those of about a second.
GAP_BITS: Final = 30


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
        clock: Clock,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._interrupts = interrupts
        self._handlers = handlers
        self._settings = settings
        self._at_most_once = settings.on_crash == "fail"
        self._admission = Admission(database.totals, interrupts, settings)
        self._retention = Retention(database, settings)
        self._moves = Moves(database, clock)
        self._attempts = Attempts(
            database, self._moves, handlers, interrupts, chance, at_most_once=self._at_most_once
        )
        self._runs = self._attempts.runs
        self._last_id = lifecycle.skipped(database.last_id(), random.getrandbits(GAP_BITS))

    @property
    def counts(self) -> dict[str, int]:
        """How many jobs have each status; pending ones that are delayed are counted apart, as "delayed"."""
        return self._database.totals.jobs

    @property
    def pending(self) -> int:
        """How many jobs are pending, delayed or not."""
        return self.counts[Status.PENDING] + self.counts[DELAYED]

    @property
    def changes(self) -> Changes:
        """What was done since the last commit."""
        return self._moves.changes

    @property
    def unhandled(self) -> frozenset[str]:
        """Types without a handler, of which jobs are pending."""
        return self._attempts.unhandled

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
                return self._attempts.claim(message)
            case Outcome():
                return self._attempts.end(message)
            case Submit():
                return self._submit(message)
            case Progress(id=job_id, value=value):
                return self._runs.note_progress(job_id, value)
            case Get(id=job_id):
                return self.get(job_id)
            case ListJobs():
                return [self._runs.with_progress(job) for job in self._database.page(message)]
            case Cancel(id=job_id):
                return self._cancel(job_id)
            case Retry(id=job_id):
                return self._retry(job_id)
            case RecoverCrashed():
                return self._recover_crashed()
            case DeleteExpired():
                return self._delete_expired()
            case Drain():
                return self._database.life.stop()
            case _:
                return NotImplemented

    # What a client asks for.

    def get(self, job_id: str) -> Job:
        """Return the job with payload and result. Raises JobNotFound."""
        return self._runs.with_progress(self._database.existing(job_id))

    def _submit(self, message: Submit) -> Job:
        handler = self._handlers.find(message.type)
        self._admission.admit(len(message.payload), is_delayed=message.delay > 0)
        given = (message.max_retries, handler.options.max_retries, self._settings.max_retries)
        now = self._moves.look()
        self._last_id = lifecycle.new_id(now, random.getrandbits(20), self._last_id)
        job = lifecycle.submitted(
            self._last_id,
            message.type,
            now,
            max_retries=next(retries for retries in given if retries is not None),
            delay=message.delay,
        )
        self._database.insert(job, message.payload)
        self._moves.changes.bytes += len(message.payload)
        self._moves.changes.runnable.append(job)
        return job

    def _cancel(self, job_id: str) -> Job:
        now = self._moves.look()
        before = self.get(job_id)
        after = lifecycle.cancelled(before, now)
        if before.status is Status.PROCESSING:
            self._database.mark_unwanted(job_id)
            self._moves.changes.cancelled.add(job_id)
            return before
        self._moves.write(before, after)
        self._attempts.forget(before)
        return after

    def _retry(self, job_id: str) -> Job:
        before = self.get(job_id)
        after = lifecycle.retried(before)
        self._admission.admit(before.payload_size)
        self._moves.write(before, after)
        return after

    # What the wiring asks for.

    def _recover_crashed(self) -> int:
        now, once = self._moves.look(), self._at_most_once
        found = recovered(self._database, self._runs, now, at_most_once=once)
        for before, payload, after, crashes in found:
            self._moves.write(before, after, payload=payload, crashes=crashes, interruptions=1)
            if crashes >= ALONE:
                self._attempts.suspicion.alone.append(before.id)
        self._database.life.begin()
        return self.pending

    def _delete_expired(self) -> bool:
        return self._retention.delete_expired(self._moves.look())

    # How it becomes durable, or is undone.

    def commit(self) -> Changes:
        """Make durable all that was done since the last commit, and return what follows from it."""
        if self._moves.changes.finished:
            self._retention.delete_old(len(self._moves.changes.finished))
        changes = self._moves.commit()
        self._runs.commit()
        for job_id in changes.cancelled:
            self._interrupts.cancel(job_id)
        for job in changes.finished:
            self._interrupts.forget(job.id)
        changes.runnable += self._attempts.suspicion.released(self._runs.crashes())
        changes.report()
        return changes

    def rollback(self) -> None:
        """Forget all that was done since the last commit."""
        self._runs.rollback()
        self._moves.rollback()

    def close(self) -> None:
        """Close the database; what was not committed is lost."""
        self._database.close()
