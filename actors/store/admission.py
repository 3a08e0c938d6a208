"""Admission: whether more jobs may become pending."""

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

    def see_that_it_goes_on(self) -> None:
        """Raise Draining while the service stops."""
        if not self._interrupts.admits:
            raise Draining(
                "the service is stopping; repeat this at the next one, which goes on with the rest"
            )

    def admit(self, jobs: int, size: int, *, delayed: int = 0, delayed_size: int = 0) -> None:
        """Raise Draining or CapacityReached unless so many jobs may become pending, all of them.

        They have `size` bytes of payload. So many of them are `delayed`, with `delayed_size` of the bytes.
        """
        if not self._interrupts.admits:
            raise Draining("the service is stopping and takes no new job; send it to the next one")
        pending, settings = self._totals.jobs, self._settings
        if delayed:
            _see_room(
                pending[DELAYED], delayed, settings.capacity_delayed, "delayed ", "GOFER_CAPACITY_DELAYED"
            )
        if jobs > delayed:
            _see_room(pending[Status.PENDING], jobs - delayed, settings.capacity, "", "GOFER_CAPACITY")
        self._admit_bytes(size, delayed_size)

    def _admit_bytes(self, size: int, delayed_size: int) -> None:
        # Where nothing is pending, any size is admitted: waiting would not help.
        delayed, limit = self._totals.bytes[DELAYED], self._settings.capacity_bytes
        pending = delayed + self._totals.bytes[Status.PENDING]
        if pending and pending + size > limit:
            raise CapacityReached(
                f"{pending} bytes are pending, and with {size} more they would exceed {limit}"
                " (GOFER_CAPACITY_BYTES); try again later"
            )
        if delayed_size and delayed and delayed + delayed_size > limit // 2:
            raise CapacityReached(
                f"{delayed} bytes of delayed jobs are pending, and with {delayed_size} more they would"
                f" exceed half of {limit} (GOFER_CAPACITY_BYTES); try again later"
            )


def _see_room(pending: int, more: int, capacity: int, kind: str, setting: str) -> None:
    if pending + more > capacity:
        advice = "try again later" if more <= capacity else "send fewer together"
        raise CapacityReached(
            f"{pending} {kind}jobs are pending, and with {more} more they would exceed {capacity}"
            f" ({setting}); {advice}"
        )
