"""Whether the service is fit to take jobs."""

import falcon
import falcon.asgi

from actors.messages import Ping
from actors.system import System
from api.asking import ask
from api.request import Request


class Health:
    """`/health`: 200, or 503 saying why not."""

    def __init__(self, system: System) -> None:
        self._system = system

    async def on_get(self, _req: Request, resp: falcon.asgi.Response) -> None:
        """Look at every actor, and see that the JobStore answers."""
        if not self._system.interrupts.admits:
            raise falcon.HTTPServiceUnavailable(description="the service is stopping")
        if dead := self._system.dead():
            raise falcon.HTTPServiceUnavailable(
                description=f"stopped: {', '.join(dead)}; restart the service"
            )
        await ask(self._system.store, Ping())
        resp.data = b'{"status":"ok"}'
