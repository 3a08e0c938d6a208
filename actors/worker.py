"""The Worker: receives a job, claims it, runs its handler and tells the JobStore how it ended."""

import math
import time
from collections.abc import Callable, Generator
from typing import Any, Final

import msgspec
import pykka

from actors import log
from actors.actor import Actor
from actors.errors import StorageFailed
from actors.handlers import Handlers
from actors.interrupts import Interrupt, Interrupts
from actors.lifecycle import Job
from actors.mailbox import Channel
from actors.messages import Cancelled, Claim, Complete, Fail, Outcome, Progress, Release, Run

#: Seconds between two reports of progress at the least, however often the handler yields.
PROGRESS_INTERVAL: Final = 0.1
#: Bytes of JSON that a result may have, and characters of an error that are kept.
RESULT_LIMIT: Final = 1024 * 1024
LONGEST_ERROR: Final = 2000
#: Seconds after which a claim that the storage refused is tried again.
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

    def on_receive(self, message: Any) -> Any:
        """Run a job."""
        if not isinstance(message, Run):
            return super().on_receive(message)
        try:
            self._run(message)
        except pykka.ActorDeadError:
            self._log.error("the JobStore has stopped, so it cannot be told", job=message.id)
        return None

    def on_stop(self) -> None:
        """Say so; the outcome of the last job is in the JobStore's mailbox, which outlives this one."""
        self._log.info("worker stopped")

    def _run(self, message: Run) -> None:
        try:
            job: Job | None = self._store.ask(Claim(message.id), block=True)
        except StorageFailed:
            self._channel.send(message, STORAGE_RETRY)
            return
        if job is None:
            return
        self._log.debug("job started", job=job.id, type=job.type, attempt=job.attempts)
        outcome = self._attempt(job)
        self._log.debug("job ended", job=job.id, outcome=type(outcome).__name__)
        self._store.tell(outcome)

    def _attempt(self, job: Job) -> Outcome:
        try:
            result = self._perform(job)
        except _Interrupted as interrupted:
            return interrupted.outcome(job)
        except BaseException as error:  # noqa: BLE001 - pykka stops every actor on a SystemExit
            self._log.exception("job failed", job=job.id, type=job.type)
            return Fail(job.id, job.attempts, _described(error))
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


class _Interrupted(Exception):
    """The handler was closed at its yield."""

    def __init__(self, reason: Interrupt) -> None:
        super().__init__(reason)
        self.reason = reason

    def outcome(self, job: Job) -> Outcome:
        """Say what becomes of the job."""
        outcome = Cancelled if self.reason is Interrupt.CANCEL else Release
        return outcome(job.id, job.attempts)


def _described(error: BaseException) -> str:
    """Return a text that can be stored, whatever the error makes of being asked for one."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its __str__ is the handler's code too
        text = type(error).__name__
    return text.encode("utf-8", "backslashreplace").decode()[:LONGEST_ERROR]


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
