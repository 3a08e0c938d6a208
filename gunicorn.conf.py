"""gunicorn's settings and hooks: `gunicorn -c gunicorn.conf.py`.

What the hooks do is in `api/master.py` and `api/reloads.py`, and for the worker in `api/serving.py`.
"""

import logging.config
import os
import sys
from pathlib import Path

try:
    import actors
    import api
    from actors import from_environment, log
    from api import checks, leaving, master
    from api.reloads import Reloads
    from api.serving import Serving
    from api.watch import Watch

    api.APPS  # noqa: B018 - even if our modules are found, another `api` would not have this
except Exception as error:  # noqa: BLE001 - whatever is imported in their place
    sys.exit(
        f"gofer: {error}; this folder, {Path.cwd()}, may have an `actors` or `api` of its own that hides"
        " Gofer's: start in another folder"
    )

log.have_stderr()
try:
    settings = from_environment(os.environ)
except actors.GoferError as error:
    sys.exit(f"gofer: {error}")

host = f"[{settings.host}]" if ":" in settings.host else settings.host
bind = f"{host}:{settings.port}"
# Not logconfig_dict: with it gunicorn also makes an access log record of every request.
logging.config.dictConfig(log.config(settings.log))
logging.getLogger("gunicorn.error").addFilter(leaving.is_news)
errorlog = None
loglevel = settings.log

# The actors live in the one worker process: a second would be a second store.
workers = 1
worker_class = "asgi"
# benchmarks/http.py shows what it gains over asyncio's own loop.
asgi_loop = "uvloop"
# Only the factory is loaded here; post_worker_init calls it, with the actors, after the fork.
wsgi_app = "api.app:create_app"
# Gofer stops in worker_exit, which runs on every way out; the lifespan shutdown does not.
asgi_lifespan = "off"
# One socket path per user: a second gunicorn would take over the first one's.
control_socket_disable = True
#: Seconds from the stop signal until gunicorn's master kills the worker.
graceful_timeout = settings.grace + checks.RESERVE


def on_starting(server):
    checks.check(server.cfg, settings)
    master.release_after_fork()


def when_ready(server):
    master.stop_gracefully_at_each_signal()
    master.keep_one_worker(server)
    server.reloads = Reloads(server)
    Watch(server)


def on_reload(server):
    checks.check_options(server.app.cfg, settings)


def pre_fork(server, worker):
    worker.predecessors = list(server.WORKERS)
    master.hold_stop_signals()


def child_exit(server, worker):
    server.reloads.ended()


def pre_exec(server):  # At a SIGUSR2: this master will be stopped when the new one is there.
    master.announce_replacement(server)


def post_worker_init(worker):
    worker.serving = Serving(worker, settings)
    worker.serving.begin()


def worker_exit(server, worker):  # Also in the master, for its record of a worker that never ran there.
    if hasattr(worker, "serving"):
        worker.serving.end()
        leaving.leave_within(leaving.LEFT_BEHIND, worker.serving.code)
