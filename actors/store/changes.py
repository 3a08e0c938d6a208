"""What was done to the jobs since the last commit."""

import msgspec

from actors import log
from actors.lifecycle import Job


class Changes(msgspec.Struct):
    """What needs action after the commit."""

    #: Those that have become pending, in this order, and those that have finished.
    runnable: list[Job] = []
    finished: list[Job] = []
    #: Those of the runnable whose attempt failed.
    backed_off: list[Job] = []
    #: The running jobs that are to be interrupted.
    cancelled: set[str] = set()
    #: Bytes of payloads and results that were written, about.
    bytes: int = 0
    #: Whether the commit had anything to write.
    wrote: bool = False

    def report(self) -> None:
        """Warn of each attempt that failed, and say when the job runs again."""
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
