"""The JobStore: the one place where jobs are kept and every status changes."""

import sqlite3
import time
from collections.abc import Callable
from typing import Any, Final

from actors import log
from actors.actor import Actor
from actors.backlog import Backlog
from actors.batch import Answer, Batch, Entry, give
from actors.database import is_fatal, is_full
from actors.errors import GoferError, StorageFailed
from actors.ledger import Ledger
from actors.lifecycle import FINISHED, Job, Status
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


class JobStore(Actor):
    """Owns the database, and answers only what is durable.

    Messages are handled inside an open transaction. When the mailbox is empty, or the batch full, it is
    committed once, and only then are the answers given and the runnable jobs sent to the channel.

    When the storage is full, a submit is refused, while claims and outcomes wait until there is room. When
    it is broken, the JobStore stops: what is on the disk then, only the next start can find out.
    """

    def __init__(
        self, ledger: Ledger, backlog: Backlog, *, ended: Callable[..., None] = lambda **_: None
    ) -> None:
        """Keep this ledger, and send what is pending from this backlog; tell `ended` of the end."""
        super().__init__()
        self._ledger = ledger
        self._backlog = backlog
        self._ended = ended
        self._log = log.logger("JobStore")
        self._batch = Batch()
        self._waiting: dict[str, list[Held]] = {}
        #: Claims and outcomes that could not be stored yet.
        self._postponed: list[Entry] = []
        self._failure: StorageFailed | None = None
        self._is_full = False
        self._is_busy = False

    def on_receive(self, message: Any) -> Any:
        """Handle the message, hold its answer, and commit if nothing more is there to share the commit."""
        held = Held()
        try:
            self._take(message, held)
            if self._failure is None and (self._is_batch_full() or not self._has_company()):
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
            self._ledger.close()
            self._log.info("job store stopped", **self._ledger.counts)
        except sqlite3.Error as error:
            self._log.error("the database did not close", error=str(error))
        finally:
            self._ended(is_broken=self._failure is not None)

    def _take(self, message: Any, held: Held) -> None:
        """Handle a message inside the open transaction."""
        try:
            answer = self._handle(message, held) if self._failure is None else None
        except GoferError as refusal:
            self._batch.add(Entry(held, message, refusal=refusal))
            if isinstance(message, Outcome):
                self._log.warning("outcome dropped", job=message.id, reason=str(refusal))
        except BaseException as error:  # noqa: BLE001 - what was written is unknown: all of the batch goes
            own_fault = None if is_full(error) else _unstored(error)
            self._batch.add(Entry(held, message, refusal=own_fault))
            self._roll_back(error)
        else:
            if self._failure is not None:  # Since before, or since a part of what this message does.
                give([self._last_answer(Entry(held, message))])
            elif answer is not held:
                self._batch.add(Entry(held, message, answer))

    # What each message does.

    def _handle(self, message: Any, held: Held) -> Any:
        """Return the answer, or `held` itself if that is to be settled later."""
        match message:
            case Submit():
                return self._ledger.submit(message)
            case Claim(id=job_id):
                return self._ledger.claim(job_id)
            case Complete() | Fail() | Release() | Cancelled():
                return self._ledger.end(message)
            case Progress(id=job_id, value=value):
                return self._ledger.note_progress(job_id, value)
            case Get(id=job_id):
                return self._ledger.get(job_id)
            case ListJobs():
                return self._ledger.page(message)
            case Cancel(id=job_id):
                return self._ledger.cancel(job_id)
            case Retry(id=job_id):
                return self._ledger.retry(job_id)
            case Await(id=job_id):
                return self._await(job_id, held)
            case Recover():
                return self._recover()
            case Redeliver():
                return self._ledger.recover()
            case Drain(admits=admits):
                return self._drain(admits=admits)
            case Resume():
                return self._resume()
            case _:
                return self.answer(message)

    def _await(self, job_id: str, held: Held) -> Job | Held:
        job = self._ledger.get(job_id)
        if job.status in FINISHED or self._ledger.is_draining:
            return job
        self._waiting.setdefault(job_id, []).append(held)
        return held

    def _recover(self) -> int:
        self._backlog.reopen()
        self._take(Redeliver(), Held())
        return self._ledger.counts[Status.PENDING]

    def _drain(self, *, admits: bool) -> None:
        self._ledger.drain(admits=admits)
        self._resume()
        self._commit()
        self._answer_waiting()

    def _resume(self) -> None:
        postponed, self._postponed = self._postponed, []
        for entry in postponed:
            self._take(entry.message, entry.held)
            if self._is_batch_full():
                self._commit()

    # How a batch ends.

    def _is_batch_full(self) -> bool:
        return self._batch.is_full(self._ledger.changes.bytes)

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
            changes = self._ledger.commit()
        except sqlite3.Error as error:
            self._roll_back(error)
            return
        batch, self._batch = self._batch, Batch()
        self._is_busy = len(changes.runnable) > 1
        if changes.were_written and self._is_full:
            self._is_full = False
            self._log.info("the storage has room again")
        try:
            self._backlog.send(changes.runnable)
            answers = self._answers(batch, changes.finished)
        except sqlite3.Error as error:
            self._give_up(error, batch)
        else:
            give(answers)

    def _answers(self, batch: Batch, finished: list[Job]) -> list[Answer]:
        answers = [(held, answer, refusal) for held, _, answer, refusal in batch.entries]
        for job in finished:
            answers += [(held, self._ledger.get(job.id), None) for held in self._waiting.pop(job.id, ())]
        return answers

    def _roll_back(self, error: BaseException) -> None:
        """Undo the open transaction; tell those who asked, or try again later what nobody may lose."""
        batch, self._batch = self._batch, Batch()
        try:
            self._ledger.rollback()
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
                case Claim() if self._ledger.is_draining:  # Its Worker can stop only with an answer.
                    answers.append((entry.held, None, None))
                case Claim() | Complete() | Fail() | Release() | Cancelled() | Redeliver() if (
                    entry.refusal is None
                ):
                    self._postpone(entry)
                case Recover() if entry.refusal is None:  # What was pending is; the rest waits for room.
                    answers.append((entry.held, self._ledger.counts[Status.PENDING], None))
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
            + [self._last_answer(entry) for entry in entries]
        )
        if not self.actor_stopped.is_set():
            self.stop()

    def _last_answer(self, entry: Entry) -> Answer:
        """Return what to say when nothing is stored any more; a claim fails no Worker, it gets no job."""
        is_claim = isinstance(entry.message, Claim)
        return entry.held, None, None if is_claim else entry.refusal or self._failure

    def _answer_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        give([(held, self._ledger.get(job_id), None) for job_id in waiting for held in waiting[job_id]])


def _unstored(error: BaseException) -> StorageFailed:
    return StorageFailed(f"nothing was stored, the database failed: {error}")
