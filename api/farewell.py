"""How a connection ends when the service stops."""

import falcon.asgi

from actors.system import System
from api.request import Request


class Farewell:
    """While stopping, marks each response as the connection's last (RFC 9112, section 9.6).

    A server that closes after an answer that did not say so may cut off the client's next request.
    """

    def __init__(self, system: System) -> None:
        self._system = system

    async def process_response(
        self, _req: Request, resp: falcon.asgi.Response, _resource: object, _req_succeeded: object
    ) -> None:
        """Mark it."""
        if self._system.interrupts.is_draining:
            resp.set_header("Connection", "close")
