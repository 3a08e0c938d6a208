"""The JobStore: the one place where jobs are kept and every status changes."""

import itertools
import random
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from actors import lifecycle, log
from actors.actor import Actor
from actors.database import Database
from actors.errors import (
    CapacityReached,
    Draining,
    GoferError,
    InvalidJob,
    JobNotFound,
    StorageFailed,
)
from actors.handlers import Handlers
from actors.interrupts import Interrupts
from actors.lifecycle import FINISHED, Job, Status
from actors.mailbox import Channel
from actors.messages import (
    Await,
    Cancel,
    Cancelled,
    Claim,
    Complete,
    Drain,
    Fail,
    Get,
    ListJobs,
    Outcome,
    Progress,
    Recover,
    Release,
    Retry,
    Run,
    Submit,
)
from actors.reply import Held, wake

#: Messages per commit at the most: enough to share an fsync, few enough that nobody waits for long.
BATCH: Final = 256
#: Seconds that a batch waits for company when the last one held several submits. A lone client never waits;
#: many get larger batches, and the threads hand the GIL over less often.
LINGER: Final = 0.001
#: Seconds after which an outcome that could not be stored is tried again.
STORAGE_RETRY: Final = 0.5
#: Finished jobs deleted per job that finishes: more than one, so that a lowered limit is reached in time.
DELETED_AT_ONCE: Final = 4


class Batch:
    """What happens only once the open transaction is durable."""

    def __init__(self) -> None:
        self.answers: list[tuple[Held, Any, Exception | None]] = []
        self.finished: list[Job] = []
        self.runnable: list[Job] = []
        self.outcomes: list[Outcome] = []
        self.has_lingered = False

    def give_answers(self) -> None:
        """Answer everyone, and only then wake those who wait on an event loop, all at once."""
        woken = [held.settle(answer, refusal) for held, answer, refusal in self.answers]
        wake(itertools.chain.from_iterable(woken))


