"""The JobStore: the one place where jobs are kept and every status changes."""

import sqlite3
import time
from collections.abc import Callable
from typing import Any, Final

from actors import log
from actors.errors import GoferError
from actors.lifecycle import FINISHED
from actors.messages import Await, DeleteExpired, Drain, Due, Get, Message, Outcome, Resume, SweepAwaits
from actors.messaging import Actor, Channel
from actors.store import faults
from actors.store.backlog import Backlog
from actors.store.batch import Batch, Entry, give, give_last
from actors.store.ledger import Ledger
from actors.store.vitals import Vitals
from actors.store.waiting import Awaits, Kept

#: Seconds after which a message that could not be stored is tried again.
STORAGE_RETRY: Final = 0.5
#: Seconds between two looks for jobs that finished too long ago, and after one that left some.
EXPIRE: Final = 1.0
EXPIRE_AGAIN: Final = 0.05
#: Messages that bring back what waits in the JobStore, which is handled before them; their answer is None.
BRING_BACK: Final = (Drain, Resume)


class JobStore(Actor):
    """Owns the database, and answers only what is durable.

    Messages are handled inside an open transaction (see batch.py). A batch that fails is rolled back, and
    each of its messages is handled again alone, so that an error harms the message that caused it and no
    other. What becomes of one that fails alone, or while the disk is full or broken, is the table in
    faults.py.
    """

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        ledger: Ledger,
        backlog: Backlog,
        delayed: Channel,
        channel: Channel,
        vitals: Vitals,
        *,
        ended: Callable[..., None] = lambda **_: None,
    ) -> None:
        """Keep this ledger, and send what is pending from this backlog; tell `ended` of the end.

        From `delayed` it receives what has become due, to `channel` it sends what the Workers are to run.
        """
        super().__init__(delayed)
        self._ledger = ledger
        self._channel = channel
        self._backlog = backlog
        self._ended = ended
        self._log = log.logger("JobStore")
        self._batch = Batch()
        self._awaits = Awaits(self.actor_inbox.remind)
        self._kept = Kept()
        self._vitals = vitals
        self._failure: BaseException | None = None
        #: Whether jobs are reserved: not while it is to be seen which message a commit fails of.
        self._reserves = True
        self._is_reminded = False

    def on_start(self) -> None:
        """Begin to look for jobs that finished too long ago."""
        super().on_start()
        if self._ledger.expires:
            self.actor_inbox.remind(DeleteExpired(), EXPIRE)

    def on_receive(self, message: Any) -> Any:
        """Handle the message, hold its answer, and commit if nothing more is there to share the commit."""
        entry = Entry(message)
        self._vitals.busy_since = time.monotonic()
        try:
            if isinstance(message, BRING_BACK):
                self._bring_back(message)
            self._handle(entry)
            if self._batch.gather(self.actor_inbox, self._ledger.changes.bytes, self._ledger.seconds_ahead):
                self._commit()
            if isinstance(message, DeleteExpired):
                self.actor_inbox.remind(message, EXPIRE_AGAIN if entry.answer else EXPIRE)
        except BaseException as error:  # noqa: BLE001 - pykka would stop every actor on a SystemExit
            self._give_up(error)
        self._vitals.busy_since = None
        self._vitals.unhandled = self._ledger.unhandled
        return entry

    def on_stop(self) -> None:
        """Store what is left, answer every asker and close."""
        try:
            if self._failure is None:
                self._bring_back(Drain())
                self._commit()
            for entry in self._kept.take_all():
                if isinstance(entry.message, Outcome):
                    said, outcome = "not stored before the end: its job will run again", entry.message
                    self._log.error(said, job_id=outcome.id, outcome=type(outcome).__name__)
                give([entry])
        except BaseException as error:  # noqa: BLE001 - whatever it is, every asker gets an answer
            self._give_up(error)
        finally:
            self._close()

    def on_failure(self, *_exc_info: object) -> None:
        """Leave no asker without an answer."""
        try:
            self._give_up(RuntimeError("the JobStore has failed"))
        finally:
            self._close()

    def _close(self) -> None:
        try:
            self._ledger.close()
            self._log.info("stopped", **self._ledger.counts)
        except sqlite3.Error as error:
            self._log.error("the database did not close", error=str(error))
        finally:
            self._ended(is_broken=self._failure is not None)

    # How a message is handled.

    def _handle(self, entry: Entry) -> None:
        """Handle a message inside the open transaction, and hold its answer back."""
        if self._failure is not None:
            give_last([entry], faults.not_stored(self._failure))
            return
        try:
            is_answered = self._answer(entry)
            if len(self._ledger.changes.finished) > self._batch.finished:
                self._answer_awaits()
        except GoferError as refusal:
            # Its traceback holds this frame, and so the entry: a circle, with a payload in it.
            entry.refusal = refusal.with_traceback(None)
            self._batch.add(entry)
            if isinstance(entry.message, Outcome):
                self._log.warning("outcome dropped", job_id=entry.message.id, reason=str(refusal))
        except BaseException as error:  # noqa: BLE001 - it is unknown what was written
            self._batch.add(entry)
            self._roll_back(error)
        else:
            if is_answered:
                self._batch.add(entry)

    def _answer(self, entry: Entry) -> bool:
        """Do what the message says, and note its answer; return False if that has to wait."""
        message = entry.message
        if isinstance(message, Await):
            job = self._ledger.get(message.id)
            if job.status not in FINISHED and not self._awaits.is_closed:
                self._awaits.add(entry)  # Without the job, which may be large.
                return False
            entry.answer = job
            return True
        if isinstance(message, Due):
            self._backlog.put(message)
            return False
        if isinstance(message, SweepAwaits):
            self._awaits.sweep()
            return False
        entry.answer = self._ledger.handle(message)
        if entry.answer is NotImplemented:
            entry.answer = None if isinstance(message, BRING_BACK) else self.answer(message)
        return True

    def _answer_awaits(self) -> None:
        """Take the answer for those that wait for a job while it is there: it may be retried or deleted."""
        finished = self._ledger.changes.finished
        first, self._batch.finished = self._batch.finished, len(finished)
        for job in finished[first:]:
            if job.id in self._awaits:
                answer = self._ledger.get(job.id)
                if answer.status not in FINISHED:
                    continue  # It was retried in this batch, and asked for after that.
                for entry in self._awaits.take(job.id):
                    entry.answer = answer
                    self._batch.add(entry)

    def _bring_back(self, message: Message) -> None:
        """Handle again what could not be stored; at a Drain answer each Await with the job as it is."""
        if isinstance(message, Resume):
            self._is_reminded = False
            self._reserves = True
        is_end = isinstance(message, Drain) and message.answers_awaits
        waiting = self._awaits.close() if is_end else []
        for entry in waiting:
            entry.message = Get(entry.message.id)
        for entry in self._kept.take_all() + waiting:
            self._handle(entry)
            if self._batch.is_at_limit(self._ledger.changes.bytes):
                self._commit()

    # How a batch ends.

    def _commit(self) -> None:
        if self._failure is not None:
            return
        self.actor_inbox.collect()
        self._backlog.add(self._ledger.changes.runnable)
        try:
            if self._reserves:
                self._ledger.reserve(self._backlog)
            changes = self._ledger.commit()
        except Exception as error:  # noqa: BLE001 - out of memory is not an error of SQLite's
            self._roll_back(error, has_reserved=self._reserves)
            return
        batch, self._batch = self._batch, Batch()
        if changes.wrote and self._is_disk_full():
            self._vitals.full_at = None
            self._log.info("there is disk space again")
        try:
            for run in changes.reserved:
                self._channel.send(run)
            self._backlog.commit(changes)
            self._vitals.next = self._ledger.reserved or self._backlog.look()
        finally:
            give(batch.entries)

    def _roll_back(self, error: BaseException, *, has_reserved: bool = False) -> None:
        """Undo the open transaction, and see to each message in it; the error may be of a reservation."""
        batch, self._batch = self._batch, Batch()
        try:
            self._ledger.rollback()
            self._backlog.rollback()
        except Exception as second:  # noqa: BLE001 - whatever it is, the transaction may still be open
            self._give_up(second, batch)
            return
        if faults.is_fatal(error):
            self._give_up(error, batch)
            return
        if not self._is_disk_full():
            self._log.error("nothing of this batch was stored", error=repr(error))
        self._vitals.full_at = time.monotonic() if faults.is_disk_full(error) else None
        self._handle_again(batch, error, is_its_own=len(batch.entries) == 1 and not has_reserved)

    def _handle_again(self, batch: Batch, error: BaseException, *, is_its_own: bool) -> None:
        """Handle each message of a batch that failed alone, and at last reserve jobs."""
        reserved, self._reserves = self._reserves, False
        for entry in batch.entries:
            is_judged = is_its_own or (self._is_disk_full() and self._writes(entry))
            if is_judged or self._failure is not None:
                self._judge(entry, error)
            else:
                entry.refusal = None
                self._handle(entry)
                self._commit()
        if reserved and batch.entries and not self._is_disk_full():
            self._reserves = True
            self._commit()
        else:
            self._remind()

    def _is_disk_full(self) -> bool:
        return self._vitals.full_at is not None

    def _writes(self, entry: Entry) -> bool:
        return entry.refusal is None and faults.fates(entry.message) is not faults.READER

    def _judge(self, entry: Entry, error: BaseException) -> None:
        """Do with a message that cannot be stored what the table says."""
        if self._failure is not None:
            give_last([entry], faults.in_doubt(self._failure))
            return
        found = faults.fates(entry.message)
        match found.full if self._is_disk_full() else found.alone:
            case faults.Fate.KEPT:
                self._keep(entry, error)
            case faults.Fate.PROMISED:
                entry.answer = self._ledger.pending
                give([entry])
                self._keep(Entry(entry.message), error)
            case _:
                entry.answer, entry.refusal = None, entry.refusal or faults.not_stored(error)
                give([entry])

    def _keep(self, entry: Entry, error: BaseException) -> None:
        self._remind()
        if not self._kept.add(entry, error, is_its_own=not self._is_disk_full()):
            self._give_up(error)

    def _remind(self) -> None:
        """See to it that what is kept comes back, and jobs are reserved again."""
        if not self._is_reminded:
            self._is_reminded = True
            self.actor_inbox.remind(Resume(), STORAGE_RETRY)

    def _give_up(self, error: BaseException, batch: Batch | None = None) -> None:
        """Answer every asker, store nothing more, and stop."""
        if self._failure is None:
            self._log.critical("the storage is broken; the next start will check it", exc_info=error)
            self._failure = error
            self._vitals.is_broken = True
        entries = [*(batch or self._batch).entries, *self._kept.take_all(), *self._awaits.take_all()]
        self._batch = Batch()
        give_last(entries, faults.in_doubt(self._failure))
        if not self.actor_stopped.is_set():
            self.stop()
