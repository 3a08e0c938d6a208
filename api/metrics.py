"""`/metrics`: what can be counted and measured, in JSON or for Prometheus."""

from collections.abc import Callable
from typing import Final

import falcon
import falcon.asgi
import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from actors.lifecycle import Status
from actors.store.totals import DELAYED
from actors.system import System
from api.prometheus import Jobs
from api.request import Request

#: What can be asked for, in this order if the client has no preference: the last two are Prometheus's.
OFFERED: Final = (falcon.MEDIA_JSON, falcon.MEDIA_TEXT, "application/openmetrics-text")


class Summary(msgspec.Struct, frozen=True):
    """The metrics in JSON. What is counted begins at 0 with the process."""

    total_jobs_created: int
    jobs_completed: int
    jobs_failed: int
    jobs_cancelled: int
    jobs_retried: int
    jobs_in_progress: int
    jobs_pending: int
    jobs_delayed: int
    oldest_due_seconds: float
    channel_jobs: int
    database_bytes: int
    wal_bytes: int
    connections: int
    workers_alive: int


class Metrics:
    """`/metrics`. It waits for no actor and no disk: it reads what the JobStore has counted."""

    def __init__(self, system: System, connections: Callable[[], int]) -> None:
        self._system = system
        self._connections = connections
        # One of its own: the library's has what every program that uses it has added.
        self._registry = CollectorRegistry()
        self._registry.register(Jobs(system, connections))

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """Answer a scraper in the format that it prefers, and all others in JSON."""
        resp.append_header("Vary", "Accept")
        if req.client_prefers(OFFERED) in (None, falcon.MEDIA_JSON):
            resp.data = msgspec.json.encode(self._summary())
        else:
            encode, resp.content_type = choose_encoder(req.accept)
            resp.data = encode(self._registry)

    on_head = on_get

    def _summary(self) -> Summary:
        total, gauges = self._system.meter.total, self._system.gauges()
        return Summary(
            total_jobs_created=total("created"),
            jobs_completed=total("completed"),
            jobs_failed=total("failed"),
            jobs_cancelled=total("cancelled"),
            jobs_retried=total("retried"),
            jobs_in_progress=gauges.jobs[Status.PROCESSING],
            jobs_pending=gauges.jobs[Status.PENDING],
            jobs_delayed=gauges.jobs[DELAYED],
            oldest_due_seconds=round(gauges.oldest_due_seconds, 3),
            channel_jobs=gauges.channel_jobs,
            database_bytes=gauges.database_bytes,
            wal_bytes=gauges.wal_bytes,
            connections=self._connections(),
            workers_alive=gauges.workers_alive,
        )
