"""Whether the service is fit to take jobs."""

from typing import Literal

import falcon
import falcon.asgi
import msgspec

from actors.system import System
from api.request import Request


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the service is: degraded if jobs are stored, but some do not run."""

    status: Literal["ok", "degraded"]
    #: Which jobs do not run, and what to do.
    problems: list[str] = []


class Health:
    """`/health`: 200, with what does not run, or 503 saying why not. It waits for no actor and no disk."""

    def __init__(self, system: System) -> None:
        self._system = system

    async def on_get(self, _req: Request, resp: falcon.asgi.Response) -> None:
        """Look at every actor, and at what the JobStore last said of itself."""
        if problem := self._system.problem():
            raise falcon.HTTPServiceUnavailable(description=problem)
        complaints = self._system.complaints()
        resp.data = msgspec.json.encode(Report("degraded" if complaints else "ok", complaints))

    on_head = on_get
