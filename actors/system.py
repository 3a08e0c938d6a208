"""The wiring: which actors there are, what each is given, in which order they start and stop."""

import contextlib
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

import pykka

from actors import log
from actors.errors import HandlerError
from actors.handlers import Function, Handlers, simulated
from actors.interrupts import Interrupts
from actors.loading import load_factory, load_handlers
from actors.messages import Drain, RecoverCrashed
from actors.messaging import Channel, Mailbox
from actors.settings import Settings
from actors.store import Backlog, Clock, Database, JobStore, Ledger, Ownership, Vitals
from actors.store.location import RESTORE, refused
from actors.validation import CheckingRef, Validation
from actors.work import Pool, Worker

_now = partial(datetime.now, UTC)


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
        self._handlers = handlers
        self._pool = pool
        self._ownership = ownership
        self._lost = lost
        self._channel = Channel()
        #: Whether the service is stopping, and whether it still takes jobs.
        self.interrupts = Interrupts()
        self._vitals = Vitals()
        self._log = log.logger("System")
        #: Held while actors are started or told to end, so that none starts during a drain.
        self._changing = threading.Lock()
        self._ending: list[threading.Thread] = []
        self.workers: list[pykka.ActorRef[Worker]] = []
        self.validation = Validation(handlers)
        #: For callers that have already validated a Submit, such as HTTP.
        self.unchecked_store = self._start_store(settings)
        self.store = CheckingRef(self.unchecked_store, self.validation)
        # Its first message, so that the first page of the backlog holds what is recovered, in order.
        recovered = self.store.ask(RecoverCrashed(), block=False)
        with self._changing:
            for _ in range(settings.workers):
                self._start_worker()
        try:
            recovered.get()
        except BaseException:
            self.stop()
            raise

    def problem(self) -> str | None:
        """Return why nothing can be stored, or jobs do not run; None if all is well. Never waits."""
        if not self.interrupts.admits:
            return "the service is stopping"
        if dead := self.dead():
            return f"stopped: {', '.join(dead)}; restart the service"
        return self._vitals.problem()

    def dead(self) -> list[str]:
        """Name the actors that have stopped and were not replaced."""
        return [ref.actor_class.__name__ for ref in self._actors() if not ref.is_alive()]

    def drain(self, grace: float, *, admits: bool = False) -> None:
        """Start no further job; give the running ones back after `grace` seconds.

        New ones are taken only if the caller `admits` them, for a next process on the same database.
        Returns immediately. May be called from any thread, and again.
        """
        with self._changing:
            self.interrupts.drain(grace, admits=admits)
        self._channel.close()
        if self._pool is not None:
            self._pool.close()
        if self.store.is_alive():
            self.store.tell(Drain())

    def stop(self, grace: float = 25.0) -> None:
        """Drain, then stop the Workers, then the JobStore; return when every thread has ended."""
        self.drain(grace)
        for ref in reversed(self._actors()):
            ref.stop()
        for ref in self._actors():
            if isinstance(inbox := ref.actor_inbox, Mailbox) and inbox.thread is not None:
                inbox.thread.join()
        for ending in self._ending:
            ending.join()
        self.validation.stop()
        if self._pool is not None:
            self._pool.stop()

    def _start_store(self, settings: Settings) -> pykka.ActorRef[JobStore]:
        database = _database(settings.database, self._ownership)
        clock = Clock(_now)
        try:
            ledger = Ledger(database, self.interrupts, self._handlers, settings, clock)
        except Exception as error:
            database.close()
            raise refused(settings.database, str(error), RESTORE) from error
        backlog = Backlog(database, self._channel, clock.steady)
        return JobStore.start(ledger, backlog, self._vitals, ended=self._store_ended)

    def _start_worker(self) -> None:
        ref = Worker.start(
            self.unchecked_store,
            self._channel,
            self._handlers,
            self.interrupts,
            self._pool,
            ended=self._worker_ended,
        )
        self.workers.append(ref)

    def _worker_ended(self, ref: pykka.ActorRef[Worker]) -> None:
        with self._changing:
            if self.interrupts.is_draining:
                return
            self._log.error("a Worker has ended; another takes its place")
            self._start_worker()
            self.workers.remove(ref)
            self._ending = [t for t in self._ending if t.is_alive()] + [threading.current_thread()]

    def _store_ended(self, *, is_broken: bool) -> None:
        if self._ownership is not None:
            if is_broken:
                self._ownership.suspect()
            self._ownership.release()
        with self._changing:
            is_lost = not self.interrupts.is_draining
        if is_lost:
            self._log.critical("the JobStore has ended; restart Gofer to recover its jobs")
            self.interrupts.begin_grace(0)
            self._channel.close()
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


def start(
    settings: Settings | None = None,
    handlers: Mapping[str, Function] | None = None,
    *,
    ownership: Ownership | None = None,
    lost: Callable[[], None] = lambda: None,
) -> System:
    """Start the actors, with these handlers or those that the settings name.

    Raises StorageFailed if the database cannot be used, as when another process does; a caller can have
    waited for that, and then passes its `ownership`. Raises HandlerError if a handler or the executor
    cannot be used. `lost` is called if the JobStore ends by itself; the only remedy then is to start again.
    """
    settings = settings or Settings()
    known = _handlers(settings, handlers)
    with contextlib.ExitStack() as undo:
        owned = ownership or own(settings.database, wait=False)
        if owned is not None:
            undo.callback(owned.release)
        pool = None if settings.executor is None else _pool(settings.executor)
        if pool is not None:
            undo.callback(pool.stop)
        system = System(settings, known, pool, owned, lost)
        undo.pop_all()
        return system


def own(database: str, *, wait: bool) -> Ownership | None:
    """Take the lock of a database file, or wait for it; one in memory has and needs none."""
    return None if database == ":memory:" else Ownership(database, wait=wait)


def _database(path: str, ownership: Ownership | None) -> Database:
    database = Database(path, is_suspect=ownership is not None and ownership.is_suspect)
    if ownership is not None:
        ownership.confirm()
    return database


def _handlers(settings: Settings, given: Mapping[str, Function] | None) -> Handlers:
    on_executor = settings.executor is not None
    if given is not None:
        return Handlers(given, on_executor=on_executor)
    if settings.handlers is not None:
        return load_handlers(settings.handlers, on_executor=on_executor)
    return simulated(settings.simulated_seconds)


def _pool(place: str) -> Pool:
    factory = load_factory(place)
    try:
        return Pool(factory)
    except Exception as error:
        raise HandlerError(f"GOFER_EXECUTOR is {place!r}; it failed to make one: {error!r}") from error
