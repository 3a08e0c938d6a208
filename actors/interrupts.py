"""What can interrupt a running job: a shutdown whose grace is over, or somebody who cancels it."""

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

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = math.inf
        self._cancelled: set[str] = set()

    def begin_grace(self, seconds: float) -> None:
        """Let running jobs go on for so many seconds; a later call can only shorten that."""
        self._end = min(self._end, self._clock() + seconds)

    def cancel(self, job_id: str) -> None:
        """Have the job's handler closed at its next yield."""
        self._cancelled.add(job_id)

    def is_cancelled(self, job_id: str) -> bool:
        """Tell whether somebody wants the running job cancelled."""
        return job_id in self._cancelled

    def forget(self, job_id: str) -> None:
        """Say that the job runs no longer."""
        self._cancelled.discard(job_id)

    def check(self, job_id: str) -> None:
        """Raise Interrupted if the job should not go on."""
        if self.is_cancelled(job_id):
            raise Interrupted(Interrupt.CANCEL)
        if self._clock() >= self._end:
            raise Interrupted(Interrupt.RELEASE)
