"""gunicorn's hooks: what happens at which moment, in the master first, then in the worker process.

`gunicorn.conf.py` hands them to gunicorn, which calls each by the name that it has here.
"""

import logging.config
import os
import sys
from typing import Protocol

from actors import GoferError, Settings, from_environment, log
from api import checks, leaving, master
from api.reloads import Reloads
from api.server import Master, Worker
from api.serving import Serving
from api.watch import Watch


def configured() -> Settings:
    """Return the settings of the environment, and log as they say. Exits with one line if one is wrong."""
    log.have_stderr()
    try:
        settings = from_environment(os.environ)
    except GoferError as error:
        sys.exit(f"gofer: {error}")
    # Not gunicorn's logconfig_dict: with it gunicorn also makes an access log record of every request.
    logging.config.dictConfig(log.config(settings.log))
    logging.getLogger("gunicorn.error").addFilter(leaving.is_news)
    return settings


class Reloadable(Master, Protocol):
    """The master with its reloads, which are kept there as a reload makes the hooks anew."""

    reloads: Reloads


class Hooks:
    """The hooks of a service with these settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        #: In the worker process alone.
        self._serving: Serving | None = None

    # In the master.

    def on_starting(self, server: Master) -> None:
        """Refuse, before it listens, what cannot work."""
        checks.check(server.cfg, self._settings)
        master.release_after_fork()

    def when_ready(self, server: Reloadable) -> None:
        """Take signals as Gofer does."""
        master.stop_gracefully_at_each_signal()
        master.keep_one_worker(server)
        server.reloads = Reloads(server)
        Watch(server)

    def on_reload(self, server: Master) -> None:
        """Refuse options that a reload may have brought."""
        checks.check_options(server.app.cfg, self._settings)

    def pre_fork(self, server: Master, worker: Worker) -> None:
        """Tell the next worker process of those that are there."""
        worker.predecessors = list(server.WORKERS)
        master.hold_stop_signals()

    def child_exit(self, server: Reloadable, _worker: Worker) -> None:
        """Go on with a reload when a worker process has ended."""
        server.reloads.ended()

    def pre_exec(self, server: Master) -> None:
        """At a SIGUSR2: this master will be stopped when the new one is there."""
        master.announce_replacement(server)

    # In the worker process.

    def post_worker_init(self, worker: Worker) -> None:
        """Start the actors, and serve."""
        self._serving = Serving(worker, self._settings)
        self._serving.begin()

    def worker_exit(self, _server: Master, _worker: Worker) -> None:
        """Stop the actors; called in the master too, for its record of a process that never ran there."""
        if self._serving is not None:
            self._serving.end()
            leaving.leave_within(leaving.LEFT_BEHIND, self._serving.code)
