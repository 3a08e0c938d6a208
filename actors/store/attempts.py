"""The attempts: which claims are granted, and how the job goes on after each end."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from actors import lifecycle, log
from actors.handlers import Handlers
from actors.interrupts import Interrupts
from actors.lifecycle import Job, Status
from actors.messages import Claim, Complete, CutOff, Fail, ListJobs, Outcome, Release
from actors.store.database import Database, Past
from actors.store.moves import Moves
from actors.store.runs import Running, Runs
from actors.store.suspicion import Suspicion, Turn

#: Seconds that a job waits at most after its first attempt that an executor cut off.
CUT_OFF_BACKOFF: Final = 1.0


class Attempts:
    """Begins and ends attempts in the open transaction. Its methods raise sqlite3.Error."""

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        database: Database,
        moves: Moves,
        handlers: Handlers,
        interrupts: Interrupts,
        chance: Callable[[], float],
        *,
        at_most_once: bool,
    ) -> None:
        self._database = database
        self._moves = moves
        self._handlers = handlers
        self._interrupts = interrupts
        self._chance = chance
        self._at_most_once = at_most_once
        self.runs = Runs()
        self.suspicion = Suspicion()
        #: Types without a handler, of which jobs are pending: they wait for a start with one.
        self.unhandled: frozenset[str] = frozenset()

    def claim(self, claim: Claim) -> Job | Turn | None:
        """Hand the job out, if it is pending, due and its turn; Turn.NONE has the Worker wait."""
        now = self._moves.look()
        found = None if self._interrupts.is_draining else self._database.find(claim.id)
        if found is None or found[0].status is not Status.PENDING:
            return None
        job, past = found
        # Due by the channel's monotonic clock, or by the wall clock. If neither, the channel has waited for
        # an earlier `run_at` of the job, as from before a cancel and a retry; its own wait is still to end.
        if job.run_at != claim.run_at and not lifecycle.is_due(job, now):
            # And if the clock was set back, this message was all that waited for it.
            self._moves.changes.runnable.append(job)
            return None
        if not self._has_handler(job):
            return None
        if alone := self._alone():
            return self._claim_alone(job, alone, now)
        match self.suspicion.turn(past.crashes, self.runs.crashes()):
            case Turn.NOW:
                return self._begin(job, past, now)
            case Turn.LATER:
                self.suspicion.wait(job)
                return None
            case Turn.NONE:
                return Turn.NONE

    def _claim_alone(self, job: Job, alone: tuple[Job, Past], now: datetime) -> Job | Turn:
        """Hand out the job that must run alone, whichever was claimed; that one is sent again."""
        if len(self.runs):
            return Turn.NONE
        if alone[0].id != job.id:
            self._moves.changes.runnable.append(job)
        return self._begin(*alone, now)

    def _alone(self) -> tuple[Job, Past] | None:
        """Return the next pending job that must run alone."""
        while self.suspicion.alone:
            found = self._database.find(self.suspicion.alone[0])
            if found is not None and found[0].status is Status.PENDING and self._has_handler(found[0]):
                return found
            self.suspicion.alone.pop(0)
        return None

    def _has_handler(self, job: Job) -> bool:
        """Tell whether the job can run; if not, say so, and let it wait."""
        if self._handlers.knows(job.type):
            return True
        if job.type not in self.unhandled:
            log.logger("JobStore").warning("jobs wait, as their type has no handler", type=job.type)
            self.unhandled |= {job.type}
        return False

    def forget(self, job: Job) -> None:
        """Note that a pending job was cancelled: perhaps no other waits for a handler of its type."""
        if job.type in self.unhandled:
            query = ListJobs(Status.PENDING, job.type, limit=1)
            if not list(self._database.page(query)):
                self.unhandled -= {job.type}

    def _begin(self, job: Job, past: Past, now: datetime) -> Job:
        claimed = lifecycle.claimed(job, now)
        self._moves.write(job, claimed, crashes=None)
        self.runs.begin(claimed, past)
        return claimed

    def end(self, outcome: Outcome) -> None:
        """End an attempt. Raises IllegalMove if it is not the current one."""
        run = self.runs.get(outcome.id)
        if run is None:
            job = self._database.existing(outcome.id)
            run = Running(job, job.payload_size, Past(0, 0))
        after = self._after(run, outcome)
        # A run that gave way, or was cut off, has shown nothing of what it would have done.
        crashes = None if isinstance(outcome, Release | CutOff) else 0
        interruptions = int(isinstance(outcome, CutOff))
        self._moves.write(run.job, after, payload=run.payload, crashes=crashes, interruptions=interruptions)
        if isinstance(outcome, Fail | CutOff) and after.status is Status.PENDING:
            self._moves.changes.backed_off.append(after)
        self.runs.end(outcome.id)

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
