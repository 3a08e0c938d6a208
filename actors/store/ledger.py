"""The ledger: what each message does to the jobs, inside the open transaction of the database."""

import random
from collections.abc import Callable
from typing import Any

from actors.handlers import Handlers
from actors.interrupts import Interrupts
from actors.lifecycle import ALONE, Job, Status
from actors.messages import (
    Begin,
    Cancel,
    DeleteExpired,
    Drain,
    Get,
    ListJobs,
    ListTypes,
    Outcome,
    Progress,
    RecoverCrashed,
    Retry,
    Submit,
)
from actors.messaging import Channel
from actors.requests import CancelMany, RetryMany, SubmitAll, SubmitOnce
from actors.settings import Settings
from actors.store.admission import Admission
from actors.store.attempts import Attempts
from actors.store.backlog import Backlog
from actors.store.census import Census
from actors.store.changes import Changes
from actors.store.clock import Clock
from actors.store.database import Database
from actors.store.interventions import Interventions
from actors.store.journal import Journal
from actors.store.moves import Moves
from actors.store.recovery import recovered
from actors.store.reservations import Reservations
from actors.store.retention import Retention
from actors.store.submissions import Submissions
from actors.store.totals import DELAYED


class Ledger:
    """All jobs: as they are in the database, and what is known of the running ones besides.

    Nothing that it does is durable, or to be told to any asker, before `commit` has returned. Its methods
    raise sqlite3.Error if the database fails.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with
        self,
        database: Database,
        interrupts: Interrupts,
        channel: Channel,
        handlers: Handlers,
        settings: Settings,
        clock: Clock,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._interrupts = interrupts
        self._settings = settings
        self._at_most_once = settings.on_crash == "fail"
        admission = Admission(database.totals, interrupts, settings)
        self._moves = Moves(database, clock)
        self._retention = Retention(database.totals, self._moves, settings)
        self._reservations = Reservations(database, self._moves, handlers, interrupts, channel, settings)
        self._attempts = Attempts(
            database, self._moves, handlers, interrupts, self._reservations, settings, chance
        )
        self._runs = self._reservations.runs
        self._submissions = Submissions(database, self._moves, self._runs, handlers, admission, settings)
        self._interventions = Interventions(
            database, self._moves, self._reservations, self._attempts, admission
        )
        self._journal = Journal()
        self.census = Census(database.count_types(), handlers)

    @property
    def counts(self) -> dict[str, int]:
        """How many jobs have each status; pending ones that are delayed are counted apart, as "delayed"."""
        return self._database.totals.jobs

    @property
    def pending(self) -> int:
        """How many jobs are pending, delayed or not."""
        return self.counts[Status.PENDING] + self.counts[DELAYED]

    @property
    def reserved(self) -> Job | None:
        """The first of the reserved jobs."""
        run = next(iter(self._runs.reserved.values()), None)
        return None if run is None else run.job

    @property
    def seconds_ahead(self) -> float:
        """For about how long the Workers have jobs to go on with."""
        return self._reservations.seconds_ahead

    @property
    def changes(self) -> Changes:
        """What was done since the last commit."""
        return self._moves.changes

    @property
    def unhandled(self) -> frozenset[str]:
        """Types without a handler, of which jobs are pending."""
        return self._reservations.unhandled

    @property
    def expires(self) -> bool:
        """Whether finished jobs are deleted when they are too old."""
        return self._settings.keep_seconds > 0

    def handle(self, message: Any) -> Any:
        """Do what the message says and return its answer; NotImplemented for one that is not about jobs."""
        match message:
            case Begin():
                return self._attempts.note(message)
            case Outcome():
                return self._attempts.end(message)
            case Submit():
                return self._submissions.submit(message)
            case SubmitAll():
                return self._submissions.submit_all(message)
            case SubmitOnce():
                return self._submissions.submit_once(message)
            case Progress(id=job_id, value=value):
                return self._runs.note_progress(job_id, value)
            case Get(id=job_id, is_whole=False):
                return self._runs.with_progress(self._database.summary(job_id))
            case Get(id=job_id):
                return self.get(job_id)
            case ListJobs():
                return [self._runs.with_progress(job) for job in self._database.page(message)]
            case ListTypes():
                return self.census.page(message, self._database.oldest_pending, self._moves.look_again())
            case Cancel(id=job_id):
                self._see_that_none_is_behind()
                return self._interventions.cancel(job_id)
            case CancelMany():
                self._see_that_none_is_behind()
                return self._interventions.cancel_many(message)
            case Retry(id=job_id):
                return self._interventions.retry(job_id)
            case RetryMany():
                return self._interventions.retry_many(message)
            case RecoverCrashed():
                return self._recover_crashed()
            case DeleteExpired():
                return self._retention.delete_expired(self._moves.look())
            case Drain():
                self._reservations.take_all_back()
                return self._database.life.stop()
            case _:
                return NotImplemented

    @property
    def _is_behind(self) -> bool:
        """Whether jobs that the process before had reserved are still to be recovered."""
        return bool(self._database.life.reserved) and not self.changes.is_recovered

    def get(self, job_id: str) -> Job:
        """Return the job with payload and result. Raises JobNotFound."""
        return self._runs.with_progress(self._database.existing(job_id)[0])

    def _see_that_none_is_behind(self) -> None:
        if self._is_behind:  # A job that is to be cancelled may have begun in the process before.
            self._recover_crashed()

    def _recover_crashed(self) -> int:
        if self.changes.is_recovered:  # In this very commit, for a cancel.
            return self.pending
        now, once = self._moves.look(), self._at_most_once
        found = recovered(self._database, self._runs, now, at_most_once=once)
        for before, payload, after, past, reason in found:
            self._moves.write(before, after, past, payload=payload, cause=reason)
            if past.crashes >= ALONE:
                self._reservations.suspicion.alone.append(before.id)
        self._moves.changes.is_recovered = True
        self._database.life.begin()
        return self.pending

    # How it becomes durable, or is undone.

    def reserve(self, backlog: Backlog) -> None:
        """Reserve what is next in the backlog, and so send it to the Workers after the commit."""
        if self._interrupts.is_draining or self._is_behind:
            return
        self._moves.look()
        backlog.set_back(self.changes.back)  # Before pages are read, as all that waits was moved.
        self._reservations.reserve(backlog)

    def commit(self) -> Changes:
        """Make durable all that was done since the last commit, and return what follows from it."""
        if self._moves.changes.finished:
            self._retention.delete_old(len(self._moves.changes.finished))
        if self._runs.has_changed or self.changes.is_recovered:
            self._database.life.reserve(self._reserved())
        changes = self._moves.commit()
        if changes.is_recovered:
            self._database.life.reserved = {}
        self._reservations.commit()
        for job_id in changes.cancelled:
            self._interrupts.cancel(job_id)
        for job in changes.finished:
            self._interrupts.forget(job.id)
        self._journal.report(changes)
        self.census.note(changes)
        return changes

    def _reserved(self) -> dict[str, bool]:
        """Return what the next process has to know of; also from the last one, until that is recovered."""
        earlier = {} if self.changes.is_recovered else self._database.life.reserved
        return earlier | {job_id: run.is_certain for job_id, run in self._runs.reserved.items()}

    def rollback(self) -> None:
        """Forget all that was done since the last commit."""
        self._reservations.rollback()
        self._moves.rollback()

    def close(self) -> None:
        """Close the database; what was not committed is lost."""
        self._database.close()
