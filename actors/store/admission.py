"""Admission: whether one more job may become pending."""

from actors.errors import CapacityReached, Draining
from actors.interrupts import Interrupts
from actors.lifecycle import Status
from actors.store.database import Database


class Admission:
    """Admits pending jobs up to the capacity, and none while the service stops.

    The limit is enforced on submit, in the same step that stores the job, and not in the channel. So a
    delivery never blocks, and nothing is stored that cannot be queued.
    """

    def __init__(self, database: Database, interrupts: Interrupts, capacity: int) -> None:
        self._database = database
        self._interrupts = interrupts
        self._capacity = capacity

    def admit(self) -> None:
        """Raise Draining or CapacityReached if no job may become pending."""
        if not self._interrupts.admits:
            raise Draining("the service is stopping and takes no new job; send it to the next one")
        if self._database.counts[Status.PENDING] >= self._capacity:
            raise CapacityReached(
                f"{self._capacity} jobs are pending, which is the capacity; try again later"
            )