class JobStore(Actor):
    """Owns the database, and answers only what is durable.

    Messages are handled inside an open transaction. When the mailbox is empty, or the batch full, it is
    committed once, and only then are the answers given and the runnable jobs sent to the channel.
    """

    def __init__(  # noqa: PLR0913 - what it works with, and its four numbers
        self,
        database: Database,
        channel: Channel,
        interrupts: Interrupts,
        handlers: Handlers,
        *,
        capacity: int = 10_000,
        keep_finished: int = 100_000,
        max_retries: int = 0,
        chance: Callable[[], float] = random.random,
        ended: Callable[[], None] = lambda: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__()
        self._database = database
        self._channel = channel
        self._interrupts = interrupts
        self._handlers = handlers
        self._capacity = capacity
        self._keep_finished = keep_finished
        self._max_retries = max_retries
        self._chance = chance
        self._ended = ended
        self._clock = clock
        self._log = log.logger("JobStore")
        self._last_id = database.last_id()
        self._counts = {status: database.count(status) for status in Status}
        self._durable_counts = self._counts.copy()
        self._batch = Batch()
        self._waiting: dict[str, list[Held]] = {}
        #: The jobs that are processing, without payloads: with their progress, which is not stored.
        self._running: dict[str, Job] = {}
        self._is_busy = False
        self._is_draining = False

    def on_receive(self, message: Any) -> Any:
        """Handle the message, hold its answer, and commit if nothing more is there to share the commit."""
        held = Held()
        if isinstance(message, Outcome):
            self._batch.outcomes.append(message)
        try:
            answer = self._handle(message)
        except GoferError as refusal:
            self._batch.answers.append((held, None, refusal))
            if isinstance(message, Outcome):
                self._log.warning("outcome dropped", job=message.id, reason=str(refusal))
        except Exception as error:  # noqa: BLE001 - what was written is unknown: all of the batch goes
            self._batch.answers.append((held, None, None))
            self._roll_back(error)
        else:
            if isinstance(answer, Held):
                held = answer
            else:
                self._batch.answers.append((held, answer, None))
        if len(self._batch.answers) >= BATCH or not self._has_company():
            self._commit()
        return held

    def on_stop(self) -> None:
        """Commit, answer everyone and close."""
        self._commit()
        self._answer_waiting()
        self._database.close()
        self._log.info("job store stopped", **self._counts)
        self._ended()

    def on_failure(self, *_exc_info: object) -> None:
        """Leave nobody without an answer."""
        try:
            self._roll_back(StorageFailed("the JobStore has failed"))
            self._database.close()
        finally:
            self._ended()

    # What each message does.

    def _handle(self, message: Any) -> Any:
        match message:
            case Submit():
                return self._submit(message)
            case Claim(id=job_id):
                return self._claim(job_id)
            case Complete() | Fail() | Release() | Cancelled():
                return self._end(message)
            case Progress(id=job_id, value=value):
                return self._note_progress(job_id, value)
            case Get(id=job_id):
                return self._read(job_id)
            case ListJobs():
                return self._list(message)
            case Cancel(id=job_id):
                return self._cancel(job_id)
            case Retry(id=job_id):
                return self._retry(job_id)
            case Await(id=job_id):
                return self._await(job_id)
            case Recover():
                return self._recover()
            case Drain():
                return self._drain()
            case _:
                return super().on_receive(message)

    def _submit(self, message: Submit) -> Job:
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
        self._counts[job.status] += 1
        self._batch.runnable.append(job)
        return job

    def _admit(self) -> None:
        if self._is_draining:
            raise Draining("the service is stopping and takes no new job; send it to the next one")
        if self._counts[Status.PENDING] >= self._capacity:
            raise CapacityReached(
                f"{self._capacity} jobs are pending, which is the capacity; try again later"
            )

    def _claim(self, job_id: str) -> Job | None:
        job = None if self._is_draining else self._database.get(job_id)
        if job is None or job.status is not Status.PENDING:
            return None
        claimed = lifecycle.claimed(job, self._clock())
        self._move(job, claimed)
        self._running[job_id] = replace(claimed, payload=msgspec.UNSET)
        return claimed

    def _end(self, outcome: Outcome) -> None:
        before = self._find(outcome.id)
        after = self._after(before, outcome)
        self._move(before, after)
        del self._running[after.id]
        self._settle(after)

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

    def _settle(self, job: Job) -> None:
        """See to what a move leads to: another run, or the end."""
        if job.status is Status.PENDING:
            self._batch.runnable.append(job)
        if job.status in FINISHED:
            self._batch.finished.append(job)
            self._delete_old()

    def _cancel(self, job_id: str) -> Job:
        before = self._read(job_id)
        after = lifecycle.cancelled(before, self._clock())
        if before.status is Status.PROCESSING:
            self._interrupts.cancel(job_id)
            return before
        self._move(before, after)
        self._settle(after)
        return after

    def _retry(self, job_id: str) -> Job:
        self._admit()
        before = self._read(job_id)
        after = lifecycle.retried(before)
        self._move(before, after)
        self._settle(after)
        return after

    def _note_progress(self, job_id: str, value: float) -> None:
        if job_id in self._running:
            self._running[job_id] = replace(self._running[job_id], progress=value)

    def _read(self, job_id: str) -> Job:
        job = self._database.get(job_id)
        if job is None:
            raise JobNotFound(f"there is no job {job_id}")
        return self._with_progress(job)

    def _list(self, query: ListJobs) -> list[Job]:
        jobs = self._database.page(
            status=query.status,
            job_type=query.type,
            after=query.after,
            limit=query.limit,
            newest_first=query.order == "newest",
        )
        return [self._with_progress(job) for job in jobs]

    def _await(self, job_id: str) -> Job | Held:
        job = self._read(job_id)
        if job.status in FINISHED or self._is_draining:
            return job
        held = Held()
        self._waiting.setdefault(job_id, []).append(held)
        return held

    def _recover(self) -> int:
        for job in list(self._database.page(status=Status.PROCESSING)):
            self._move(job, lifecycle.recovered(job))
        self._running.clear()
        self._batch.runnable.extend(self._database.page(status=Status.PENDING))
        return len(self._batch.runnable)

    def _drain(self) -> None:
        self._is_draining = True
        self._commit()
        self._answer_waiting()

    # How a move is made.

    def _find(self, job_id: str) -> Job:
        return self._running.get(job_id) or self._read(job_id)

    def _move(self, before: Job, after: Job) -> None:
        self._database.update(before, after)
        self._counts[before.status] -= 1
        self._counts[after.status] += 1

    def _delete_old(self) -> None:
        finished = sum(self._counts[status] for status in FINISHED)
        if self._keep_finished and finished > self._keep_finished:
            excess = min(finished - self._keep_finished, DELETED_AT_ONCE)
            for status in self._database.delete_oldest_finished(excess):
                self._counts[status] -= 1

    def _with_progress(self, job: Job) -> Job:
        running = self._running.get(job.id)
        return job if running is None else replace(job, progress=running.progress)

    # How a batch ends.

    def _has_company(self) -> bool:
        """Tell whether another message is there to share the commit; under load, wait a moment for one."""
        if self.actor_inbox.has_more():
            return True
        if not self._is_busy or self._batch.has_lingered:
            return False
        self._batch.has_lingered = True
        time.sleep(LINGER)
        return self.actor_inbox.has_more()

    def _commit(self) -> None:
        try:
            self._database.commit()
        except sqlite3.Error as error:
            self._roll_back(error)
            return
        batch, self._batch = self._batch, Batch()
        self._durable_counts = self._counts.copy()
        self._is_busy = len(batch.runnable) > 1
        for job in batch.runnable:
            self._channel.send(Run(job.id), self._seconds_until(job.run_at))
        for job in batch.finished:
            self._interrupts.forget(job.id)
            for held in self._waiting.pop(job.id, ()):
                batch.answers.append((held, self._database.get(job.id) or job, None))
        batch.give_answers()

    def _roll_back(self, error: Exception) -> None:
        self._log.error("nothing of this batch was stored", exc_info=error)
        batch, self._batch = self._batch, Batch()
        self._database.rollback()
        self._counts = self._durable_counts.copy()
        failure = StorageFailed(f"nothing was stored, the database failed: {error}")
        batch.answers = [(held, None, refusal or failure) for held, _, refusal in batch.answers]
        batch.give_answers()
        for outcome in batch.outcomes:
            self.actor_inbox.remind(outcome, STORAGE_RETRY)
        processing = self._database.page(status=Status.PROCESSING)
        self._running = {job.id: self._with_progress(job) for job in processing}

    def _answer_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        batch = Batch()
        batch.answers = [(h, self._read(job_id), None) for job_id in waiting for h in waiting[job_id]]
        batch.give_answers()

    def _seconds_until(self, time: datetime | None) -> float:
        return 0.0 if time is None else (time - self._clock()).total_seconds()


def _json(payload: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJob(f"`payload` is not JSON: {error}") from None
