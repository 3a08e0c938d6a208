"""Submissions: how jobs are added, one or many, and under a key only once."""

import random
from datetime import datetime
from typing import Final

from actors import lifecycle
from actors.errors import InvalidJob, JobDeleted
from actors.handlers import Handler, Handlers
from actors.lifecycle import Job
from actors.messages import Submit
from actors.requests import SubmitAll, SubmitOnce, Submitted, digest
from actors.settings import Settings
from actors.store.admission import Admission
from actors.store.database import Database
from actors.store.keys import Entry
from actors.store.moves import Moves
from actors.store.runs import Runs

#: How many ids a start may skip, in bits: those of about a second.
GAP_BITS: Final = 30


class Submissions:
    """Adds jobs in the open transaction. Its methods raise sqlite3.Error.

    Whatever refuses a message does so before anything of it is added.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with
        self,
        database: Database,
        moves: Moves,
        runs: Runs,
        handlers: Handlers,
        admission: Admission,
        settings: Settings,
    ) -> None:
        self._database = database
        self._moves = moves
        self._runs = runs
        self._handlers = handlers
        self._admission = admission
        self._settings = settings
        self._last_id = lifecycle.skipped(database.last_id(), random.getrandbits(GAP_BITS))

    def submit(self, message: Submit) -> Job:
        """Add a job. Raises InvalidJob, CapacityReached or Draining."""
        handler = self._handlers.find(message.type)
        size, is_delayed = len(message.payload), message.delay > 0
        self._admission.admit(1, size, delayed=is_delayed, delayed_size=size * is_delayed)
        now = self._moves.look_again() if is_delayed else self._moves.look()
        return self._add(message, handler, lifecycle.new_id(now, random.getrandbits(20), self._last_id), now)

    def submit_all(self, message: SubmitAll) -> list[Job]:
        """Add all of these jobs, under consecutive ids. Raises the same, and then none was added."""
        handlers = [self._handler(place, job) for place, job in enumerate(message.jobs)]
        delayed = [len(job.payload) for job in message.jobs if job.delay > 0]
        size = sum([len(job.payload) for job in message.jobs])
        self._admission.admit(len(message.jobs), size, delayed=len(delayed), delayed_size=sum(delayed))
        now = self._moves.look_again() if delayed else self._moves.look()
        first = int(lifecycle.new_id(now, random.getrandbits(20), self._last_id), 16)
        return [
            self._add(job, handler, f"{number:016x}", now)
            for number, (job, handler) in enumerate(zip(message.jobs, handlers, strict=True), first)
        ]

    def submit_once(self, message: SubmitOnce) -> Submitted:
        """Do what the message says, or find what it has done. Raises the same, KeyReused or JobDeleted."""
        key, submit = digest(message.key.encode()), message.submit
        if entry := self._database.keys.find(key, message.body):
            found = self._stored(entry)
            return Submitted(found if isinstance(submit, SubmitAll) else found[0], is_replayed=True)
        if message.refusal is not None:
            raise message.refusal
        jobs = [self.submit(submit)] if isinstance(submit, Submit) else self.submit_all(submit)
        self._database.keys.add(key, Entry(message.body, int(jobs[0].id, 16), len(jobs)))
        return Submitted(jobs if isinstance(submit, SubmitAll) else jobs[0], is_replayed=False)

    def _add(self, message: Submit, handler: Handler, job_id: str, now: datetime) -> Job:
        given = (message.max_retries, handler.options.max_retries, self._settings.max_retries)
        job = lifecycle.submitted(
            job_id,
            message.type,
            now,
            max_retries=next(retries for retries in given if retries is not None),
            delay=message.delay,
        )
        self._last_id = job_id
        self._moves.submit(job, message.payload)
        return job

    def _handler(self, place: int, job: Submit) -> Handler:
        try:
            return self._handlers.find(job.type)
        except InvalidJob as error:
            raise error.at(place) from None

    def _stored(self, entry: Entry) -> list[Job]:
        """Return the jobs that a key stands for, as they are now."""
        jobs = [self._runs.with_progress(job) for job in self._database.span(entry.first, entry.jobs)]
        if not jobs:
            one = f"job {entry.first:016x}" if entry.jobs == 1 else f"all {entry.jobs} jobs"
            raise JobDeleted(f"{one} of this idempotency key finished long ago and were deleted")
        if len(jobs) < entry.jobs:
            gone = entry.jobs - len(jobs)
            raise JobDeleted(
                f"{gone} of the {entry.jobs} jobs of this idempotency key finished long ago and were deleted;"
                f" the others are from {jobs[0].id} to {jobs[-1].id}"
            )
        return jobs
