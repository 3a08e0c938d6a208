"""What the messages of one commit have in common: nobody gets an answer before it is durable."""

from typing import Any, Final, NamedTuple

from actors.messages import Claim, Outcome, Progress
from actors.reply import Held, wake

#: Messages per commit at the most: enough to share an fsync, few enough that nobody waits for long.
BATCH: Final = 256
#: Claims per commit at the most: Workers that all waited for one commit would go on in step.
CLAIMS: Final = 8
#: Bytes of payloads and results per commit, about: what a transaction holds, the WAL has to hold.
BATCH_BYTES: Final = 4 * 1024 * 1024
#: To whom, what, or the refusal.
Answer = tuple[Held, Any, Exception | None]


class Entry(NamedTuple):
    """A message that was handled, and the answer that is held back until that is durable."""

    held: Held
    message: Any
    answer: Any = None
    refusal: Exception | None = None


class Batch:
    """The messages that were handled in the open transaction."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.claims = 0
        #: Whether somebody waits for the commit; nobody waits for what was only told.
        self.is_awaited = False
        self.has_lingered = False

    def is_full(self, size: int) -> bool:
        """Tell whether it is time to commit, with so many bytes written, whatever else there is to do."""
        return len(self.entries) >= BATCH or self.claims >= CLAIMS or size >= BATCH_BYTES

    def add(self, entry: Entry) -> None:
        """Note that a message was handled."""
        self.entries.append(entry)
        self.claims += isinstance(entry.message, Claim)
        self.is_awaited = self.is_awaited or not isinstance(entry.message, Outcome | Progress)


def give(answers: list[Answer]) -> None:
    """Answer everyone, and only then wake those who wait on an event loop, all at once."""
    wake([waiter for held, answer, refusal in answers for waiter in held.settle(answer, refusal)])
