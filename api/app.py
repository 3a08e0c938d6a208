"""The Falcon app: which path leads where."""

from collections.abc import Callable

import falcon.asgi

from actors.system import System
from api import problems
from api.access_log import AccessLog
from api.farewell import Farewell
from api.health import Health
from api.job_types import JobTypes
from api.jobs import Jobs, OneJob, Retries
from api.metrics import Metrics
from api.request import Request

App = falcon.asgi.App[Request, falcon.asgi.Response]


def create_app(
    system: System, *, connections: Callable[[], int] = lambda: 0, access_log: bool = False
) -> App:
    """Return the ASGI app in front of these actors; `connections` tells how many are open."""
    app: App = falcon.asgi.App(request_type=Request, middleware=[Farewell(system)])
    if access_log:
        app.add_middleware(AccessLog())
    problems.install(app)
    app.add_route("/jobs", Jobs(system.unchecked_store, system.validation))
    app.add_route("/jobs/{job_id}", OneJob(system.store))
    app.add_route("/jobs/{job_id}/retry", Retries(system.store))
    app.add_route("/types", JobTypes(system.store))
    app.add_route("/health", Health(system))
    app.add_route("/metrics", Metrics(system, connections))
    return app
