"""What waits in the JobStore: the askers of Await for a job, and messages for the disk."""

from typing import Final

from actors.messages import Begin, Cancelled, Complete, CutOff, Fail, Release
from actors.store.batch import Entry
from actors.store.faults import not_stored

#: How often a message that fails by itself is tried again.
MOST_TRIES: Final = 3
#: Awaits at which those are first looked for whose askers have given up.
SWEEP: Final = 64


class Awaits:
    """The askers of Await, by job."""

    def __init__(self) -> None:
        self._entries: dict[str, list[Entry]] = {}
        self._count = 0
        #: At how many those are thrown out whose askers have given up.
        self._sweep_at = SWEEP

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._entries

    def add(self, entry: Entry) -> None:
        """Keep an Await until its job is finished, or its asker has given up."""
        if self._count >= self._sweep_at:
            self._sweep()
        self._entries.setdefault(entry.message.id, []).append(entry)
        self._count += 1

    def take(self, job_id: str) -> list[Entry]:
        """Return those that wait for this job, and forget them."""
        taken = self._entries.pop(job_id, [])
        self._count -= len(taken)
        return taken

    def take_all(self) -> list[Entry]:
        """Return all, and forget them."""
        taken, self._entries, self._count = self._entries, {}, 0
        return [entry for entries in taken.values() for entry in entries]

    def _sweep(self) -> None:
        # At twice what was left: so each Await is looked at about once, however many there are.
        left = [entry for entry in self.take_all() if not entry.is_given_up]
        self._sweep_at = max(SWEEP, 2 * len(left))
        for entry in left:
            self.add(entry)


class Kept:
    """Beginnings and outcomes that could not be stored yet."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def add(self, entry: Entry, error: BaseException, *, is_its_own: bool) -> bool:
        """Keep a message for another try; an outcome that fails each time becomes a failure that says why.

        `is_its_own` tells whether the error is this message's own. Returns False if it has failed so often
        that nothing but an end of the JobStore is left; it is kept all the same, so that its asker is
        answered then.
        """
        self._entries.append(entry)
        entry.tries += is_its_own
        if entry.tries <= MOST_TRIES:
            return True
        message = entry.message
        if isinstance(message, Begin):
            self._entries.remove(entry)  # The outcome will tell of it, too.
            return True
        if not isinstance(message, Complete | CutOff | Release | Cancelled):
            return False
        reason = f"the outcome could not be stored: {not_stored(error)}"
        entry.message, entry.tries = Fail(message.id, message.attempt, reason), 0
        return True

    def take_all(self) -> list[Entry]:
        """Return all in their order, and forget them."""
        taken, self._entries = self._entries, []
        return taken
