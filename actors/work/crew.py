"""The crew: the Workers. One that ends is replaced; told to stop, each ends with its job or is left alone."""

import threading
import time
from functools import partial
from typing import Any

import pykka

from actors import log
from actors.handlers import Handlers
from actors.interrupts import Interrupts
from actors.messaging import Channel, thread_of
from actors.work.pool import Pool
from actors.work.worker import Worker


class Crew:
    """The Workers of one system. Its methods may be called from any thread."""

    def __init__(
        self,
        channel: Channel,
        handlers: Handlers,
        interrupts: Interrupts,
        pool: Pool | None,
    ) -> None:
        self._channel = channel
        self._handlers = handlers
        self._interrupts = interrupts
        self._pool = pool
        self.workers: list[pykka.ActorRef[Worker]] = []
        #: Threads of Workers that were replaced, and may be about to end.
        self._ending: list[threading.Thread] = []
        #: Held while a Worker is started, and by who begins a drain: no Worker is started after that.
        self.changing = threading.Lock()
        self._log = log.logger("System")

    def start(self, store: pykka.ActorRef[Any], number: int) -> None:
        """Start so many Workers. Raises what a thread's start does; those before it are then running."""
        with self.changing:
            for _ in range(number):
                self._add(store)

    def _add(self, store: pykka.ActorRef[Any]) -> None:
        ended = partial(self._ended, store)
        ref = Worker.start(store, self._channel, self._handlers, self._interrupts, self._pool, ended=ended)
        self.workers.append(ref)

    def _ended(self, store: pykka.ActorRef[Any], ref: pykka.ActorRef[Worker]) -> None:
        with self.changing:
            if self._interrupts.is_draining or not store.is_alive():
                return
            self._log.error("a Worker has ended; another takes its place")
            self._add(store)
            self.workers.remove(ref)
            self._ending = [t for t in self._ending if t.is_alive()] + [threading.current_thread()]

    def tell_to_stop(self) -> None:
        """Have each Worker stop when it has done its job. Returns immediately."""
        for ref in self.workers:
            ref.stop(block=False)

    def join(self, seconds: float) -> bool:
        """Wait for the Workers that were told to stop; tell whether all have ended.

        One that has not is left alone: its thread is a daemon.
        """
        end = time.monotonic() + seconds
        for thread in [*map(thread_of, self.workers), *self._ending]:
            thread.join(max(0, end - time.monotonic()))
        stuck = [ref for ref in self.workers if thread_of(ref).is_alive()]
        for ref in stuck:  # Or `ActorRegistry.stop_all()`, or another stop, would wait for it.
            pykka.ActorRegistry.unregister(ref)
            self.workers.remove(ref)
        return not stuck
