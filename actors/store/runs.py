"""The runs: the jobs that were claimed in this process and have not ended."""

from collections.abc import Iterator
from typing import NamedTuple

from msgspec import UNSET
from msgspec.structs import replace

from actors.lifecycle import Job
from actors.store.database import Past


class Running(NamedTuple):
    """A job that runs: without its payload, of which the bytes are known, but with its progress."""

    job: Job
    payload: int
    past: Past


class Runs:
    """By id, with what is not committed yet."""

    def __init__(self) -> None:
        self._runs: dict[str, Running] = {}
        self._durable: dict[str, Running] = {}

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._runs

    def __len__(self) -> int:
        return len(self._runs)

    def crashes(self) -> Iterator[int]:
        """Yield for each run in how many crashes in a row its job was running before."""
        return (run.past.crashes for run in self._runs.values())

    def get(self, job_id: str) -> Running | None:
        """Return a run; None if there is none of this job."""
        return self._runs.get(job_id)

    def begin(self, job: Job, past: Past) -> None:
        """Add a job that was claimed."""
        self._runs[job.id] = Running(replace(job, raw_payload=UNSET), job.payload_size, past)

    def end(self, job_id: str) -> None:
        """Take a run away, if there is one."""
        self._runs.pop(job_id, None)

    def note_progress(self, job_id: str, value: float) -> None:
        """Note how far a run says it is, from 0 to 1."""
        if run := self._runs.get(job_id):
            self._runs[job_id] = run._replace(job=replace(run.job, progress=value))

    def with_progress(self, job: Job) -> Job:
        """Return the job, with the progress of its run."""
        run = self._runs.get(job.id)
        return job if run is None else replace(job, progress=run.job.progress)

    def commit(self) -> None:
        """Note that they are durable."""
        self._durable = self._runs.copy()

    def rollback(self) -> None:
        """Forget what was not committed."""
        self._runs = self._durable.copy()
