"""The runs: the jobs that were sent to the Workers of this process and have not ended."""

from collections.abc import Iterator
from typing import NamedTuple

from msgspec import UNSET
from msgspec.structs import replace

from actors.lifecycle import Job
from actors.store.database import Past


class Running(NamedTuple):
    """A job without its payload, of which the bytes are known, but with its progress."""

    job: Job
    payload: int
    past: Past
    #: Which run of this process it is.
    number: int | None = None
    #: Whether a Worker is idle, so that it has as good as begun when it is reserved.
    is_certain: bool = True


class Runs:
    """By id: those that are reserved, and those that have begun; with what is not committed yet."""

    def __init__(self) -> None:
        self.reserved: dict[str, Running] = {}
        self.begun: dict[str, Running] = {}
        self._count = 0
        self._durable: tuple[dict[str, Running], dict[str, Running]] = {}, {}
        #: Whether other jobs are reserved than at the last commit.
        self.has_changed = False

    def __contains__(self, job_id: object) -> bool:
        return job_id in self.begun or job_id in self.reserved

    def __len__(self) -> int:
        return len(self.begun) + len(self.reserved)

    def __iter__(self) -> Iterator[Running]:
        yield from self.begun.values()
        yield from self.reserved.values()

    def reserve(self, job: Job, past: Past, *, is_certain: bool) -> int:
        """Add a job that is to lie in the channel, and return the number of the run."""
        self._count += 1  # And not back at a rollback.
        light = replace(job, raw_payload=UNSET)
        self.reserved[job.id] = Running(light, job.payload_size, past, self._count, is_certain)
        self.has_changed = True
        return self._count

    def unreserve(self, job_id: str) -> Running:
        """Return a reserved job and forget it: it was taken out of the channel again, or has begun."""
        self.has_changed = True
        return self.reserved.pop(job_id)

    def begin(self, run: Running) -> None:
        """Add a job that has begun."""
        self.begun[run.job.id] = run

    def end(self, job_id: str) -> None:
        """Take away one that has ended."""
        self.begun.pop(job_id, None)

    def note_progress(self, job_id: str, value: float) -> None:
        """Note how far a run says it is, from 0 to 1."""
        if run := self.begun.get(job_id):
            self.begun[job_id] = run._replace(job=replace(run.job, progress=value))

    def with_progress(self, job: Job) -> Job:
        """Return the job, with the progress of its run."""
        run = self.begun.get(job.id)
        return job if run is None else replace(job, progress=run.job.progress)

    def commit(self) -> None:
        """Note that they are durable."""
        self._durable = self.reserved.copy(), self.begun.copy()
        self.has_changed = False

    def rollback(self) -> None:
        """Forget what was not committed."""
        reserved, begun = self._durable
        self.reserved, self.begun = reserved.copy(), begun.copy()
        self.has_changed = False
