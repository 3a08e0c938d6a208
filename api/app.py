"""The Falcon app: which path leads where."""

from collections.abc import Callable

import falcon.asgi

from actors.requests import CancelMany, RetryMany
from actors.system import System
from api import problems
from api.access import Access
from api.access_log import AccessLog
from api.addresses import Addresses
from api.bulk import Bulk, CancelFilter, Cancelled, Retried, RetryFilter
from api.farewell import Farewell
from api.health import Health
from api.index import Fixed, index
from api.job_types import JobTypes
from api.jobs import Jobs, OneJob, Retries
from api.metrics import Metrics
from api.openapi import OPERATIONS, document
from api.request import Request

App = falcon.asgi.App[Request, falcon.asgi.Response]


def create_app(
    system: System,
    access: Access | None = None,
    *,
    connections: Callable[[], int] = lambda: 0,
    access_log: bool = False,
) -> App:
    """Return the ASGI app in front of these actors; `connections` tells how many are open.

    Without an `access` everybody is let in.
    """
    access = access or Access()
    app: App = falcon.asgi.App(request_type=Request)
    if access_log:  # In front of those that may refuse the request.
        app.add_middleware(AccessLog())
    app.add_middleware([access, Farewell(system), Addresses(OPERATIONS)])
    problems.install(app)
    app.add_route("/jobs", Jobs(system.unchecked_store, system.validation))
    app.add_route("/jobs/cancel", Bulk(system.store, CancelMany, CancelFilter, Cancelled))
    app.add_route("/jobs/retry", Bulk(system.store, RetryMany, RetryFilter, Retried))
    app.add_route("/jobs/{job_id}", OneJob(system.store))
    app.add_route("/jobs/{job_id}/retry", Retries(system.store))
    app.add_route("/types", JobTypes(system.store))
    app.add_route("/health", Health(system))
    app.add_route("/metrics", Metrics(system, connections))
    described = document(OPERATIONS, system.handlers, is_guarded=access.wants_token)
    app.add_route("/openapi.json", Fixed(described))
    app.add_route("/", Fixed(index(OPERATIONS)))
    return app
