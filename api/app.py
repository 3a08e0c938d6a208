"""The Falcon app: which path leads where."""

import falcon.asgi

from actors.system import System
from api import problems
from api.health import Health
from api.jobs import Jobs, OneJob, Retries
from api.request import Request

App = falcon.asgi.App[Request, falcon.asgi.Response]


class Farewell:
    """Lets each answer of a service that stops say that it is the last on its connection (RFC 9112, 9.6).

    A server that closes after an answer that did not say so may cut off the client's next request.
    """

    def __init__(self, system: System) -> None:
        self._system = system

    async def process_response(
        self, _req: Request, resp: falcon.asgi.Response, _resource: object, _req_succeeded: object
    ) -> None:
        """Say so."""
        if self._system.is_draining:
            resp.set_header("Connection", "close")


def create_app(system: System) -> App:
    """Return the ASGI app in front of these actors."""
    app: App = falcon.asgi.App(request_type=Request, middleware=[Farewell(system)])
    problems.install(app)
    app.add_route("/jobs", Jobs(system.store))
    app.add_route("/jobs/{job_id}", OneJob(system.store))
    app.add_route("/jobs/{job_id}/retry", Retries(system.store))
    app.add_route("/health", Health(system))
    return app
