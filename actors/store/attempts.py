"""The attempts: how a job goes on when a Worker has begun it, and after each end."""

from collections.abc import Callable
from typing import Final

from actors import lifecycle
from actors.errors import IllegalMove
from actors.handlers import Handlers
from actors.interrupts import Interrupts
from actors.lifecycle import Job
from actors.messages import Begin, Complete, CutOff, Fail, Outcome, Release
from actors.settings import Settings
from actors.store.database import Database, Past
from actors.store.moves import Moves
from actors.store.reservations import Reservations
from actors.store.runs import Running

#: Seconds that a job waits at most after its first attempt that an executor cut off.
CUT_OFF_BACKOFF: Final = 1.0


class Attempts:
    """Begins and ends attempts in the open transaction. Its methods raise sqlite3.Error."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with
        self,
        database: Database,
        moves: Moves,
        handlers: Handlers,
        interrupts: Interrupts,
        reservations: Reservations,
        settings: Settings,
        chance: Callable[[], float],
    ) -> None:
        self._database = database
        self._moves = moves
        self._handlers = handlers
        self._interrupts = interrupts
        self._reservations = reservations
        self._runs = reservations.runs
        self._at_most_once = settings.on_crash == "fail"
        self._chance = chance

    def note(self, message: Begin) -> None:
        """Note that an attempt has begun, unless that is known already."""
        run = self._runs.reserved.get(message.id)
        if run is not None and _is_about(message, run, run.job.attempts + 1):
            self.begin(message.id)

    def begin(self, job_id: str) -> Running:
        """Begin the attempt of a reserved job."""
        run = self._runs.unreserve(job_id)
        claimed = lifecycle.claimed(run.job, self._moves.look())
        self._moves.write(run.job, claimed, run.past, payload=run.payload)
        begun = Running(claimed, run.payload, run.past, run.number)
        self._runs.begin(begun)
        return begun

    def end(self, outcome: Outcome) -> None:
        """End an attempt. Raises IllegalMove if it is not the current one."""
        run = self._run(outcome)
        after = self._after(run, outcome)
        self._moves.write(run.job, after, _past(run.past, outcome), payload=run.payload, cause=outcome)
        if outcome.seconds is not None and isinstance(outcome, Complete | Fail):
            self._reservations.pace.note(run.job.type, outcome.seconds)
        self._runs.end(outcome.id)

    def _run(self, outcome: Outcome) -> Running:
        if run := self._runs.begun.get(outcome.id):
            if not _is_about(outcome, run, outcome.attempt):
                raise IllegalMove(f"job {outcome.id} was begun again; that run of it has ended")
            return run
        reserved = self._runs.reserved.get(outcome.id)
        is_told_late = reserved is not None and _is_about(outcome, reserved, reserved.job.attempts + 1)
        if is_told_late and not self._reservations.is_sent(outcome.id):
            return self.begin(outcome.id)  # What told of it could not be stored.
        job, past = self._database.existing(outcome.id)
        return Running(job, job.payload_size, past)

    def _after(self, run: Running, outcome: Outcome) -> Job:
        """Return the job as the outcome leaves it."""
        job, now, attempt = run.job, self._moves.look(), outcome.attempt
        is_cancelled = job.id in self._moves.changes.cancelled or self._interrupts.is_cancelled(job.id)
        match outcome:
            case Complete(result=result):
                return lifecycle.completed(job, attempt, result, now)
            case Fail(error=error) if not is_cancelled:
                if not lifecycle.has_retries_left(job, run.past.interruptions):
                    return lifecycle.failed(job, attempt, error, now)
                first = self._handlers.options(job.type).backoff
                wait = lifecycle.backoff(attempt - run.past.interruptions, first, self._chance())
                return lifecycle.backed_off(job, attempt, error, now, wait)
            case CutOff(reason=reason) if not is_cancelled:
                # Longer each time: perhaps it is this job that brings its executor down, with others there.
                wait = lifecycle.backoff(run.past.interruptions + 1, CUT_OFF_BACKOFF, self._chance())
                once = self._at_most_once
                return lifecycle.cut_off(
                    job, attempt, f"by its executor: {reason}", now, wait, at_most_once=once
                )
            case Release() if not is_cancelled:
                return lifecycle.released(job, attempt)
            case _:
                return lifecycle.cancelled_while_running(job, attempt, now)


def _is_about(message: Begin | Outcome, run: Running, attempt: int) -> bool:
    return message.run in {None, run.number} and message.attempt == attempt


def _past(before: Past, outcome: Outcome) -> Past:
    """Return what the job has behind it after the outcome."""
    match outcome:
        # A run that gave way, or was cut off, has shown nothing of what it would have done.
        case Release():
            return before
        case CutOff():
            return before._replace(interruptions=before.interruptions + 1)
        case _:
            return before._replace(crashes=0) if before.crashes else before
