"""What happened in a seed: its last events in words, a hash of all of them, and what broke a rule."""

import zlib
from collections import Counter, deque
from typing import Final, NamedTuple

from tests.simulation.clock import Clock

#: Events that a failure shows.
SHOWN: Final = 50
#: What should be reached by some seed of many: where it is not, nothing is tested.
SITUATIONS: Final = (
    "an audit",
    "a recovery",
    "a start cut or refused",
    "a start cut in a migration",
    "a kill during a sync",
    "a slow sync",
    "a write on a full disk",
    "a broken read",
    "a broken write",
    "a broken sync",
    "a broken open",
    "a batch rolled back",
    "a job repeated",
    "a job stored by a repeat",
    "a batch rolled back with a beginning in it",
    "a message kept for later",
    "the storage is broken",
    "a further page of the backlog read",
    "a line emptied to be read again",
    "a cancel of a running job",
    "an illegal move refused",
    "the clock set back under waiting jobs",
    "a suspect that waits",
    "a suspect that must run alone",
    "finished jobs deleted",
    "an asker that has given up",
    "an await answered at a stop",
    "a job convicted",
    "a job given back at a stop",
    "a job reserved ahead of the Workers",
    "a reserved job cancelled",
    "reserved jobs taken back at a stop",
    "what was taken out of the channel put back",
    "an outcome tells that a job had begun",
    "a job that had perhaps begun",
)


class Failure(NamedTuple):
    """A rule that was broken."""

    rule: str
    what: str


class Events:
    """The events of one seed. The same seed has the same, and so the same hash."""

    def __init__(self, clock: Clock, *, keeps_all: bool = False) -> None:
        self._clock = clock
        self.last: deque[str] = deque(maxlen=None if keeps_all else SHOWN)
        self.hash = 0
        #: How many there were: a time that orders what happens at the same second.
        self.count = 0
        #: How often each situation was reached that one wants to be reached sometimes.
        self.reached: Counter[str] = Counter()
        #: The first rule that was broken.
        self.failure: Failure | None = None

    def note(self, event: str) -> None:
        """Note an event."""
        self.count += 1
        line = f"{self._clock.now:12.6f} {event}"
        self.last.append(line)
        self.hash = zlib.crc32(line.encode(), self.hash)

    def reach(self, situation: str) -> None:
        """Count a situation."""
        self.reached[situation] += 1

    def fail(self, rule: str, what: str) -> None:
        """Note that a rule was broken; the first time counts, as the rest may follow from it."""
        if self.failure is None:
            self.note(f"broken: {rule}: {what}")
            self.failure = Failure(rule, what)
