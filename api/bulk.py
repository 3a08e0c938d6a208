"""What is done to all jobs that match: step after step, so that other requests come in between."""

from typing import Annotated, Literal

import falcon
import falcon.asgi
import msgspec
import pykka
from msgspec import Meta
from msgspec.structs import asdict

from actors.requests import CancelMany, Done, Many, RetryMany
from actors.store import JobStore
from api import problems
from api.asking import ask
from api.request import Request


class CancelFilter(msgspec.Struct, frozen=True):
    """Which jobs are to be cancelled."""

    status: Annotated[
        Literal["pending", "processing"] | None, Meta(description="Only jobs with this status.")
    ] = None
    type: Annotated[str | None, Meta(description="Only jobs of this type.")] = None


class RetryFilter(msgspec.Struct, frozen=True):
    """Which jobs are to run again."""

    status: Annotated[
        Literal["failed", "cancelled"] | None, Meta(description="Only jobs with this status.")
    ] = None
    type: Annotated[str | None, Meta(description="Only jobs of this type.")] = None


class Cancelled(msgspec.Struct, frozen=True):
    """What has become of them."""

    #: Which are cancelled.
    cancelled: int
    #: Which are processing, and cancelled when their handlers next yield.
    requested: int


class Retried(msgspec.Struct, frozen=True):
    """What has become of them."""

    #: Which are pending.
    retried: int


class Bulk:
    """`/jobs/cancel` and `/jobs/retry`: cancel or retry all jobs that match."""

    def __init__(
        self,
        store: pykka.ActorRef[JobStore],
        message: type[CancelMany | RetryMany],
        filters: type[CancelFilter | RetryFilter],
        counts: type[Cancelled | Retried],
    ) -> None:
        self._store = store
        self._message = message
        self._filters = filters
        self._names = counts.__struct_fields__

    async def on_post(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Ask for each step, and answer how many jobs there were; if one is refused, until then."""
        if await req.body():
            raise falcon.HTTPBadRequest(description=f"this takes no body; {self._allowed()}")
        step: Many | None = self._message(**asdict(req.query(self._filters, self._allowed())))
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

    def _allowed(self) -> str:
        statuses = "pending or processing" if self._message is CancelMany else "failed or cancelled"
        return f"the query may have `type`, and `status` ({statuses})"
