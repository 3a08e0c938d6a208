"""The wiring: which actors there are, what each is given, in which order they start and stop.

Why a start leaves nothing behind when it fails: each step that makes something (lock, pool, database,
thread) undoes it in the function that made it if a later step raises, whatever is raised.

Why a stop ends: it waits for Workers until the grace is over and no longer. A Worker that is still running
its job then is cut off: it is left alone, and the JobStore is stopped without it. Actors run in daemon
threads, so not even that Worker keeps the process.
"""

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

import pykka

from actors import forks, log
from actors.errors import GoferError
from actors.gauges import Gauges, measured
from actors.handlers import Handlers
from actors.interrupts import Interrupts
from actors.lifecycle import Job, Status
from actors.messages import Drain, ListJobs, RecoverCrashed
from actors.messaging import Channel, thread_of
from actors.settings import Settings
from actors.store import Backlog, Clock, Database, JobStore, Ledger, Ownership, Vitals
from actors.store.location import RESTORE, refused
from actors.validation import CheckingRef, Validation
from actors.work import Crew, Pool, Worker

#: Seconds after the grace in which a handler may still come to its next yield. Then it is cut off.
NEXT_YIELD: Final = 3.0
#: Seconds that a stop waits for the list of running jobs, which it only logs.
LISTING: Final = 1.0


