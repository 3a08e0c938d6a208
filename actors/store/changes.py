"""What was done to the jobs since the last commit."""

from datetime import timedelta

import msgspec
from msgspec.structs import replace

from actors import log
from actors.lifecycle import Job
from actors.messages import Run


class Changes(msgspec.Struct):
    """What needs action after the commit."""

    #: Those that have become pending, in this order, and those that have finished.
    runnable: list[Job] = []
    finished: list[Job] = []
    #: Those that are to be sent to the Workers.
    reserved: list[Run] = []
    #: Those of the runnable whose attempt failed or was cut off; each is said.
    backed_off: list[Job] = []
    #: The running jobs that are to be interrupted.
    cancelled: set[str] = set()
    #: Bytes of payloads and results that were written, about.
    bytes: int = 0
    #: Seconds by which the wall clock was set back.
    back: float = 0.0
    #: Whether the jobs of an earlier process were recovered.
    is_recovered: bool = False
    #: Whether the commit had anything to write.
    wrote: bool = False

    def set_back(self, seconds: float) -> None:
        """Note that all that waits was moved back by so much."""
        self.back += seconds
        self.runnable = [moved(job, seconds) for job in self.runnable]

    def report(self) -> None:
        """Warn of each attempt that ended without a result, and say when the job runs again."""
        for job in self.backed_off:
            assert job.run_at is not None
            log.logger("JobStore").warning(
                "an attempt failed; the job runs again",
                at=f"{job.run_at:%FT%T.%fZ}",
                job=job.id,
                type=job.type,
                attempt=job.attempts,
                error=job.last_error,
            )


def moved(job: Job, seconds: float) -> Job:
    """Return the job as it is due so much earlier by the wall clock."""
    if job.run_at is None:
        return job
    return replace(job, run_at=job.run_at - timedelta(seconds=seconds))
