"""Admission: whether one more job may become pending."""

from actors.errors import CapacityReached, Draining
from actors.interrupts import Interrupts
from actors.lifecycle import Status
from actors.settings import Settings
from actors.store.totals import DELAYED, Totals


class Admission:
    """Admits pending jobs up to the capacity, in jobs and in bytes, and none while the service stops.

    Delayed jobs have a limit of their own, and at most half of the bytes, so that they never take the place
    of jobs that could run. The limits are enforced on submit, in the same step that stores the job, and not
    in the channel. So a delivery never blocks, and nothing is stored that cannot be queued.
    """

    def __init__(self, totals: Totals, interrupts: Interrupts, settings: Settings) -> None:
        self._totals = totals
        self._interrupts = interrupts
        self._settings = settings

    def admit(self, size: int, *, is_delayed: bool = False) -> None:
        """Raise Draining or CapacityReached if no job with `size` bytes of payload may become pending."""
        if not self._interrupts.admits:
            raise Draining("the service is stopping and takes no new job; send it to the next one")
        jobs, settings = self._totals.jobs, self._settings
        if is_delayed and jobs[DELAYED] >= settings.capacity_delayed:
            raise CapacityReached(
                f"{settings.capacity_delayed} delayed jobs are pending, which is the limit"
                " (GOFER_CAPACITY_DELAYED); try again later"
            )
        if not is_delayed and jobs[Status.PENDING] >= settings.capacity:
            raise CapacityReached(
                f"{settings.capacity} jobs are pending, which is the capacity (GOFER_CAPACITY);"
                " try again later"
            )
        self._admit_bytes(size, is_delayed=is_delayed)

    def _admit_bytes(self, size: int, *, is_delayed: bool) -> None:
        # Where nothing is pending, a job is admitted whatever its size: waiting would not help it.
        delayed, limit = self._totals.bytes[DELAYED], self._settings.capacity_bytes
        pending = delayed + self._totals.bytes[Status.PENDING]
        if pending and pending + size > limit:
            raise CapacityReached(
                f"{pending} bytes are pending, and with the {size} of this job they would exceed {limit}"
                " (GOFER_CAPACITY_BYTES); try again later"
            )
        if is_delayed and delayed and delayed + size > limit // 2:
            raise CapacityReached(
                f"{delayed} bytes of delayed jobs are pending, and with the {size} of this one they would"
                f" exceed half of {limit} (GOFER_CAPACITY_BYTES); try again later"
            )
