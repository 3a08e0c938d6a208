"""Room: how many jobs the channel has room for, in one commit.

Few are reserved: one for each Worker that is idle, and ahead of those only what is run within SPAN, by what
its type took lately. Of the former there is hardly a doubt, so a crash counts as one during the attempt
(`is_certain`), and a job that brings the process down is found out; unless its type is a quick one, of which
such doubt is common. A job that a process has ended with before waits for an idle Worker too.
"""

from typing import Final

from actors.lifecycle import Job
from actors.store.database import Past
from actors.store.pace import Pace
from actors.store.runs import Runs

#: Seconds of work that may lie in the channel for each Worker, and that one job of it may take, about.
SPAN: Final = 0.010
LONGEST: Final = 2 * SPAN
#: Jobs in the channel for each Worker, at most, and for all of them.
MOST_EACH: Final = 64
MOST: Final = 512
#: Bytes of payloads in the channel, about.
MOST_BYTES: Final = 1024 * 1024


class Room:
    """What the channel has room for, in one commit."""

    def __init__(self, runs: Runs, pace: Pace, workers: int, *, is_cautious: bool) -> None:
        """Look at what is there; who `is_cautious` has nothing lie ahead of the Workers."""
        self._pace = pace
        self._workers = workers
        self._is_cautious = is_cautious
        #: Workers that have nothing to do.
        self.idle = workers - len(runs)
        self._jobs = min(MOST_EACH * workers, MOST) - len(runs.reserved)
        ahead = [run.job.type for run in runs.reserved.values() if not run.is_certain]
        self._seconds = sum(pace.seconds(job_type) or 0.0 for job_type in ahead)
        self._bytes = MOST_BYTES - sum(run.payload for run in runs.reserved.values())

    @property
    def seconds_ahead(self) -> float:
        """For about how long the Workers have jobs to go on with; of slow ones none lies ahead."""
        return self._seconds / self._workers

    def admits(self, job_type: str) -> bool:
        """Tell whether a job of this type may be reserved, if it has nothing behind it."""
        return self.idle > 0 or (
            self._is_quick(job_type) and self._jobs > 0 and self.seconds_ahead < SPAN and self._bytes > 0
        )

    def is_certain(self, job_type: str, past: Past) -> bool:
        """Tell whether a job is to count as begun when it is reserved."""
        return past.interruptions > 0 or not self._is_quick(job_type)

    def fill(self, job: Job, *, is_certain: bool) -> None:
        """Note that a job was reserved."""
        self.idle -= 1
        self._jobs -= 1
        self._seconds += 0.0 if is_certain else self._pace.seconds(job.type) or 0.0
        self._bytes -= job.payload_size

    def _is_quick(self, job_type: str) -> bool:
        seconds = self._pace.seconds(job_type)
        return seconds is not None and seconds <= LONGEST and not self._is_cautious
