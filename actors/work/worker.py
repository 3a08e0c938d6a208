"""The Worker: takes a job, has its handler run and tells the JobStore how it ended."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pykka
from msgspec import UNSET, Raw

from actors import log
from actors.handlers import Handlers
from actors.interrupts import Interrupt, Interrupted, Interrupts
from actors.lifecycle import Job
from actors.messages import Begin, Cancelled, Complete, CutOff, Fail, Outcome, Progress, Release, Run
from actors.messaging import Actor, Channel
from actors.work.attempt import call, described
from actors.work.pool import Pool
from actors.work.task import ExecutorFailed


class Worker(Actor):
    """Runs one job at a time. What it takes out of the channel is its own, reserved on disk already."""

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        store: pykka.ActorRef[Any],
        channel: Channel,
        handlers: Handlers,
        interrupts: Interrupts,
        pool: Pool | None = None,
        *,
        ended: Callable[[pykka.ActorRef[Any]], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Run handlers on the pool, or in the own thread if there is none; tell `ended` of the end."""
        super().__init__(channel)
        self._store = store
        self._handlers = handlers
        self._interrupts = interrupts
        self._pool = pool
        self._ended = ended
        self._monotonic = monotonic
        self._running: Run | None = None
        self._log = log.logger("Worker")

    def on_receive(self, message: Any) -> Any:
        """Run a job."""
        if not isinstance(message, Run):
            return super().on_receive(message)
        try:
            self._handle(message)
        except pykka.ActorDeadError:
            # A call that has outlasted a stop ends with its executor; its job was named when it was cut off.
            is_known = self._pool is not None and self._interrupts.is_draining
            say = self._log.debug if is_known else self._log.error
            say("the JobStore has stopped, so it cannot be told", job_id=message.id)
        except BaseException as error:
            if isinstance(error, Exception):
                raise
            # Pykka stops every actor on any other; only this Worker is to end.
            raise RuntimeError(described(error)) from error
        return None

    def on_start(self) -> None:
        """Say so."""
        super().on_start()
        self._log.info("worker_started")

    def on_stop(self) -> None:
        """Say so; the outcome of the last job is in the JobStore's mailbox, which outlives this one."""
        self._log.info("worker_stopped")
        self._ended(self.actor_ref)

    def on_failure(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: object
    ) -> None:
        """Have the job that it is running failed, and say so."""
        try:
            if (run := self._running) is not None and error is not None:
                reason = f"the Worker died: {described(error)}"
                self._store.tell(Fail(run.id, run.job.attempts, reason, run=run.number))
        finally:
            self._ended(self.actor_ref)

    def _handle(self, run: Run) -> None:
        self._running = run
        self._store.tell(Begin(run.id, run.job.attempts, run=run.number))
        self._store.tell(self._outcome(run))
        self._running = None

    def _outcome(self, run: Run) -> Outcome:
        """Run the job's handler, and return how that ended.

        Whether a failure is the job's end is for the JobStore to say, and so the log of it.
        """
        job, number = run.job, run.number
        began = self._monotonic()
        context = log.JOB.set(job)
        try:
            result = self._result(job)
        except Interrupted as interrupted:
            outcome = Cancelled if interrupted.reason is Interrupt.CANCEL else Release
            return outcome(job.id, job.attempts, run=number)
        except ExecutorFailed as failure:
            return CutOff(job.id, job.attempts, str(failure), run=number)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the handler's
            seconds, told = self._monotonic() - began, log.described(error)
            return Fail(job.id, job.attempts, described(error), told, run=number, seconds=seconds)
        finally:
            log.JOB.reset(context)
        return Complete(job.id, job.attempts, result, run=number, seconds=self._monotonic() - began)

    def _result(self, job: Job) -> Raw:
        assert job.raw_payload is not UNSET
        handler = self._handlers.find(job.type)
        argument = handler.argument(job.raw_payload)
        timeout = handler.options.timeout

        def report(progress: float) -> None:
            self._store.tell(Progress(job.id, progress))

        if self._pool is not None:
            named = log.Named(job.id, job.type, job.attempts)
            return self._pool.call(handler.function, argument, timeout, report, named)
        check = partial(self._interrupts.check, job.id)
        return call(handler.function, argument, timeout, report, check=check, monotonic=self._monotonic)
