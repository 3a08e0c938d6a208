"""What was done to the jobs since the last commit."""

from datetime import timedelta
from typing import Final

import msgspec
from msgspec.structs import replace

from actors.lifecycle import FINISHED, Job, Status
from actors.messages import CutOff, Fail, Outcome, Run

#: What it is called that a job has this status now; there are many ways to become pending.
REACHED: Final = {
    Status.PROCESSING: "started",
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.CANCELLED: "cancelled",
}


class Move(msgspec.Struct, frozen=True, gc=False):
    """One step of a job, and what the log, the counters and the metrics call it."""

    #: None if the job was submitted.
    before: Job | None
    after: Job
    #: What ended an attempt: an outcome, or in words what became of the process that ran it.
    cause: Outcome | str | None = None

    @property
    def event(self) -> str:
        """The name of what happened."""
        if (reached := REACHED.get(self.after.status)) is not None:
            return reached
        if self.before is None:
            return "created"
        if self.before.status in FINISHED:
            return "requeued"
        if isinstance(self.cause, Fail | CutOff):
            return "retried"
        return "recovered" if isinstance(self.cause, str) else "released"


#: All events, in the order in which a job may meet them.
EVENTS: Final = (
    *("created", "started", "completed", "failed", "cancelled"),
    *("retried", "released", "recovered", "requeued"),
)


class Changes(msgspec.Struct):
    """What needs action after the commit."""

    #: Each step of each job, in this order.
    moves: list[Move] = []
    #: Those that have become pending, in this order, and those that have finished.
    runnable: list[Job] = []
    finished: list[Job] = []
    #: Type and status of the finished jobs that were deleted.
    deleted: list[tuple[str, Status]] = []
    #: Those that are to be sent to the Workers.
    reserved: list[Run] = []
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


def moved(job: Job, seconds: float) -> Job:
    """Return the job as it is due so much earlier by the wall clock."""
    if job.run_at is None:
        return job
    return replace(job, run_at=job.run_at - timedelta(seconds=seconds))
