"""The JobStore: the one place where jobs are kept and every status changes."""

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
from actors.backlog import Backlog
from actors.batch import Answer, Batch, Entry, give
from actors.database import Database, is_fatal, is_full
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
    Redeliver,
    Release,
    Resume,
    Retry,
    Submit,
)
from actors.reply import Held

#: Seconds that a batch waits for company when the last one held several submits. A lone client never waits;
#: many get larger batches, and the threads hand the GIL over less often.
LINGER: Final = 0.001
#: Seconds after which a claim or an outcome that could not be stored is tried again.
STORAGE_RETRY: Final = 0.5
#: Finished jobs deleted per job that finishes: more than one, so that a lowered limit is reached in time.
DELETED_AT_ONCE: Final = 4


class JobStore(Actor):
    """Owns the database, and answers only what is durable.

    Messages are handled inside an open transaction. When the mailbox is empty, or the batch full, it is
    committed once, and only then are the answers given and the runnable jobs sent to the channel.

    When the storage is full, a submit is refused, while claims and outcomes wait until there is room. When
    it is broken, the JobStore stops: what is on the disk then, only the next start can find out.
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
        at_most_once: bool = False,
        chance: Callable[[], float] = random.random,
        ended: Callable[..., None] = lambda **_: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__()
        self._database = database
        self._backlog = Backlog(database, channel, clock)
        self._interrupts = interrupts
        self._handlers = handlers
        self._capacity = capacity
        self._keep_finished = keep_finished
        self._max_retries = max_retries
        self._at_most_once = at_most_once
        self._chance = chance
        self._ended = ended
        self._clock = clock
        self._log = log.logger("JobStore")
        self._last_id = database.last_id()
        self._batch = Batch()
        self._waiting: dict[str, list[Held]] = {}
        #: The jobs that were claimed here and run, without payloads but with their progress.
        self._running: dict[str, Job] = {}
        self._durable_running: dict[str, Job] = {}
        #: Bytes of their payloads.
        self._sizes: dict[str, int] = {}
        #: Claims and outcomes that could not be stored yet.
        self._postponed: list[Entry] = []
        self._failure: StorageFailed | None = None
        self._is_full = False
        self._is_busy = False
        self._is_draining = False
        self._admits = True

    def on_receive(self, message: Any) -> Any:
        """Handle the message, hold its answer, and commit if nothing more is there to share the commit."""
        held = Held()
        if self._failure is not None:
            held.settle(None, None if isinstance(message, Claim) else self._failure)
            return held
        try:
            self._take(message, held)
            if self._batch.is_full or not self._has_company():
                self._commit()
        except BaseException as error:  # noqa: BLE001 - pykka would stop every actor on a SystemExit
            self._give_up(error)
        return held

    def on_stop(self) -> None:
        """Commit, answer everyone and close."""
        if self._failure is None:
            self._resume()
            self._commit()
            self._answer_waiting()
        for entry in self._postponed:
            self._log.error("not stored before the end", outcome=repr(entry.message)[:200])
            entry.held.settle(None)
        self._close()

    def on_failure(self, *_exc_info: object) -> None:
        """Leave nobody without an answer."""
        try:
            if self._failure is None:
                self._give_up(RuntimeError("the JobStore has failed"))
        finally:
            self._close()

    def _close(self) -> None:
        try:
            self._database.close()
            self._log.info("job store stopped", **self._database.counts)
        except sqlite3.Error as error:
            self._log.error("the database did not close", error=str(error))
        finally:
            self._ended(is_broken=self._failure is not None)

    def _take(self, message: Any, held: Held) -> None:
        """Handle a message inside the open transaction."""
        try:
            answer = self._handle(message, held)
        except GoferError as refusal:
            self._batch.add(Entry(held, message, refusal=refusal))
            if isinstance(message, Outcome):
                self._log.warning("outcome dropped", job=message.id, reason=str(refusal))
        except BaseException as error:  # noqa: BLE001 - what was written is unknown: all of the batch goes
            own_fault = None if is_full(error) else _unstored(error)
            self._batch.add(Entry(held, message, refusal=own_fault))
            self._roll_back(error)
        else:
            if answer is not held:
                self._batch.add(Entry(held, message, answer))

    # What each message does.

    def _handle(self, message: Any, held: Held) -> Any:
        """Return the answer, or `held` itself if that is to be settled later."""
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
                return self._await(job_id, held)
            case Recover():
                return self._recover()
            case Redeliver():
                return self._redeliver()
            case Drain(admits=admits):
                return self._drain(admits=admits)
            case Resume():
                return self._resume()
            case _:
                return self.answer(message)

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
        self._batch.bytes += len(payload)
        self._batch.runnable.append(job)
        return job

    def _admit(self) -> None:
        if not self._admits:
            raise Draining("the service is stopping and takes no new job; send it to the next one")
        if self._database.counts[Status.PENDING] >= self._capacity:
            raise CapacityReached(
                f"{self._capacity} jobs are pending, which is the capacity; try again later"
            )

    def _claim(self, job_id: str) -> Job | None:
        job = None if self._is_draining else self._database.get(job_id)
        if job is None or job.status is not Status.PENDING:
            return None
        now = self._clock()
        if not lifecycle.is_due(job, now):  # As when the clock was set; the channel goes by one of its own.
            self._batch.runnable.append(job)
            return None
        claimed = lifecycle.claimed(job, now)
        self._sizes[job_id] = len(msgspec.json.encode(job.payload))
        self._move(job, claimed, crashes=None)
        self._running[job_id] = replace(claimed, payload=msgspec.UNSET)
        return claimed

    def _end(self, outcome: Outcome) -> None:
        before = self._find(outcome.id)
        after = self._after(before, outcome)
        self._move(before, after)
        del self._running[after.id]
        self._sizes.pop(after.id, None)
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
            self._database.mark_unwanted(job_id)
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

    def _await(self, job_id: str, held: Held) -> Job | Held:
        job = self._read(job_id)
        if job.status in FINISHED or self._is_draining:
            return job
        self._waiting.setdefault(job_id, []).append(held)
        return held

    def _recover(self) -> int:
        self._backlog.reopen()
        self._take(Redeliver(), Held())
        return self._database.counts[Status.PENDING]

    def _redeliver(self) -> None:
        now = self._clock()
        for job, crashes, is_unwanted in self._database.interrupted():
            if job.id in self._running:
                continue
            if is_unwanted:
                recovered = lifecycle.cancelled(job, now)
            else:
                recovered = lifecycle.recovered(job, crashes + 1, now, at_most_once=self._at_most_once)
            self._move(job, recovered, crashes=crashes + 1)
            self._settle(recovered)
            self._log.warning("job was running at a crash", job=job.id, status=recovered.status)

    def _drain(self, *, admits: bool) -> None:
        self._is_draining = True
        self._admits = admits
        self._resume()
        self._commit()
        self._answer_waiting()

    def _resume(self) -> None:
        postponed, self._postponed = self._postponed, []
        for entry in postponed:
            self._take(entry.message, entry.held)
            if self._batch.is_full:
                self._commit()

    # How a move is made.

    def _find(self, job_id: str) -> Job:
        return self._running.get(job_id) or self._read(job_id)

    def _move(self, before: Job, after: Job, crashes: int | None = 0) -> None:
        self._batch.bytes += self._database.update(before, after, crashes=crashes)
        self._batch.bytes += self._sizes.get(before.id, 0)  # SQLite writes the whole row anew.

    def _delete_old(self) -> None:
        finished = sum(self._database.counts[status] for status in FINISHED)
        if self._keep_finished and finished > self._keep_finished:
            self._database.delete_oldest_finished(min(finished - self._keep_finished, DELETED_AT_ONCE))

    def _with_progress(self, job: Job) -> Job:
        running = self._running.get(job.id)
        return job if running is None else replace(job, progress=running.progress)

    # How a batch ends.

    def _has_company(self) -> bool:
        """Tell whether another message is there to share the commit; wait a moment for one that is likely."""
        if self.actor_inbox.has_more():
            return True
        if self._batch.has_lingered:
            return False
        if self._is_busy:
            self._batch.has_lingered = True
            time.sleep(LINGER)
        elif not self._batch.is_awaited:  # Who told how an attempt ended will claim the next job.
            self._batch.has_lingered = True
            return self.actor_inbox.wait(LINGER)
        return self.actor_inbox.has_more()

    def _commit(self) -> None:
        try:
            has_written = self._database.commit()
        except sqlite3.Error as error:
            self._roll_back(error)
            return
        batch, self._batch = self._batch, Batch()
        self._durable_running = self._running.copy()
        self._is_busy = len(batch.runnable) > 1
        if has_written and self._is_full:
            self._is_full = False
            self._log.info("the storage has room again")
        try:
            self._backlog.send(batch.runnable)
            answers = self._answers(batch)
        except sqlite3.Error as error:
            self._give_up(error, batch)
        else:
            give(answers)

    def _answers(self, batch: Batch) -> list[Answer]:
        answers = [(held, answer, refusal) for held, _, answer, refusal in batch.entries]
        for job in batch.finished:
            self._interrupts.forget(job.id)
            answers += [(held, self._read(job.id), None) for held in self._waiting.pop(job.id, ())]
        return answers

    def _roll_back(self, error: BaseException) -> None:
        """Undo the open transaction; tell those who asked, or try again later what nobody may lose."""
        batch, self._batch = self._batch, Batch()
        self._running = self._durable_running.copy()
        try:
            self._database.rollback()
        except sqlite3.Error as second:
            self._give_up(second, batch)
            return
        if is_fatal(error):
            self._give_up(error, batch)
            return
        if not self._is_full:
            self._log.error("nothing of this batch was stored", error=repr(error))
        self._is_full = is_full(error)
        answers: list[Answer] = []
        for entry in batch.entries:
            match entry.message:
                case Claim() if self._is_draining:  # Its Worker can stop only with an answer.
                    answers.append((entry.held, None, None))
                case Claim() | Complete() | Fail() | Release() | Cancelled() | Redeliver() if (
                    entry.refusal is None
                ):
                    self._postpone(entry)
                case Recover() if entry.refusal is None:  # What was pending is; the rest waits for room.
                    answers.append((entry.held, self._database.counts[Status.PENDING], None))
                case Get() | ListJobs() | Await() if entry.refusal is None:
                    answers += self._look_again(entry)
                case _:
                    answers.append((entry.held, None, entry.refusal or _unstored(error)))
        give(answers)

    def _look_again(self, entry: Entry) -> list[Answer]:
        """Answer a question from what is durable; what it was answered before was undone."""
        try:
            answer = self._handle(entry.message, entry.held)
        except GoferError as refusal:
            return [(entry.held, None, refusal)]
        except sqlite3.Error as error:
            return [(entry.held, None, _unstored(error))]
        return [] if answer is entry.held else [(entry.held, answer, None)]

    def _postpone(self, entry: Entry) -> None:
        if not self._postponed:
            self.actor_inbox.remind(Resume(), STORAGE_RETRY)
        self._postponed.append(entry)

    def _give_up(self, error: BaseException, batch: Batch | None = None) -> None:
        """Answer everyone, store nothing more, and stop."""
        self._log.critical("the storage is broken; a new start will tell what it holds", exc_info=error)
        self._failure = StorageFailed(f"it is unknown what was stored, the database is broken: {error}")
        entries = [*(batch or self._batch).entries, *self._postponed]
        waiting = [held for helds in self._waiting.values() for held in helds]
        self._postponed, self._waiting = [], {}
        give(
            [(held, None, self._failure) for held in waiting]
            + [
                (held, None, None if isinstance(message, Claim) else refusal or self._failure)
                for held, message, _, refusal in entries
            ]
        )
        if not self.actor_stopped.is_set():
            self.stop()

    def _answer_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        give([(held, self._read(job_id), None) for job_id in waiting for held in waiting[job_id]])


def _unstored(error: BaseException) -> StorageFailed:
    return StorageFailed(f"nothing was stored, the database failed: {error}")


def _json(payload: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJob(f"`payload` is not JSON: {error}") from None
