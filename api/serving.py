"""The worker process of gunicorn, from its fork to its end: what the worker's hooks do.

How a stop goes, and why in this order. The worker's own handler takes the signal: gunicorn's would close
each connection behind its next answer, whatever the headers of that said, and the client's next request
would be cut off.

1. `_begin_to_stop`, on the loop: nothing is accepted any longer, no further job starts, and each answer says
   that it is its connection's last (RFC 9112, section 9.6). Gunicorn is not told yet.
2. After FAREWELL seconds gunicorn is told, and closes each connection behind its next answer.
3. After CONNECTION_GRACE seconds the connections that are left are closed, and the loop ends: no client can
   hold it up.
4. gunicorn calls `worker_exit`, which stops the actors. Running jobs have what is left of the grace.

A signal in between changes nothing: a Python-level handler sets the same flags. A kill in between leaves
what any crash leaves: committed jobs, and running ones that the next start recovers. At a reload no signal
comes from the master, but HANDS_OVER from the process that is to follow (see `handover.py`).
"""

import contextlib
import functools
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, Final, NoReturn

from gunicorn.arbiter import Arbiter
from pykka import ActorRegistry

import actors
from actors import GoferError, Settings, System, log
from actors.settings import IN_MEMORY
from actors.starting import load
from api import leaving, waiting
from api.access import Access
from api.app import create_app
from api.children import Children
from api.handover import HandOver
from api.heartbeat import Heartbeat
from api.master import IS_REPLACED, STOP_SIGNALS
from api.protocol import Protocol, RequestIds
from api.relay import Relay
from api.server import Worker, url

#: What a process that can take over says to the one that serves; ignored where no handler is set for it.
HANDS_OVER: Final = signal.SIGURG
#: Seconds from the stop signal for which open connections may still be answered; and within these, how long
#: gunicorn is not told: it would close each connection behind the answer it gives, whatever that said.
CONNECTION_GRACE: Final = 1.2
FAREWELL: Final = 0.2


