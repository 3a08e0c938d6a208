"""gunicorn's settings and hooks: `gunicorn -c gunicorn.conf.py`."""

import asyncio
import functools
import gc
import logging.config
import os
import signal
import sys

from gunicorn.arbiter import Arbiter
from pykka import ActorRegistry

import actors
from actors import log
from api import create_app

try:
    settings = actors.from_environment(os.environ)
except actors.GoferError as error:
    sys.exit(f"gofer: {error}")

host = f"[{settings.host}]" if ":" in settings.host else settings.host
bind = f"{host}:{settings.port}"
# Not logconfig_dict: with it gunicorn also makes an access log record of every request.
logging.config.dictConfig(log.config(settings.log))
errorlog = None
loglevel = settings.log

# The actors live in the one worker process: a second would be a second store.
workers = 1
worker_class = "asgi"
# benchmarks/http.py shows what it gains over asyncio's own loop.
asgi_loop = "uvloop"
# Only the factory is loaded here; post_worker_init calls it, with the actors, after the fork.
wsgi_app = "api:create_app"
# Gofer stops in worker_exit, which runs on every way out; the lifespan shutdown does not.
asgi_lifespan = "off"
# One socket path per user: a second gunicorn would take over the first one's.
control_socket_disable = True

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: What the master sends to a worker that a reload is about to replace; ignored where nobody listens for it.
HANDS_OVER = signal.SIGURG
#: Seconds from the stop signal until gunicorn's master kills the worker.
graceful_timeout = 30
#: Seconds of these in which a running job no longer goes on, but is given back.
RESERVE = 5
#: Seconds from the stop signal for which open connections may still be answered; and within these, how long
#: gunicorn is not told: it would close each connection behind the answer it gives, whatever that said.
CONNECTION_GRACE = 1.2
FAREWELL = 0.2


def on_starting(server):
    """Refuse what would break "one process owns the actors"."""
    cfg = server.cfg
    refusals = {
        f"{cfg.workers} workers: the actors live in one process, so leave workers at 1;"
        " GOFER_WORKERS sets how many jobs run at once": cfg.workers != 1,
        f"worker class {cfg.worker_class_str}: leave it at asgi": cfg.worker_class_str != "asgi",
        "preload_app: actors do not survive the fork, so leave it off": cfg.preload_app,
        "max_requests: a restart would interrupt jobs, so leave it at 0": cfg.max_requests,
        "reuse_port: a second service would take half of the requests, so leave it off": cfg.reuse_port,
    }
    for refusal, applies in refusals.items():
        if applies:
            sys.exit(f"gofer: cannot run with {refusal}")
    # The master's part of pre_fork: it blocks them for no longer than the fork takes.
    os.register_at_fork(after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS))


def when_ready(server):
    """Stop gracefully at every stop signal: at a SIGINT gunicorn may kill a running job after 2 seconds."""
    for signum in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(signum, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


def nworkers_changed(server, new_value, old_value):
    """Take back what SIGTTIN asks for."""
    if old_value is not None and new_value > 1:
        server.log.error("gofer: one worker process is all there can be; SIGTTIN is ignored")
        server.num_workers = 1


def pre_fork(server, worker):
    """Let stop signals wait, in the child until post_worker_init: before that they would get lost."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def on_reload(server):
    """Tell the process that serves now that another one takes over."""
    if settings.database == ":memory:":
        server.log.warning("gofer: the jobs are kept in memory, so the reload starts without any")
    for pid in server.WORKERS:
        os.kill(pid, HANDS_OVER)


def pre_exec(server):
    """Tell it at a SIGUSR2, too: its master will be stopped when the new one is there."""
    on_reload(server)


def post_worker_init(worker):
    """Start the actors, in the process that will serve, before it accepts."""
    worker.is_waiting = True
    worker.is_stopping = False
    worker.hands_over = False

    def stop(_signum, _frame):
        if worker.is_waiting:
            sys.exit(0)
        if worker.is_stopping:
            return  # Once is enough. (To ignore the others from here on would race with one just arriving.)
        worker.is_stopping = True
        worker.loop.call_soon_threadsafe(begin_to_stop, worker)

    def hand_over(_signum, _frame):
        worker.hands_over = settings.database != ":memory:"

    for signum in STOP_SIGNALS:
        # Not the loop's own handlers: those go with the loop, and a second signal would then kill the
        # process in the middle of a job; and uvloop loses what comes before it runs.
        if not worker.loop.remove_signal_handler(signum):
            # uvloop removes none before it runs, and gunicorn's would end all connections at once.
            worker.loop.add_signal_handler(signum, lambda: None)
        signal.signal(signum, stop)
    signal.signal(HANDS_OVER, hand_over)
    # They are the master's business, and would kill a worker that gets them by mistake.
    for signum in (signal.SIGHUP, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        ownership = actors.own(settings.database, wait=True)
        worker.is_waiting = False
        worker.system = actors.start(settings, ownership=ownership, lost=lost)
    except actors.GoferError as error:
        worker.log.error("gofer: %s", error)  # noqa: TRY400 - one clear line
        sys.exit(Arbiter.WORKER_BOOT_ERROR)
    worker.asgi = create_app(worker.system)
    # The loop's own backlog is 100, and it would replace the listener's: what comes beyond that in the pause
    # of a reload is dropped by the kernel, and tried again by the client after 1, 3 or 7 seconds.
    worker.loop.create_server = functools.partial(worker.loop.create_server, backlog=worker.cfg.backlog)
    # Requests leave no cycles behind. Without these two lines a sixth of the time under load goes into
    # looking for some, mostly among what was imported and never goes away.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def lost():
    """End this process, which serves nothing any more; gunicorn starts another."""
    os.kill(os.getpid(), signal.SIGTERM)


def grace(worker):
    """Return for how many seconds from the stop signal a running job may go on."""
    return max(0, worker.cfg.graceful_timeout - RESERVE)


def begin_to_stop(worker):
    """Accept no connection and run no other job; let gunicorn's loop come to its end.

    At a reload the requests on open connections are still served in full: what they submit is in the
    database, and the next process runs it.
    """
    for server in worker.servers:
        server.close()
    worker.system.drain(grace(worker), admits=worker.hands_over)
    worker.loop.call_later(FAREWELL if worker.nr_conns else 0, end_serving, worker)
    # Without this a silent connection would keep the loop, and so worker_exit, for graceful_timeout.
    worker.loop.call_later(CONNECTION_GRACE, worker.handle_quit_signal)
    # Reopening log files, this one's meaning, ends with the loop; after that it would kill.
    worker.loop.remove_signal_handler(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def end_serving(worker):
    """Have gunicorn wait for the connections that are left, and close them behind their next answer."""
    worker.handle_exit_signal()
    if len(worker.servers) == len(worker.sockets):
        # Once it serves, gunicorn looks only every second whether it should stop; a cancel wakes it up.
        for task in asyncio.all_tasks(worker.loop):
            if task.get_coro().__name__ == "_serve":
                task.cancel()


def worker_exit(server, worker):
    """Stop the actors, the last started first: the Workers, then the JobStore."""
    system = getattr(worker, "system", None)
    if system is None:  # in the master, and after a boot that failed
        return
    if not system.store.is_alive():
        os._exit(1)  # What jobs still do nobody can store; the next process is needed sooner.
    system.drain(grace(worker))
    ActorRegistry.stop_all()
    system.stop()
