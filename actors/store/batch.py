"""What the messages of one commit have in common: none is answered before it is durable.

Why it is right: messages are handled inside one open transaction, and their answers are held back here. If
the commit returns, all of them are durable, and the answers are given. If anything fails before that, all
of them are rolled back together, so an answer never runs ahead of the disk. A crash between the commit and
the answers leaves durable jobs whose clients were told nothing, which is the only order that is safe.

Why it waits: a commit costs an fsync, so messages share it. What is in the mailbox already shares it for
free. Beyond that a batch waits once if nobody waits for it, all of its messages being what Workers tell,
and the Workers have jobs to go on with: for half as long as those last, at most LINGER seconds, or until
somebody asks. So telling wakes the JobStore's thread only once for many jobs.
"""

from typing import Any, Final

import msgspec

from actors.errors import StorageFailed
from actors.messages import Begin, Outcome, Progress
from actors.messaging.mailbox import Mailbox
from actors.messaging.reply import Held, wake
from actors.store.faults import Fate, fates

#: Messages per commit, at most: enough to share an fsync, few enough that none waits for long.
BATCH: Final = 256
#: Bytes of payloads and results per commit, about: the WAL must hold a whole transaction.
BATCH_BYTES: Final = 4 * 1024 * 1024
#: Seconds that a batch waits for company, at most.
LINGER: Final = 0.001
#: Messages that no asker waits for.
TOLD: Final = (Begin, Outcome, Progress)


class Entry(Held):
    """A message that the JobStore handles, and its answer, which is held back until it is durable."""

    __slots__ = ("answer", "message", "refusal", "tries")

    def __init__(self, message: Any) -> None:
        self._reply = self._outcome = None  # As Held does: one call less for each message.
        self.message = message
        self.answer: Any = None
        self.refusal: Exception | None = None
        #: How often it was kept for another try.
        self.tries = 0


class Batch(msgspec.Struct):
    """The messages that were handled in the open transaction, and when it is time to commit them."""

    entries: list[Entry] = []
    #: Whether an asker waits for the commit; what was only told can wait a little.
    is_awaited: bool = False
    has_lingered: bool = False
    #: How many jobs had finished when the answers for who waits for them were last taken.
    finished: int = 0

    def add(self, entry: Entry) -> None:
        """Note that a message was handled."""
        self.entries.append(entry)
        self.is_awaited = self.is_awaited or not isinstance(entry.message, TOLD)

    def is_at_limit(self, size: int) -> bool:
        """Tell whether it holds as much as a commit may, with `size` bytes written."""
        return len(self.entries) >= BATCH or size >= BATCH_BYTES

    def gather(self, inbox: Mailbox, size: int, ahead: float) -> bool:
        """Return whether it is now time to commit; wait once, if that is worth it.

        The Workers have jobs for about `ahead` seconds.
        """
        if self.is_at_limit(size):
            return True
        if inbox.own:
            return False
        if self.has_lingered or self.is_awaited or ahead <= 0:
            return True
        self.has_lingered = True
        return not inbox.wait_for_ask(min(LINGER, ahead / 2))


def give_last(entries: list[Entry], failure: StorageFailed) -> None:
    """Answer every asker when nothing is stored any longer."""
    for entry in entries:
        is_refused = fates(entry.message).broken is Fate.REFUSED
        entry.answer = None
        entry.refusal = (entry.refusal or failure) if is_refused else None
    give(entries)


def give(entries: list[Entry]) -> None:
    """Answer every asker, and only then wake those that wait on an event loop, all together."""
    waiting = [waiter for entry in entries for waiter in entry.settle(entry.answer, entry.refusal)]
    if waiting:
        wake(waiting)