class System:
    """A running JobStore and its Workers; as a context manager it stops them on the way out.

    A Worker that ends is replaced. A JobStore is not: what it held is known to the database alone, and the
    way to get that back is a new system. `lost` is called, in the JobStore's thread, when one is needed.
    """

    def __init__(
        self,
        settings: Settings,
        handlers: Handlers,
        pool: Pool | None,
        ownership: Ownership | None,
        lost: Callable[[], None],
    ) -> None:
        self._settings = settings
        self.handlers = handlers
        self._pool = pool
        self._ownership = ownership
        self._lost = lost
        #: The process in which its threads are.
        self._process = os.getpid()
        self._channel = Channel()
        #: Whether the service is stopping, and whether it still takes jobs.
        self.interrupts = Interrupts()
        self._vitals = Vitals()
        self._crew = Crew(self._channel, handlers, self.interrupts, pool)
        self._log = log.logger("System")
        #: Held while it, or its Workers, are stopped, once.
        self._stopping = threading.RLock()
        self._is_stopped = False
        self.validation = Validation(handlers)
        #: For callers that have already validated a Submit, such as HTTP.
        self.unchecked_store = self._start_store(settings)
        self.store = CheckingRef(self.unchecked_store, self.validation)
        forks.in_child(self._forget)
        try:
            self._crew.start(self.unchecked_store, settings.workers)
            # Only now, so that a start that fails changes no job; and as the first message, so that the first
            # page of the backlog holds what is recovered, in order.
            #: How many jobs were pending then, those included.
            self.pending: int = self.store.ask(RecoverCrashed())
        except BaseException:
            self.stop(grace=0)
            raise

    @property
    def workers(self) -> list[pykka.ActorRef[Worker]]:
        """The Workers, of which any may end and be replaced."""
        return self._crew.workers

    def problem(self) -> str | None:
        """Return why nothing can be stored, or jobs do not run; None if all is well. Never waits."""
        if not self.interrupts.admits:
            return "the service is stopping"
        if dead := self.dead():
            return f"stopped: {', '.join(dead)}; restart the service"
        return self._vitals.problem()

    def complaints(self) -> list[str]:
        """Say which jobs are stored but do not run, and what to do. Never waits."""
        away = None if self._pool is None else self._pool.problem()
        return ([] if away is None else [f"jobs wait for an executor: {away}"]) + [
            f"jobs of type {kind!r} wait: it has no handler; add one, or cancel them"
            for kind in sorted(self._vitals.unhandled)
        ]

    def gauges(self) -> Gauges:
        """Measure what can be measured at this moment. Never waits."""
        return measured(self._settings.database, self._totals, self._vitals, self._channel, self.workers)

    def dead(self) -> list[str]:
        """Name the actors that have stopped and were not replaced."""
        return [ref.actor_class.__name__ for ref in self._actors() if not ref.is_alive()]

    def drain(self, grace: float, *, admits: bool = False) -> None:
        """Start no further job; give the running ones back after `grace` seconds.

        New ones are taken only if the caller `admits` them, for a next process on the same database.
        Returns immediately. May be called from any thread, and again.
        """
        with self._crew.changing:
            was_draining = self.interrupts.is_draining
            self.interrupts.drain(grace, admits=admits)
        if not was_draining:
            self._log.info("stopping", grace=grace)
        self._channel.close()
        if self._pool is not None:
            self._pool.close()
        if self.store.is_alive():
            self.store.tell(Drain(answers_awaits=not admits))

    def stop(self, grace: float | None = None) -> None:
        """Drain, then stop the Workers, then the JobStore; return when every thread has ended.

        Jobs that still run `grace` seconds after the first drain (by default those of the settings) are cut
        off. A handler, which cannot wait for its own end, may call this too: the stop then goes on when it
        returns.
        """
        if os.getpid() != self._process or self._is_stopped:
            return
        self.drain(self._settings.grace if grace is None else grace)
        if threading.current_thread() in map(thread_of, self._actors()):
            threading.Thread(target=self.stop, name="stop", daemon=True).start()
            return
        with self._stopping:
            try:
                self.stop_workers()
                self.store.stop()
                thread_of(self.store).join()
            except BaseException:  # Such as a second Ctrl-C.
                self.interrupts.begin_grace(0)
                raise
        self.validation.stop()
        if self._pool is not None:
            self._pool.stop()
        self._is_stopped = True

    def stop_workers(self) -> bool:
        """Stop the Workers of a drained system; cut off what still runs when its grace is over.

        Return whether nothing does. May be called again, from any thread.
        """
        with self._stopping:
            self._crew.tell_to_stop()
            if running := self._running():
                names = [f"{job.id} ({job.type})" for job in running]
                seconds = round(self.interrupts.seconds_left, 1)
                self._log.info("waiting_for_jobs", jobs=names, at_most_seconds=seconds)
            have_ended = self._crew.join(self.interrupts.seconds_left + NEXT_YIELD)
            for job in [] if have_ended else self._running():
                told = {"job_id": job.id, "type": job.type, "attempt": job.attempts}
                self._log.warning("job_cut_off", reason="it outlasted the grace", **told)
            return have_ended

    def _running(self) -> list[Job]:
        """Return the running jobs, if the JobStore can say; a stop goes on without that."""
        try:
            listed: list[Job] = self.store.ask(ListJobs(Status.PROCESSING), timeout=LISTING)
        except (GoferError, pykka.ActorDeadError, pykka.Timeout):
            return []
        return listed

    def _forget(self) -> None:
        """In a fork, which has none of the threads, have no asker wait for them."""
        for ref in self._actors():
            ref.actor_stopped.set()

    def _start_store(self, settings: Settings) -> pykka.ActorRef[JobStore]:
        database = _database(settings.database, self._ownership)
        clock = Clock(_now)
        delayed = Channel()
        try:
            ledger = self._ledger(database, settings, clock)
            backlog = Backlog(database, delayed, clock.steady)
            #: What happened since the start, and how many jobs there are.
            self.meter, self._totals = ledger.census.meter, database.totals
            #: How many jobs were running, or reserved, when the process before this one ended.
            self.recovered = ledger.counts[Status.PROCESSING] + len(database.life.reserved)
            return JobStore.start(
                ledger, backlog, delayed, self._channel, self._vitals, ended=self._store_ended
            )
        except BaseException:
            database.close()
            raise

    def _ledger(self, database: Database, settings: Settings, clock: Clock) -> Ledger:
        try:
            return Ledger(database, self.interrupts, self._channel, self.handlers, settings, clock)
        except Exception as error:
            raise refused(settings.database, str(error), RESTORE) from error

    def _store_ended(self, *, is_broken: bool) -> None:
        if self._ownership is not None:
            if is_broken:
                self._ownership.suspect()
            self._ownership.release()
        with self._crew.changing:
            is_lost = not self.interrupts.is_draining
        if is_lost:
            self._log.critical("the JobStore has ended; restart Gofer to recover its jobs")
            self.interrupts.begin_grace(0)
            self._channel.close()
            self._crew.tell_to_stop()
            self._lost()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _actors(self) -> list[pykka.ActorRef[Any]]:
        return [self.store, *self.workers]


def _now() -> datetime:
    """Return the wall time: the only place where it is read as a date, so that it can be replaced."""
    return datetime.fromtimestamp(time.time(), UTC)


def _database(path: str, ownership: Ownership | None) -> Database:
    database = Database(path, is_suspect=ownership is not None and ownership.is_suspect)
    if ownership is not None:
        ownership.confirm()
    return database
