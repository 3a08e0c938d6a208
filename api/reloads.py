"""A reload, in the master: the next process loads everything before the one that serves gives anything up.

Gunicorn's own SIGHUP runs the configuration, and dies if that fails; starts the new process and stops the old
one in the same moment; and then waits for that one's end, deaf to all signals. This takes its place:

1. `begin` loads the configuration; one that cannot be used is refused in one line, and nothing has changed.
   Then two processes are wanted, and gunicorn's loop starts the second.
2. The second loads the handlers. If it cannot, it says so and ends, and the first has never heard of it. Else
   it tells the first to hand over, and waits for the database (see `serving.py`).
3. Whichever ends, one is wanted again (`ended`): gunicorn starts another only if none is left.

Gunicorn's loop runs all the while, so a stop is begun immediately. A SIGHUP in the midst of this is acted on
when it is over. A process that is still loading is then ended: it may have read half of what the signal is
about, or never come to an end. One that has loaded is not, as the first may be handing over to it.
"""

import os
import signal
import time

from api.server import Config, Master


class Reloads:
    """The reloads of one master."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._is_another_due = False
        master.handle_hup = self.begin

    def begin(self) -> None:
        """Start the process that will take over."""
        if self._master.num_workers > 1:
            self._is_another_due = True
            self._end_what_is_loading()
            return
        try:
            self._configure()
        except SystemExit as error:
            reason = str(error.code).removeprefix("gofer: ")
            if isinstance(error.code, int):  # Gunicorn has shown what was wrong with the file.
                reason = "gunicorn's configuration cannot be loaded"
            self._master.log.warning("gofer: the reload was refused, and the service goes on: %s", reason)
            return
        # None is there if one has just died: then its successor is all that is needed.
        self._master.num_workers = len(self._master.WORKERS) + 1

    def ended(self) -> None:
        """Note that a process has ended: the one that handed over, or one that could not take over."""
        self._master.num_workers = 1
        if self._is_another_due:
            self._is_another_due = False
            self._master.SIG_QUEUE.put_nowait(signal.SIGHUP)

    def _end_what_is_loading(self) -> None:
        for pid, worker in self._master.WORKERS.items():
            # Before the first sign of life (see `heartbeat.py`) gunicorn has the wall clock there.
            if worker.tmp.last_update() > time.monotonic():
                os.kill(pid, signal.SIGTERM)  # It has not been reaped, so that is no other's process id.

    def _configure(self) -> None:
        """Take up the configuration as it is now. Raises SystemExit, with all as before, if that is wrong."""
        app = self._master.app
        before = app.cfg
        try:
            app.reload()
            _check(before, app.cfg)
            app.cfg.on_reload(self._master)
        except SystemExit:
            app.cfg = before
            raise
        self._master.setup(app)
        self._master.log.reopen_files()


def _check(before: Config, after: Config) -> None:
    """Exit with one line if only a restart can make that change."""
    if after.address != before.address:
        raise SystemExit("HOST and PORT cannot change at a reload; restart the service")
