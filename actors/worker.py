"""The Worker: receives a job, claims it, runs its handler and tells the JobStore how it ended."""

import time
from collections.abc import Callable, Generator
from typing import Any, Final

import msgspec
import pykka

from actors import log
from actors.actor import Actor
from actors.errors import GoferError, StorageFailed
from actors.grace import Grace
from actors.handlers import Handler
from actors.lifecycle import Job
from actors.mailbox import Channel
from actors.messages import Claim, Complete, Fail, Outcome, Progress, Record, Release, Run

#: Seconds between two reports of progress at the least, however often the handler yields.
PROGRESS_INTERVAL: Final = 0.1
#: Seconds after which a message that the storage refused is tried again.
STORAGE_RETRY: Final = 0.5


class Worker(Actor):
    """Runs one job at a time. All that it knows of a job it is told; it changes a job only by asking."""

    def __init__(
        self,
        store: pykka.ActorRef[Any],
        channel: Channel,
        handler: Handler,
        grace: Grace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(channel)
        self._store = store
        self._channel = channel
        self._handler = handler
        self._grace = grace
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
        except _Released:
            self._log.info("job released, the grace is over", job=job.id)
            return Release(job.id, job.attempts)
        except BaseException as error:  # noqa: BLE001 - pykka stops every actor on a SystemExit
            self._log.exception("job failed", job=job.id, type=job.type)
            return Fail(job.id, job.attempts, f"{type(error).__name__}: {error}")
        return Complete(job.id, job.attempts, result)

    def _perform(self, job: Job) -> Any:
        assert isinstance(job.payload, dict)
        result = self._handler(job.payload)
        if isinstance(result, Generator):
            result = self._drive(job, result)
        # What is stored is what JSON makes of it; what JSON cannot take fails the job here.
        return None if result is None else msgspec.json.decode(msgspec.json.encode(result))

    def _drive(self, job: Job, steps: Generator[float, None, Any]) -> Any:
        next_report = self._clock()
        while True:
            try:
                progress = next(steps)
            except StopIteration as end:
                return end.value
            if self._grace.is_over:
                steps.close()
                raise _Released
            if self._clock() >= next_report:
                next_report = self._clock() + PROGRESS_INTERVAL
                self._store.tell(Progress(job.id, progress))

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


class _Released(Exception):
    """The handler was closed because the grace is over."""