class Serving:
    """One worker process of gunicorn, from before it accepts until its last thread has ended."""

    def __init__(
        self,
        worker: Worker,
        settings: Settings,
        start: Callable[..., System] = actors.start,
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._start = start
        self._system: System | None = None
        self._relay: Relay
        self._has_told_them = False
        self._is_waiting = True
        #: Whether another master waits for this one's end.
        self._is_replaced = False
        self._hand_over: HandOver | None = None
        self._is_stopping = False
        #: With which the process ends.
        self.code = 0

    def begin(self) -> None:
        """Load the handlers, wait for the database and start the actors, before gunicorn accepts.

        Both of the first may take any time, so a stop signal ends the process in the midst of them.
        """
        try:
            self._boot()
        except waiting.Stopped:
            sys.exit(0)

    def _boot(self) -> None:
        try:
            self._take_signals()
            self._children = Children(self._worker.sockets)
            load(self._settings)
            with Heartbeat(self._worker.notify):
                ownership = waiting.own(self._settings.database, self._look)
                self._is_waiting = False
                self._system = self._start(self._settings, ownership=ownership, lost=lost)
            address = self._worker.sockets[0].getsockname()
            app = create_app(
                self._system,
                Access.of(self._settings, None if isinstance(address, str) else address[0]),
                connections=lambda: self._worker.nr_conns,
                access_log=self._settings.access_log,
            )
            self._relay = Relay(app, address)
            self._worker.asgi = self._relay
            self._tune()
            self._say_ready(self._system)
            self._tell_predecessors()  # In memory, or from another file, they have not made way yet.
        except Exception as error:  # noqa: BLE001 - one line, whatever it is
            self._fail(error)

    def _tell_predecessors(self) -> None:
        """At a reload, tell the process that serves that this one can take over."""
        self._has_told_them = True
        for pid in self._worker.predecessors:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, HANDS_OVER)

    def _look(self) -> None:
        """Look around while another process has the database."""
        if os.getppid() != self._worker.ppid:
            sys.exit(0)
        self._tell_predecessors()  # Also again, as that one may not have been ready to listen.

    def _fail(self, error: Exception) -> NoReturn:
        """End a process that cannot boot; unless another one still serves, gunicorn will not try again."""
        reason = str(error) if isinstance(error, GoferError) else f"the start failed: {error!r}"
        self._is_waiting = False  # A stop signal would break this off.
        goes_on = self._worker.predecessors and not self._has_told_them
        said = "the reload failed, and the service goes on as it was: " if goes_on else ""
        self._worker.log.error("gofer: %s%s", said, reason)
        self._worker.log.debug("gofer: %s", "".join(traceback.format_exception(error)))
        if self._system is not None:
            self._system.stop(grace=0)
            self._system = None
        self.code = 0 if goes_on else Arbiter.WORKER_BOOT_ERROR
        sys.exit(self.code)

    def _say_ready(self, system: System) -> None:
        if self._worker.predecessors and self._settings.database == IN_MEMORY:
            self._worker.log.warning("gofer: the jobs are kept in memory, so the reload starts without any")
        log.logger("Gofer").info(
            "ready",
            address=url(self._worker.sockets[0].getsockname()),
            database=self._settings.database,
            workers=self._settings.workers,
            engine=self._settings.executor or "threads",
            handlers=system.handlers.types
            or f"none: each job is simulated for {self._settings.simulation():g} s",
            pending=system.pending,
            recovered=system.recovered,
        )

    def _tune(self) -> None:
        loop: Any = self._worker.loop
        # Gunicorn gives it a protocol of its own. And the loop's own backlog is 100, and it would replace the
        # listener's: what comes beyond that in the pause of a reload is dropped by the kernel, and tried
        # again by the client after 1, 3 or 7 seconds.
        connection = functools.partial(Protocol, self._worker, RequestIds())
        listen = functools.partial(loop.create_server, connection, backlog=self._worker.cfg.backlog)
        loop.create_server = lambda _, **options: listen(**options)
        # Requests leave no cycles behind. Without these two lines a sixth of the time under load goes into
        # looking for some, mostly among what was imported and never goes away.
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)

    def end(self) -> None:
        """Stop the actors, in `worker_exit`: the Workers, then the JobStore."""
        if self._system is None:  # The boot failed.
            return
        if self._hand_over is None or not self._hand_over.is_done:
            if not self._system.store.is_alive():
                os._exit(1)  # What jobs still do cannot be stored; the next process is needed sooner.
            self._system.drain(self._settings.grace)
            self._system.stop_workers()
        ActorRegistry.stop_all()
        self._system.stop()

    def _take_signals(self) -> None:
        loop = self._worker.loop
        for signum in STOP_SIGNALS:
            # Not the loop's own handlers: those go with the loop, and a second signal would then kill the
            # process in the middle of a job; and uvloop loses what comes before it runs.
            if not loop.remove_signal_handler(signum):
                # uvloop removes none before it runs, and gunicorn's would end all connections immediately.
                loop.add_signal_handler(signum, lambda: None)
            signal.signal(signum, lambda *_: self._when_serving(self._stop))
        signal.signal(HANDS_OVER, lambda *_: self._when_serving(self._be_followed))
        signal.signal(IS_REPLACED, self._be_replaced)
        # It is the master's business, and would kill a worker that gets it by mistake.
        signal.signal(signal.SIGHUP, leaving.pass_over)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _when_serving(self, act: Callable[[], None]) -> None:
        """Act on a signal in the loop; before there is anything to be stopped, just end."""
        if self._is_waiting:
            self._is_waiting = False  # Once: the next one would come in the middle of the end.
            raise waiting.Stopped
        # Gunicorn may have ended the loop by itself, as when its master was killed: an error here would then
        # break `end` off.
        if not self._worker.loop.is_closed():
            self._worker.loop.call_soon_threadsafe(act)

    def _be_replaced(self, _signum: int, _frame: object) -> None:
        self._is_replaced = True

    def _stop(self) -> None:
        """Stop, or hand over if another master waits for that; a second signal makes a stop of it."""
        if self._is_replaced and self._settings.database != IN_MEMORY and self._hand_over is None:
            self._begin_to_hand_over()
        elif not self._is_stopping and (self._hand_over is None or self._hand_over.is_reversible):
            self._begin_to_stop()

    def _be_followed(self) -> None:
        if self._settings.database == IN_MEMORY:
            self._stop()
        # Before it serves there is nothing to hand over, and the next process will say it again.
        elif not self._is_stopping and leaving.is_serving(self._worker):
            self._begin_to_hand_over()

    def _begin_to_hand_over(self) -> None:
        assert self._system is not None
        if self._hand_over is None:
            self._hand_over = HandOver(self._worker, self._system, self._relay, self._settings.grace)

    def _begin_to_stop(self) -> None:
        """Accept no connection and run no other job; let gunicorn's loop come to its end."""
        assert self._system is not None
        self._is_stopping = True
        if self._hand_over is not None:
            self._hand_over.cancel()
        leaving.accept_no_more(self._worker)
        self._system.drain(self._settings.grace)
        worker, loop = self._worker, self._worker.loop
        loop.call_later(FAREWELL if worker.nr_conns else 0, leaving.end_serving, worker)
        # Without this a silent connection would keep the loop, and so worker_exit, for graceful_timeout.
        loop.call_later(CONNECTION_GRACE, worker.handle_quit_signal)


def lost() -> None:
    """End this process, which can no longer serve; gunicorn starts another."""
    os.kill(os.getpid(), signal.SIGTERM)
