"""What the hooks of `gunicorn.conf.py` do, in the master and in the worker: the service's life in gunicorn.

How a stop goes, and why in this order. The worker's own handler takes the signal: gunicorn's would close
each connection behind its next answer, whatever the headers of that said, and the client's next request
would be cut off.

1. `begin_to_stop`, on the loop: nothing is accepted any longer, no further job starts, and each answer says
   that it is its connection's last (RFC 9112, section 9.6). Gunicorn is not told yet.
2. After FAREWELL seconds gunicorn is told, and closes each connection behind its next answer.
3. After CONNECTION_GRACE seconds the connections that are left are closed, and the loop ends: no client can
   hold it up.
4. gunicorn calls `worker_exit`, which stops the actors. Running jobs have what is left of the grace.

A signal in between changes nothing: a Python-level handler sets the same flags. A kill in between leaves
what any crash leaves: committed jobs, and running ones that the next start recovers. At a reload the master
sends HANDS_OVER first; then this process goes on storing submits, because the next one, on the same file,
will run them.
"""

import asyncio
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
from api import waiting
from api.app import create_app
from api.children import Children
from api.server import Master, Worker, url

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: What the master sends to a worker that a reload is about to replace; ignored where no handler is set for
#: it.
HANDS_OVER: Final = signal.SIGURG
#: Seconds from the stop signal for which open connections may still be answered; and within these, how long
#: gunicorn is not told: it would close each connection behind the answer it gives, whatever that said.
CONNECTION_GRACE: Final = 1.2
FAREWELL: Final = 0.2


# In the master.


def hold_stop_signals() -> None:
    """Let stop signals wait, in a new worker until it can act on them: before that they would get lost.

    In the master they wait only while it forks (see `release_after_fork`).
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def release_after_fork() -> None:
    """Have the master take stop signals again as soon as it has forked."""
    master = os.getpid()

    def release() -> None:
        if os.getpid() == master:  # Not when a worker forks: it may have reason to block them.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    os.register_at_fork(after_in_parent=release)


def stop_gracefully_at_each_signal() -> None:
    """Make SIGINT and SIGQUIT a SIGTERM: at those gunicorn may kill a running job after 2 seconds."""
    for signum in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(signum, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


def keep_one_worker(master: Master, wanted: int, before: int | None) -> None:
    """Take back what SIGTTIN asks for."""
    if before is not None and wanted > 1:
        master.log.error("gofer: there can be only one worker process; SIGTTIN is ignored")
        master.num_workers = 1


def announce_hand_over(master: Master, settings: Settings) -> None:
    """Tell the process that serves now that another one takes over."""
    if settings.database == IN_MEMORY:
        master.log.warning("gofer: the jobs are kept in memory, so the reload starts without any")
    for pid in master.WORKERS:
        with contextlib.suppress(ProcessLookupError):  # It may have just ended by itself.
            os.kill(pid, HANDS_OVER)


# In the worker.


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
        self._is_waiting = True
        self._is_stopping = False
        self._hands_over = False
        #: With which the process ends.
        self.code = 0

    def begin(self) -> None:
        """Load the handlers, wait for the database and start the actors, before gunicorn accepts.

        Both of the first may take any time, so a stop signal ends the process in the midst of them.
        """
        try:
            self._take_signals()
            self._children = Children(self._worker.sockets)
            load(self._settings)
            ownership = waiting.own(self._settings.database, self._worker.ppid)
            self._is_waiting = False
            self._system = self._start(self._settings, ownership=ownership, lost=lost)
            self._worker.asgi = create_app(self._system)
            self._tune()
            self._say_ready(self._system)
        except waiting.Stopped:
            sys.exit(0)
        except Exception as error:  # noqa: BLE001 - one line, whatever it is
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        """End a process that cannot boot, so that gunicorn will not try again."""
        reason = str(error) if isinstance(error, GoferError) else f"the start failed: {error!r}"
        self._worker.log.error("gofer: %s", reason)
        self._worker.log.debug("gofer: %s", "".join(traceback.format_exception(error)))
        if self._system is not None:
            self._system.stop(grace=0)
            self._system = None
        self.code = Arbiter.WORKER_BOOT_ERROR
        sys.exit(self.code)

    def _say_ready(self, system: System) -> None:
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
        # The loop's own backlog is 100, and it would replace the listener's: what comes beyond that in the
        # pause of a reload is dropped by the kernel, and tried again by the client after 1, 3 or 7 seconds.
        loop.create_server = functools.partial(loop.create_server, backlog=self._worker.cfg.backlog)
        # Requests leave no cycles behind. Without these two lines a sixth of the time under load goes into
        # looking for some, mostly among what was imported and never goes away.
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)

    def end(self) -> None:
        """Stop the actors, in `worker_exit`: the Workers, then the JobStore."""
        if self._system is None:  # The boot failed.
            return
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
            signal.signal(signum, self._stop)
        signal.signal(HANDS_OVER, self._hand_over)
        # They are the master's business, and would kill a worker that gets them by mistake.
        for signum in (signal.SIGHUP, signal.SIGUSR2):
            signal.signal(signum, pass_over)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _stop(self, _signum: int, _frame: object) -> None:
        if self._is_waiting:
            raise waiting.Stopped
        # Once is enough. (Ignoring the others would race with one just arriving.) And gunicorn may have ended
        # the loop by itself, as when its master was killed: an error here would then break `end` off.
        if not (self._is_stopping or self._worker.loop.is_closed()):
            self._is_stopping = True
            self._worker.loop.call_soon_threadsafe(self._begin_to_stop)

    def _hand_over(self, _signum: int, _frame: object) -> None:
        self._hands_over = self._settings.database != IN_MEMORY

    def _begin_to_stop(self) -> None:
        """Accept no connection and run no other job; let gunicorn's loop come to its end.

        At a reload the requests on open connections are still served in full: what they submit is in the
        database, and the next process runs it.
        """
        assert self._system is not None
        worker, loop = self._worker, self._worker.loop
        for server in worker.servers:
            server.close()
        self._system.drain(self._settings.grace, admits=self._hands_over)
        loop.call_later(FAREWELL if worker.nr_conns else 0, self._end_serving)
        # Without this a silent connection would keep the loop, and so worker_exit, for graceful_timeout.
        loop.call_later(CONNECTION_GRACE, worker.handle_quit_signal)
        # Reopening log files, this one's meaning, ends with the loop; after that it would kill.
        loop.remove_signal_handler(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, pass_over)

    def _end_serving(self) -> None:
        """Have gunicorn wait for the connections that are left, and close them behind their next answer."""
        self._worker.handle_exit_signal()
        if len(self._worker.servers) == len(self._worker.sockets):
            # Once it serves, gunicorn looks only every second whether it should stop; a cancel wakes it up.
            for task in asyncio.all_tasks(self._worker.loop):
                if getattr(task.get_coro(), "__name__", "") == "_serve":
                    task.cancel()


def pass_over(_signum: int, _frame: object) -> None:
    """Do nothing at a signal; unlike one that is ignored, the commands that handlers start still get it."""


def lost() -> None:
    """End this process, which can no longer serve; gunicorn starts another."""
    os.kill(os.getpid(), signal.SIGTERM)
