"""Suspicion: which jobs must not run beside others, as the process crashed while they were running.

A suspect whose turn it is not yet is kept here, in no channel, until the one that runs has ended: its Worker
goes on with other jobs. Of jobs that must run alone the first is next: any claim is answered with it once
nothing runs, and until its end all other claims wait. So the Workers wait, and not the jobs in the channel.
"""

from collections.abc import Iterable
from enum import Enum, auto

from actors.lifecycle import ALONE, SUSPECT, Job


class Turn(Enum):
    """What becomes of a claim."""

    #: The job may run.
    NOW = auto()
    #: The job may run when the suspect that runs has ended.
    LATER = auto()
    #: No job may run now: the claim waits.
    NONE = auto()


class Suspicion:
    """Used by the ledger; what runs is told to it as the crashes that each running job has behind it."""

    def __init__(self) -> None:
        #: Ids of pending jobs that must run alone.
        self.alone: list[str] = []
        self._waiting: list[Job] = []

    def turn(self, crashes: int, running: Iterable[int]) -> Turn:
        """Tell whether a job with so many crashes behind it may run now."""
        running = list(running)
        if any(other >= ALONE for other in running) or (crashes >= ALONE and running):
            return Turn.NONE
        if crashes >= SUSPECT and any(other >= SUSPECT for other in running):
            return Turn.LATER
        return Turn.NOW

    def wait(self, job: Job) -> None:
        """Keep a suspect until its turn."""
        self._waiting.append(job)

    def released(self, running: Iterable[int]) -> list[Job]:
        """Return the suspects that can be sent to the channel again, and forget them."""
        if not self._waiting or any(other >= SUSPECT for other in running):
            return []
        released, self._waiting = self._waiting, []
        return released
