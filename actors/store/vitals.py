"""The vitals of the JobStore: what others may know of it without asking it."""

import time
from collections.abc import Callable
from typing import Final

from actors import lifecycle
from actors.lifecycle import Job
from actors.messages import Due

#: Seconds that one step of the JobStore, with its commit, may take before it counts as stuck; and for which a
#: disk counts as full after a write without space.
STUCK: Final = 5.0


class Vitals:
    """Written by the JobStore's thread alone; each attribute is one reference, so any thread may read it.

    Times are those of the monotonic clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        #: Since when the JobStore has been in one step, with its commit; None between two.
        self.busy_since: float | None = None
        #: When a write last failed for want of disk space; None if one has succeeded since.
        self.full_at: float | None = None
        self.is_broken = False
        #: Types of pending jobs that have no handler.
        self.unhandled: frozenset[str] = frozenset()
        #: The pending job that is next; None if none is due.
        self.next: Job | Due | None = None

    def oldest_due_seconds(self, now: float) -> float:
        """Return for how long the next job has been due at this wall time; 0 if there is none."""
        job = self.next
        if job is None:
            return 0.0
        since = job.run_at.timestamp() if job.run_at is not None else lifecycle.submitted_at(job.id)
        return max(0.0, now - since)

    def problem(self) -> str | None:
        """Return why nothing can be stored at this moment; None if all is well."""
        since = self.busy_since
        if since is not None and self._monotonic() - since > STUCK:
            return f"the JobStore has been in one step for over {STUCK:g} seconds: the disk is slow or stuck"
        if self.is_broken:
            return "the storage is broken; the next start will check it"
        # Only for a while, as nothing is tried again for refused submits, and the disk may have space since.
        full_at = self.full_at
        is_full = full_at is not None and self._monotonic() - full_at <= STUCK
        return "the disk is full: nothing can be stored" if is_full else None
