"""The attempts: which jobs are reserved for the Workers, and how a job goes on after each end."""

from collections.abc import Callable
from typing import Final

from actors import lifecycle, log
from actors.handlers import Handlers
from actors.interrupts import Interrupts
from actors.lifecycle import Job, Status
from actors.messages import Begin, Complete, CutOff, Due, Fail, ListJobs, Message, Outcome, Release, Run
from actors.messaging import Channel
from actors.settings import Settings
from actors.store.backlog import Backlog
from actors.store.database import Database, Past
from actors.store.moves import Moves
from actors.store.pace import Pace
from actors.store.reservations import Room
from actors.store.runs import Running, Runs
from actors.store.suspicion import Suspicion, Turn

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
        channel: Channel,
        settings: Settings,
        chance: Callable[[], float],
    ) -> None:
        self._database = database
        self._moves = moves
        self._handlers = handlers
        self._interrupts = interrupts
        self._channel = channel
        self._workers = settings.workers
        self._at_most_once = settings.on_crash == "fail"
        self._chance = chance
        self._pace = Pace()
        self.runs = Runs()
        self.suspicion = Suspicion()
        #: Those that were taken back out of the channel since the last commit.
        self._taken_back: dict[str, Message] = {}
        #: For about how long the Workers have jobs to go on with, as of the last commit.
        self.seconds_ahead = 0.0
        #: Types without a handler, of which jobs are pending: they wait for a start with one.
        self.unhandled: frozenset[str] = frozenset()

    # What is reserved.

    def reserve(self, backlog: Backlog) -> None:
        """Reserve the jobs that are next in the line, as many as there is room for."""
        room = Room(self.runs, self._pace, self._workers, is_cautious=self._at_most_once)
        self._fill(room, backlog)
        self.seconds_ahead = room.seconds_ahead

    def _fill(self, room: Room, backlog: Backlog) -> None:
        if alone := self._alone():
            if not len(self.runs):
                self._reserve(*alone, is_certain=True)
            return
        crashes = [run.past.crashes for run in self.runs]
        while (due := backlog.first()) is not None and room.admits(due.type):
            backlog.take()
            if (found := self._runnable(due)) is None:
                continue
            job, past = found
            is_certain = room.is_certain(job.type, past)
            turn = self.suspicion.turn(past.crashes, crashes)
            if turn is Turn.LATER:
                self.suspicion.wait(job)
            elif turn is Turn.NONE or (is_certain and room.idle <= 0):
                backlog.put_back()
                return
            else:
                self._reserve(job, past, is_certain=is_certain)
                room.fill(job, is_certain=is_certain)
                crashes.append(past.crashes)

    def _reserve(self, job: Job, past: Past, *, is_certain: bool) -> None:
        self.runs.reserve(job, past, is_certain=is_certain)
        self._moves.changes.reserved.append(Run(lifecycle.claimed(job, self._moves.look())))

    def _runnable(self, due: Due) -> tuple[Job, Past] | None:
        """Return the job, if it is one to run now."""
        try:
            found = None if due.id in self.runs else self._database.find(due.id)
        except (ValueError, OverflowError) as error:
            log.logger("JobStore").error("a job cannot be read, and waits", job=due.id, error=repr(error))
            return None
        if found is None or found[0].status is not Status.PENDING:
            return None
        job = found[0]
        # Due by the line's monotonic clock, or by the wall clock. If neither, the line has waited for an
        # earlier `run_at` of the job, as from before a cancel and a retry; its own wait is still to end.
        if job.run_at != due.run_at and not lifecycle.is_due(job, self._moves.look()):
            # And if the clock was set back, this message was all that waited for it.
            self._moves.changes.runnable.append(job)
            return None
        return found if self._has_handler(job) else None

    def _alone(self) -> tuple[Job, Past] | None:
        """Return the next pending job that must run alone; one that was backed off since is in the line."""
        alone = self.suspicion.alone
        while alone:
            found = None if alone[0] in self.runs else self._database.find(alone[0])
            if found is not None and self._is_next(found[0]):
                return found
            alone.pop(0)
        return None

    def _is_next(self, job: Job) -> bool:
        is_due = lifecycle.is_due(job, self._moves.look())
        return job.status is Status.PENDING and is_due and self._has_handler(job)

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

    # What is taken back.

    def take_back(self, job_id: str) -> None:
        """Take a reserved job back out of the channel; if it is not there, it has begun."""
        if job_id not in self.runs.reserved:
            return
        self._withdraw(lambda message: _id(message) == job_id)
        if job_id in self._taken_back:
            self.runs.unreserve(job_id)
        else:
            self._begin(job_id)

    def take_all_back(self) -> None:
        """Take back all that lies in the channel."""
        self._withdraw(lambda _: True)
        for job_id in self._taken_back.keys() & self.runs.reserved.keys():
            self.runs.unreserve(job_id)

    def _withdraw(self, is_wanted: Callable[[Message], bool]) -> None:
        for run in self._channel.withdraw(is_wanted):
            self._taken_back[_id(run)] = run

    # How it begins and ends.

    def begin(self, message: Begin) -> None:
        """Note that an attempt has begun, unless that is known already."""
        run = self.runs.reserved.get(message.id)
        if run is not None and run.job.attempts + 1 == message.attempt:
            self._begin(message.id)

    def _begin(self, job_id: str) -> Running:
        run = self.runs.unreserve(job_id)
        claimed = lifecycle.claimed(run.job, self._moves.look())
        self._moves.write(run.job, claimed, run.past, payload=run.payload)
        begun = Running(claimed, run.payload, run.past)
        self.runs.begin(begun)
        return begun

    def end(self, outcome: Outcome) -> None:
        """End an attempt. Raises IllegalMove if it is not the current one."""
        run = self._run(outcome)
        after = self._after(run, outcome)
        self._moves.write(run.job, after, _past(run.past, outcome), payload=run.payload)
        if isinstance(outcome, Fail | CutOff) and after.status is Status.PENDING:
            self._moves.changes.backed_off.append(after)
        if outcome.seconds is not None:
            self._pace.note(run.job.type, outcome.seconds)
        self.runs.end(outcome.id)

    def _run(self, outcome: Outcome) -> Running:
        if run := self.runs.begun.get(outcome.id):
            return run
        reserved = self.runs.reserved.get(outcome.id)
        is_told_late = reserved is not None and reserved.job.attempts + 1 == outcome.attempt
        if is_told_late and not self._channel.holds(lambda message: _id(message) == outcome.id):
            return self._begin(outcome.id)  # What told of it could not be stored.
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

    # How it becomes durable, or is undone.

    def released(self) -> list[Job]:
        """Return the suspects whose turn has come, and forget that they waited."""
        return self.suspicion.released(run.past.crashes for run in self.runs)

    def commit(self) -> None:
        """Note that all is durable."""
        self._taken_back.clear()
        self.runs.commit()

    def rollback(self) -> None:
        """Forget all since the last commit, and put back what was taken out of the channel."""
        self.runs.rollback()
        if not self._interrupts.is_draining:
            for run in self._taken_back.values():
                self._channel.send(run)
            self._taken_back.clear()


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


def _id(message: Message) -> str:
    assert isinstance(message, Run)
    return message.id
