"""A service on a database file, whose jobs write down when they run."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.service import Service, Setting, eventually, starting


@contextlib.contextmanager
def recording(folder: Path, **settings: Setting) -> Iterator[Service]:
    """Start a service on `folder/jobs.db` that refuses and forgets no job; the record is `folder/records`."""
    ours: dict[str, Setting] = {
        "GOFER_DATABASE": folder / "jobs.db",
        "GOFER_HANDLERS": "tests.records:handlers",
        "GOFER_CAPACITY": 10_000_000,
        "GOFER_KEEP_FINISHED": 0,
        "RECORDS": folder / "records",
    }
    with starting(**{**ours, **settings}) as service:
        yield service


def drain(service: Service) -> None:
    """Wait until nothing is left to do, for as long as something is done."""
    while oldest := _unfinished(service):
        eventually(lambda: _unfinished(service) != oldest)


def _unfinished(service: Service) -> str | None:
    """Return the id of the oldest pending job, or of one that runs."""
    jobs = service.jobs(status="pending", limit=1) or service.jobs(status="processing", limit=1)
    return str(jobs[0]["id"]) if jobs else None
