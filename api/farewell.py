"""How a connection ends when the service stops."""

import falcon.asgi

from actors.system import System
from api.request import Request


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
