"""The types of job over HTTP."""

from typing import Final
from urllib.parse import urlencode

import falcon.asgi
import msgspec
import pykka

from actors.messages import ListTypes
from actors.store import JobStore
from actors.store.census import JobType
from api.asking import ask
from api.request import Request

#: What a wrong query is told.
ADVICE: Final = "a list of types takes `limit` (1 to 1000) and `after` (a type)"


class JobTypes:
    """`/types`: what is known of each type."""

    def __init__(self, store: pykka.ActorRef[JobStore]) -> None:
        self._store = store

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List types by name, with a Link to the next page if there is one."""
        query = req.query(ListTypes, ADVICE)
        found: list[JobType] = await ask(self._store, query)
        if len(found) == query.limit and found[-1].type is not None:
            parameters = {"limit": query.limit, "after": found[-1].type}
            resp.append_link(f"/types?{urlencode(parameters)}", "next")
        resp.data = msgspec.json.encode(found)

    on_head = on_get
