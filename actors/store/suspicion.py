"""Suspicion: which jobs must not run beside others, as the process crashed while they were running.

A suspect whose turn it is not yet is kept here, in no line, until the one that runs has ended; others go on
meanwhile. Of jobs that must run alone the first is next: nothing more is reserved until nothing runs, then it
alone until its end.
"""

from collections.abc import Iterable
from enum import Enum, auto

from actors.lifecycle import ALONE, SUSPECT, Job


class Turn(Enum):
    """What becomes of a job that is next."""

    #: The job may run.
    NOW = auto()
    #: The job may run when the suspect that runs has ended.
    LATER = auto()
    #: No job may begin now.
    NONE = auto()


class Suspicion:
    """Used by the ledger; what runs is told to it as the crashes that each running job has behind it."""

    def __init__(self) -> None:
        #: Ids of pending jobs that must run alone.
        self.alone: list[str] = []
        self._waiting: list[Job] = []

    def turn(self, crashes: int, others: list[int]) -> Turn:
        """Tell whether a job with so many crashes behind it may run now, beside these others."""
        if not crashes and not any(others):
            return Turn.NOW
        if any(other >= ALONE for other in others) or (crashes >= ALONE and others):
            return Turn.NONE
        if crashes >= SUSPECT and any(other >= SUSPECT for other in others):
            return Turn.LATER
        return Turn.NOW

    def wait(self, job: Job) -> None:
        """Keep a suspect until its turn."""
        self._waiting.append(job)

    def released(self, running: Iterable[int]) -> list[Job]:
        """Return the suspects whose turn may have come, and forget that they waited."""
        if not self._waiting or any(other >= SUSPECT for other in running):
            return []
        released, self._waiting = self._waiting, []
        return released
