"""What is done to all jobs that match: step after step, so that other requests come in between."""

from typing import Any, Final

import falcon
import falcon.asgi
import msgspec
import pykka

from actors.requests import CancelMany, Done, Many, RetryMany
from actors.store import JobStore
from api import problems
from api.asking import ask
from api.request import Request

#: What a query may say; the other fields of a message say how far it has come.
FILTERS: Final = frozenset({"status", "type"})
#: The names of the counts in the answer.
CANCELS: Final = ("cancelled", "requested")
RETRIES: Final = ("retried",)


class Bulk:
    """`/jobs/cancel` and `/jobs/retry`: cancel or retry all jobs that match."""

    def __init__(
        self,
        store: pykka.ActorRef[JobStore],
        message: type[CancelMany | RetryMany],
        counts: tuple[str, ...],
    ) -> None:
        self._store = store
        self._message = message
        self._names = counts

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Ask for each step, and answer how many jobs there were; if one is refused, until then."""
        if await req.body():
            raise falcon.HTTPBadRequest(description=f"this takes no body; {self._allowed()}")
        step: Many | None = self._first(req.params)
        moved = requested = 0
        try:
            while step is not None:
                done: Done = await ask(self._store, step)
                moved, requested, step = moved + done.moved, requested + done.requested, done.rest
        except tuple(problems.ANSWERS) as error:
            problems.refuse(req, resp, error, **self._counts(moved, requested))
        else:
            resp.data = msgspec.json.encode(self._counts(moved, requested))

    def _counts(self, *counts: int) -> dict[str, int]:
        return dict(zip(self._names, counts, strict=False))

    def _first(self, parameters: Any) -> CancelMany | RetryMany:
        if unknown := sorted(parameters.keys() - FILTERS):
            raise falcon.HTTPBadRequest(description=f"unknown: {', '.join(unknown)}; {self._allowed()}")
        try:
            return msgspec.convert(parameters, self._message, strict=False)
        except msgspec.ValidationError as error:
            raise falcon.HTTPBadRequest(description=f"{error}; {self._allowed()}") from None

    def _allowed(self) -> str:
        statuses = "pending or processing" if self._message is CancelMany else "failed or cancelled"
        return f"the query may have `type`, and `status` ({statuses})"
