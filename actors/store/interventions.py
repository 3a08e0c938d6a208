"""Interventions: what clients do to jobs that are there. Cancel or retry one, or step by step all that match.

A step deals with few jobs, so that it holds nothing up, and is one commit with whatever else is there. The
steps follow the ids from the first to the last that there was at the beginning. So they end, whatever is
submitted meanwhile; no job comes twice, even if it fails again after its retry; and if they end early, with
the process or with the capacity, those that are left still match, and a repeat goes on with them.
"""

from typing import Final, TypeVar

from msgspec.structs import replace

from actors import lifecycle
from actors.errors import CapacityReached
from actors.lifecycle import MOVES, Job, Status
from actors.requests import CancelMany, Done, Many, RetryMany
from actors.store.admission import Admission
from actors.store.attempts import Attempts
from actors.store.database import Database, Past
from actors.store.moves import Moves
from actors.store.reservations import Reservations

#: Jobs in one step, at most, and bytes that it writes, about.
STEP: Final = 100
STEP_BYTES: Final = 1024 * 1024

M = TypeVar("M", CancelMany, RetryMany)


class Interventions:
    """Cancels and retries in the open transaction. Its methods raise sqlite3.Error."""

    def __init__(
        self,
        database: Database,
        moves: Moves,
        reservations: Reservations,
        attempts: Attempts,
        admission: Admission,
    ) -> None:
        self._database = database
        self._moves = moves
        self._reservations = reservations
        self._attempts = attempts
        self._admission = admission

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; one that runs is still processing. Raises JobNotFound or IllegalMove."""
        self._moves.look()
        runs = self._reservations.runs
        if job_id in runs.reserved and not self._reservations.take_back(job_id):
            self._attempts.begin(job_id)  # A Worker was faster.
        before, past = self._database.existing(job_id)
        after = self._cancel(before, before.payload_size, past)
        if after.status is Status.PROCESSING:
            return runs.with_progress(after)
        self._reservations.forget(before)
        return after

    def retry(self, job_id: str) -> Job:
        """Make a job pending again. Raises JobNotFound, IllegalMove, CapacityReached or Draining."""
        before, past = self._database.existing(job_id)
        return self._retry(before, before.payload_size, past)

    def cancel_many(self, message: CancelMany) -> Done:
        """Cancel the next jobs that match."""
        message = self._begun(message)
        found = self._next(message, "cancel")
        running = 0
        for before, payload, past in found:
            is_sent = before.id in self._reservations.runs
            after = self.cancel(before.id) if is_sent else self._cancel(before, payload, past)
            running += after.status is Status.PROCESSING
        for before in {before.type: before for before, _, _ in found}.values():
            self._reservations.forget(before)
        return Done(len(found) - running, running, self._rest(message, found))

    def retry_many(self, message: RetryMany) -> Done:
        """Make the next jobs that match pending again. Raises CapacityReached or Draining if none can be."""
        message = self._begun(message)
        found = self._next(message, "retry")
        for place, (before, payload, past) in enumerate(found):
            try:
                self._retry(before, payload, past)
            except CapacityReached:
                if not place:
                    raise
                return Done(place, 0, replace(message, after=found[place - 1][0].id))
        return Done(len(found), 0, self._rest(message, found))

    def _cancel(self, before: Job, payload: int, past: Past) -> Job:
        after = lifecycle.cancelled(before, self._moves.look())
        if before.status is Status.PROCESSING:
            self._database.mark_unwanted(before.id)
            self._moves.changes.cancelled.add(before.id)
            return before
        self._moves.write(before, after, past._replace(crashes=0), payload=payload)
        return after

    def _retry(self, before: Job, payload: int, past: Past) -> Job:
        after = lifecycle.retried(before)
        self._admission.admit(1, payload)
        self._moves.write(before, after, past._replace(crashes=0), payload=payload)
        return after

    def _begun(self, message: M) -> M:
        self._admission.see_that_it_goes_on()
        return replace(message, last=self._database.last_id()) if message.last is None else message

    def _next(self, message: CancelMany | RetryMany, move: str) -> list[tuple[Job, int, Past]]:
        """Return the next jobs, each with the bytes of its payload and its past."""
        from_any, _ = MOVES[move]
        statuses = from_any if message.status is None else (Status(message.status),)
        found: list[tuple[Job, int, Past]] = []
        size = 0
        for one in self._database.matching(statuses, message, STEP):
            found.append(one)
            size += one[1]
            if size >= STEP_BYTES:
                break
        return found

    def _rest(self, message: Many, found: list[tuple[Job, int, Past]]) -> Many | None:
        """Return what asks for the step after this one; only one that found nothing was the last."""
        return replace(message, after=found[-1][0].id) if found else None
