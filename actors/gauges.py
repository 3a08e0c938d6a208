"""The gauges: what can be measured at a moment without asking an actor or waiting for a disk's write."""

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pykka

from actors.messaging import Channel
from actors.settings import IN_MEMORY
from actors.store import Vitals
from actors.store.totals import Totals


class Gauges(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement."""

    #: By status, as of the last commit; pending ones that are delayed are counted apart, as "delayed".
    jobs: Mapping[str, int]
    #: For how long the next job has been due; 0 if none is.
    oldest_due_seconds: float
    #: Jobs that were sent to the Workers, and that none has taken.
    channel_jobs: int
    workers_alive: int
    #: 0 in memory.
    database_bytes: int
    wal_bytes: int


def measured(
    database: str, totals: Totals, vitals: Vitals, channel: Channel, workers: Iterable[pykka.ActorRef[Any]]
) -> Gauges:
    """Return what is measured now; from any thread."""
    path = None if database == IN_MEMORY else os.path.realpath(database)
    return Gauges(
        jobs=totals.durable,
        oldest_due_seconds=vitals.oldest_due_seconds(time.time()),
        channel_jobs=channel.immediate,
        workers_alive=sum(ref.is_alive() for ref in workers),
        database_bytes=0 if path is None else _size(path),
        wal_bytes=0 if path is None else _size(f"{path}-wal"),
    )


def _size(path: str) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size  # noqa: PTH116 - never opened: to close it would drop our locks
    return 0
