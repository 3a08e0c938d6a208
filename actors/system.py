"""The wiring: which actors there are, what each is given, in which order they start and stop."""

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import pykka

from actors.database import Database
from actors.handlers import Function, Handlers, load, simulated
from actors.interrupts import Interrupts
from actors.mailbox import Channel
from actors.messages import Drain, Ping, Recover
from actors.settings import Settings
from actors.store import JobStore
from actors.worker import Worker


class System:
    """A running JobStore and its Workers; as a context manager it stops them on the way out."""

    def __init__(self, settings: Settings, handlers: Handlers) -> None:
        self._channel = Channel()
        self._interrupts = Interrupts()
        self.store: pykka.ActorRef[JobStore] = JobStore.start(
            Database(settings.database),
            self._channel,
            self._interrupts,
            handlers,
            capacity=settings.capacity,
            keep_finished=settings.keep_finished,
            max_retries=settings.max_retries,
        )
        self.workers: list[pykka.ActorRef[Worker]] = [
            Worker.start(self.store, self._channel, handlers, self._interrupts)
            for _ in range(settings.workers)
        ]
        self._threads: list[threading.Thread] = [ref.ask(Ping(), block=True) for ref in self._actors()]
        try:
            self.store.ask(Recover())
        except BaseException:
            self.stop()
            raise

    @property
    def is_draining(self) -> bool:
        """Whether the service is stopping."""
        return not self._channel.is_open

    def dead(self) -> list[str]:
        """Name the actors that have stopped, by choice or by failure."""
        return [ref.actor_class.__name__ for ref in self._actors() if not ref.is_alive()]

    def drain(self, grace: float) -> None:
        """Take no new job and start none; give the running ones back after `grace` seconds.

        Returns at once. May be called from any thread, and again.
        """
        self._interrupts.begin_grace(grace)
        self._channel.close()
        if self.store.is_alive():
            self.store.tell(Drain())

    def stop(self, grace: float = 25.0) -> None:
        """Drain, then stop the Workers, then the JobStore; return when every thread has ended."""
        self.drain(grace)
        for ref in reversed(self._actors()):
            ref.stop()
        for thread in self._threads:
            thread.join()

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


def start(settings: Settings | None = None, handlers: Mapping[str, Function] | None = None) -> System:
    """Start the actors, with these handlers or those that the settings name.

    Raises StorageFailed if the database cannot be used, HandlerError if a handler cannot.
    """
    settings = settings or Settings()
    if handlers is not None:
        return System(settings, Handlers(handlers))
    if settings.handlers is not None:
        return System(settings, load(settings.handlers))
    return System(settings, simulated(settings.simulated_seconds))
