"""What waits in the JobStore: the askers of Await for a job, and messages for the disk."""

from collections.abc import Callable
from typing import Final

from actors.messages import Begin, Cancelled, Complete, CutOff, Fail, Message, Release, SweepAwaits
from actors.store.batch import Entry
from actors.store.faults import not_stored

#: How often a message that fails by itself is tried again.
MOST_TRIES: Final = 3
#: Seconds between two looks for Awaits whose askers have given up.
SWEEP: Final = 1.0


class Awaits:
    """The askers of Await, by job. While there are any, those are forgotten now and then that have given up.

    So a client that has gone leaves nothing behind, even if its job takes long and nothing else is asked.
    """

    def __init__(self, remind: Callable[[Message, float], None]) -> None:
        """Keep none yet; `remind` brings a message back to the JobStore after so many seconds."""
        self._entries: dict[str, list[Entry]] = {}
        self._remind = remind
        self._is_reminded = False
        #: Whether none is to be kept any longer, as no job will finish here, or the service stops.
        self.is_closed = False

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._entries

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def add(self, entry: Entry) -> None:
        """Keep an Await until its job is finished, or its asker has given up."""
        self._entries.setdefault(entry.message.id, []).append(entry)
        if not self._is_reminded:
            self._is_reminded = True
            self._remind(SweepAwaits(), SWEEP)

    def take(self, job_id: str) -> list[Entry]:
        """Return those that wait for this job, and forget them."""
        return self._entries.pop(job_id, [])

    def take_all(self) -> list[Entry]:
        """Return all, and forget them."""
        taken, self._entries = self._entries, {}
        return [entry for entries in taken.values() for entry in entries]

    def close(self) -> list[Entry]:
        """Return all, and forget them; what comes from now on is to be answered immediately."""
        self.is_closed = True
        return self.take_all()

    def sweep(self) -> None:
        """Forget those whose askers have given up; if any are left, this is to be done again."""
        self._is_reminded = False
        for entry in self.take_all():
            if not entry.is_given_up:
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
