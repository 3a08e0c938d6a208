"""gunicorn's settings: `gunicorn -c gunicorn.conf.py`. What its hooks do is in `api/hooks.py`."""

import sys
from pathlib import Path

try:
    import api
    from api import checks
    from api.hooks import Hooks, configured

    api.APPS  # noqa: B018 - even if our modules are found, another `api` would not have this
except Exception as error:  # noqa: BLE001 - whatever is imported in their place
    sys.exit(
        f"gofer: {error}; this folder, {Path.cwd()}, may have an `actors` or `api` of its own that hides"
        " Gofer's: start in another folder"
    )

settings = configured()
host = f"[{settings.host}]" if ":" in settings.host else settings.host
bind = f"{host}:{settings.port}"
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
# What a client asked for that has left is given up immediately: thousands may have waited for a job.
asgi_disconnect_grace_period = 0
#: Seconds from the stop signal until gunicorn's master kills the worker.
graceful_timeout = settings.grace + checks.RESERVE

hooks = Hooks(settings)
on_starting = hooks.on_starting
when_ready = hooks.when_ready
on_reload = hooks.on_reload
pre_fork = hooks.pre_fork
child_exit = hooks.child_exit
pre_exec = hooks.pre_exec
post_worker_init = hooks.post_worker_init
worker_exit = hooks.worker_exit
