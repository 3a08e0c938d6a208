"""Reservations: which jobs lie in the channel, ahead of the Workers.

A job is reserved in the commit that is due anyway, and sent to the channel after it; a Worker that takes it
there runs it without asking. So nothing begins that is not reserved on disk, and a Worker with short jobs
waits for no commit. Taking a job out of the channel, under its lock, decides between a cancel and a run. What
a Worker has taken it tells later, so a crash finds jobs of which nobody can say whether they had begun: the
attempt counts, and uses no retry. That is why few are reserved (see room.py).
"""

from collections.abc import Callable

from actors import lifecycle, log
from actors.handlers import Handlers
from actors.interrupts import Interrupts
from actors.lifecycle import Job, Status
from actors.messages import Due, ListJobs, Message, Run
from actors.messaging import Channel
from actors.settings import Settings
from actors.store.backlog import Backlog
from actors.store.database import Database, Past
from actors.store.moves import Moves
from actors.store.pace import Pace
from actors.store.room import Room
from actors.store.runs import Runs
from actors.store.suspicion import Suspicion, Turn


class Reservations:
    """Reserves in the open transaction. Its methods raise sqlite3.Error."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with
        self,
        database: Database,
        moves: Moves,
        handlers: Handlers,
        interrupts: Interrupts,
        channel: Channel,
        settings: Settings,
    ) -> None:
        self._database = database
        self._moves = moves
        self._handlers = handlers
        self._interrupts = interrupts
        self._channel = channel
        self._workers = settings.workers
        self._is_cautious = settings.on_crash == "fail"
        self.pace = Pace()
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
        for job in self.suspicion.released(run.past.crashes for run in self.runs):
            backlog.put(Due(job.id, job.type, job.run_at))
        backlog.refill()
        room = Room(self.runs, self.pace, self._workers, is_cautious=self._is_cautious)
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
        number = self.runs.reserve(job, past, is_certain=is_certain)
        self._moves.changes.reserved.append(Run(lifecycle.claimed(job, self._moves.look()), number))

    def _runnable(self, due: Due) -> tuple[Job, Past] | None:
        """Return the job, if it is one to run now."""
        try:
            found = None if due.id in self.runs else self._database.find(due.id)
        except (ValueError, OverflowError) as error:
            log.logger("JobStore").error("a job cannot be read, and waits", job_id=due.id, error=repr(error))
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

    def take_back(self, job_id: str) -> bool:
        """Take a reserved job back out of the channel; tell whether it was there, so that it never begins."""
        self._withdraw(lambda message: _id(message) == job_id)
        if job_id not in self._taken_back:
            return False
        self.runs.unreserve(job_id)
        return True

    def take_all_back(self) -> None:
        """Take back all that lies in the channel."""
        self._withdraw(lambda _: True)
        for job_id in self._taken_back.keys() & self.runs.reserved.keys():
            self.runs.unreserve(job_id)

    def is_sent(self, job_id: str) -> bool:
        """Tell whether the job lies in the channel, so that no Worker has taken it."""
        return self._channel.holds(lambda message: _id(message) == job_id)

    def _withdraw(self, is_wanted: Callable[[Message], bool]) -> None:
        for run in self._channel.withdraw(is_wanted):
            self._taken_back[_id(run)] = run

    # How it becomes durable, or is undone.

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


def _id(message: Message) -> str:
    assert isinstance(message, Run)
    return message.id
