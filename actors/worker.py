"""The Worker: receives a job, claims it, runs its handler and tells the JobStore how it ended."""

import math
import time
from collections.abc import Callable, Generator
from typing import Any, Final

import msgspec
import pykka

from actors import log
from actors.actor import Actor
from actors.errors import GoferError, StorageFailed
from actors.handlers import Handlers
from actors.interrupts import Interrupt, Interrupts
from actors.lifecycle import Job
from actors.mailbox import Channel
from actors.messages import Cancelled, Claim, Complete, Fail, Outcome, Progress, Record, Release, Run

#: Seconds between two reports of progress at the least, however often the handler yields.
PROGRESS_INTERVAL: Final = 0.1
#: Bytes of JSON that a result may have, and characters of an error that are kept.
RESULT_LIMIT: Final = 1024 * 1024
LONGEST_ERROR: Final = 2000
#: Seconds after which a message that the storage refused is tried again.
STORAGE_RETRY: Final = 0.5


class Worker(Actor):
    """Runs one job at a time. All that it knows of a job it is told; it changes a job only by asking."""

    def __init__(
        self,
        store: pykka.ActorRef[Any],
        channel: Channel,
        handlers: Handlers,
        interrupts: Interrupts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(channel)
        self._store = store
        self._channel = channel
        self._handlers = handlers
        self._interrupts = interrupts
        self._clock = clock
        self._log = log.logger("Worker")
        self._unconfirmed: tuple[Outcome, pykka.Future[None]] | None = None

    def on_receive(self, message: Any) -> Any:
        """Run a job, or record an outcome that could not be stored before."""
        match message:
            case Run():
                self._run(message)
            case Record(outcome=outcome):
                self._tell_outcome(outcome)
            case _:
                return super().on_receive(message)
        if not self._channel.has_ready():
            self._confirm()
        return None

    def on_stop(self) -> None:
        """See the last outcome stored."""
        self._confirm()
        self._log.info("worker stopped")

    def _run(self, message: Run) -> None:
        job = self._claim(message)
        if job is None:
            return
        self._log.debug("job started", job=job.id, type=job.type, attempt=job.attempts)
        outcome = self._attempt(job)
        self._log.debug("job ended", job=job.id, outcome=type(outcome).__name__)
        self._tell_outcome(outcome)

    def _claim(self, message: Run) -> Job | None:
        claim = self._store.ask(Claim(message.id), block=False)
        self._confirm()  # After the ask, so that one commit serves the last outcome and this claim.
        try:
            job: Job | None = claim.get()
        except StorageFailed:
            self._channel.send(message, STORAGE_RETRY)
            return None
        except pykka.ActorDeadError:
            self._log.error("job not claimed, the JobStore has stopped", job=message.id)
            return None
        return job

    def _attempt(self, job: Job) -> Outcome:
        try:
            result = self._perform(job)
        except _Interrupted as interrupted:
            return interrupted.outcome(job)
        except BaseException as error:  # noqa: BLE001 - pykka stops every actor on a SystemExit
            self._log.exception("job failed", job=job.id, type=job.type)
            return Fail(job.id, job.attempts, f"{type(error).__name__}: {error}"[:LONGEST_ERROR])
        return Complete(job.id, job.attempts, result)

    def _perform(self, job: Job) -> Any:
        assert isinstance(job.payload, dict)
        function = self._handlers.find(job.type)
        result = function(self._handlers.argument(job.type, job.payload))
        if isinstance(result, Generator):
            result = self._drive(job, result)
        return None if result is None else _as_json(result)

    def _drive(self, job: Job, steps: Generator[Any, None, Any]) -> Any:
        timeout = self._handlers.options(job.type).timeout or math.inf
        end = self._clock() + timeout
        next_report = self._clock()
        while True:
            try:
                progress = _checked(next(steps))
            except StopIteration as last:
                return last.value
            now = self._clock()
            if interrupt := self._interrupts.of(job.id):
                self._close(job, steps)
                raise _Interrupted(interrupt)
            if now >= end:
                self._close(job, steps)
                raise TimeoutError(f"the attempt took longer than {timeout:g} seconds")
            if progress is not None and now >= next_report:
                next_report = now + PROGRESS_INTERVAL
                self._store.tell(Progress(job.id, progress))

    def _close(self, job: Job, steps: Generator[Any, None, Any]) -> None:
        try:
            steps.close()
        except BaseException:  # noqa: BLE001 - how it was interrupted counts more than how it took that
            self._log.exception("the handler did not close cleanly", job=job.id, type=job.type)

    def _tell_outcome(self, outcome: Outcome) -> None:
        self._unconfirmed = (outcome, self._store.ask(outcome, block=False))

    def _confirm(self) -> None:
        """Wait until the last outcome is stored."""
        if self._unconfirmed is None:
            return
        (outcome, reply), self._unconfirmed = self._unconfirmed, None
        try:
            reply.get()
        except StorageFailed:
            self._channel.send(Record(outcome), STORAGE_RETRY)
        except (GoferError, pykka.ActorDeadError) as error:
            self._log.error("outcome dropped", job=outcome.id, reason=str(error))


class _Interrupted(Exception):
    """The handler was closed at its yield."""

    def __init__(self, reason: Interrupt) -> None:
        super().__init__(reason)
        self.reason = reason

    def outcome(self, job: Job) -> Outcome:
        """Say what becomes of the job."""
        outcome = Cancelled if self.reason is Interrupt.CANCEL else Release
        return outcome(job.id, job.attempts)


def _checked(progress: Any) -> float | None:
    """Return what a handler has yielded: how far it is, or None if it only lets itself be interrupted."""
    if progress is not None and not (isinstance(progress, int | float) and 0 <= progress <= 1):
        raise ValueError(f"the handler yielded {progress!r}; progress is a number from 0 to 1")
    return progress


def _as_json(result: Any) -> Any:
    """Return what JSON makes of the result. Raises TypeError or ValueError for what it cannot take."""
    encoded = msgspec.json.encode(result)
    if len(encoded) > RESULT_LIMIT:
        raise ValueError(f"the result has {len(encoded)} bytes; {RESULT_LIMIT} is the limit")
    return msgspec.json.decode(encoded)
