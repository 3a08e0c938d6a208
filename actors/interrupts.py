"""What can interrupt a running job: a shutdown whose grace is over, or a cancel.

The state of a shutdown stands here and nowhere else. Each attribute is written by one thread at a time (the
wiring under its lock, or the JobStore) and is a single reference, so that reading needs no lock: a reader
sees the value from before or after a change, and either is right at that moment.
"""

import math
import time
from collections.abc import Callable
from enum import Enum, auto


class Interrupt(Enum):
    """Why a handler is closed at its yield."""

    RELEASE = auto()
    CANCEL = auto()


class Interrupted(Exception):
    """The handler was closed at its yield, or never begun."""

    def __init__(self, reason: Interrupt) -> None:
        super().__init__(reason)
        self.reason = reason


class Interrupts:
    """Set by the JobStore and the wiring, looked at by Workers at each yield; safe from any thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._end = math.inf
        self._cancelled: set[str] = set()
        #: Whether draining has begun: no job is started any longer.
        self.is_draining = False
        #: Whether new jobs are stored; while draining, only for a next process on the same database.
        self.admits = True

    def drain(self, grace: float, *, admits: bool) -> None:
        """Start no further job; let the running ones go on for `grace` seconds. May be called again."""
        self.admits = admits
        self.is_draining = True
        self.begin_grace(grace)

    def begin_grace(self, seconds: float) -> None:
        """Let running jobs go on for `seconds`; a later call can only shorten that."""
        self._end = min(self._end, self._monotonic() + seconds)

    @property
    def seconds_left(self) -> float:
        """For how long running jobs may still go on."""
        return max(0.0, self._end - self._monotonic())

    def cancel(self, job_id: str) -> None:
        """Have the job's handler closed at its next yield."""
        self._cancelled.add(job_id)

    def is_cancelled(self, job_id: str) -> bool:
        """Tell whether the running job is to be cancelled."""
        return job_id in self._cancelled

    def forget(self, job_id: str) -> None:
        """Say that the job no longer runs."""
        self._cancelled.discard(job_id)

    def check(self, job_id: str) -> None:
        """Raise Interrupted if the job should not go on."""
        if self.is_cancelled(job_id):
            raise Interrupted(Interrupt.CANCEL)
        if self._monotonic() >= self._end:
            raise Interrupted(Interrupt.RELEASE)
