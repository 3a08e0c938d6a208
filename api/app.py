"""The Falcon app: which path leads where."""

import falcon.asgi

from actors.requests import CancelMany, RetryMany
from actors.system import System
from api import problems
from api.access import Access
from api.addresses import Addresses
from api.bulk import Bulk, CancelFilter, Cancelled, Retried, RetryFilter
from api.farewell import Farewell
from api.health import Health
from api.index import Fixed, index
from api.jobs import Jobs, OneJob, Retries
from api.openapi import OPERATIONS, document
from api.request import Request

App = falcon.asgi.App[Request, falcon.asgi.Response]


def create_app(system: System, access: Access | None = None) -> App:
    """Return the ASGI app in front of these actors; without an `access` everybody is let in."""
    access = access or Access()
    app: App = falcon.asgi.App(
        request_type=Request, middleware=[access, Farewell(system), Addresses(OPERATIONS)]
    )
    problems.install(app)
    app.add_route("/jobs", Jobs(system.unchecked_store, system.validation))
    app.add_route("/jobs/cancel", Bulk(system.store, CancelMany, CancelFilter, Cancelled))
    app.add_route("/jobs/retry", Bulk(system.store, RetryMany, RetryFilter, Retried))
    app.add_route("/jobs/{job_id}", OneJob(system.store))
    app.add_route("/jobs/{job_id}/retry", Retries(system.store))
    app.add_route("/health", Health(system))
    described = document(OPERATIONS, system.handlers, is_guarded=access.wants_token)
    app.add_route("/openapi.json", Fixed(described))
    app.add_route("/", Fixed(index(OPERATIONS)))
    return app
