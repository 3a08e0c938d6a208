"""The buffered channel of jobs, which the mailboxes of all Workers share.

Why no receiver waits forever: one lock guards the channel and every mailbox on it, and one condition
(`changed`) is notified after each change under that lock. A receiver waits on it only after it has seen,
under the lock, that nothing is there. `send` wakes one receiver, because one is enough to take one message;
a receiver that leaves with something and sees more behind it wakes the next. So a wake-up that reaches a
receiver that found other work is passed on, never lost.

Delayed messages are timed by one receiver (the leader of the leader-follower pattern); the others wait
without a limit, so that a message that becomes due wakes one thread and not all. While a receiver waits and
a delayed message is queued, there is such a leader or a wake-up on its way: a message that is due earlier
than all others deposes the leader and wakes a receiver, which becomes the next; and a receiver that leaves
without a leader behind it wakes one.

Two clocks tell when a delayed message is due, whichever is first: the monotonic one, by the delay, so that
a wall clock that is set back delays nothing; and the wall clock, by the time to run at, because the
monotonic one stands still while the machine sleeps, and a job from an earlier process knows the wall clock
alone.

A crash here loses nothing: the channel is only delivery, and the JobStore has reserved every job in it.
"""

import heapq
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from actors.messages import Message

T = TypeVar("T")

#: Seconds after which the wall clock is looked at, at least, while a message waits for it.
LOOK: Final = 60.0
#: Seconds by which the wall clock must have moved against the monotonic one to count as set.
JUMP: Final = 1.0


class Channel:
    """The buffered channel: each message in it goes to exactly one of the mailboxes that receive.

    It has no bound of its own: the JobStore sends no more than there is room for, so `send` never blocks.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        #: Guards the channel and the mailboxes on it. Used directly: a Condition's `with` is slower.
        self.lock = threading.Lock()
        #: Notified when there may be something to take.
        self.changed = threading.Condition(self.lock)
        self._monotonic = monotonic
        self._wall = wall
        #: By how much the wall clock was ahead of the monotonic one when that was last looked at.
        self._ahead = wall() - monotonic()
        #: Each with the time from which it is due, in this order.
        self._immediate: deque[tuple[float, Message]] = deque()
        self._delayed: list[tuple[float, int, Message, float]] = []
        self._order = itertools.count()
        #: Stands for the one receiver that waits no longer than until the next delayed message is due.
        self._timing: object | None = None
        #: How many receivers wait.
        self.waiting = 0
        self._is_open = True

    @property
    def is_open(self) -> bool:
        """Whether messages are still handed out."""
        return self._is_open

    @property
    def immediate(self) -> int:
        """How many messages without a delay are queued; without the lock, so only a hint."""
        return len(self._immediate)

    @property
    def delayed(self) -> int:
        """How many messages with a delay are queued, due or not; a hint, too."""
        return len(self._delayed)

    def send(self, message: Message, delay: float | None = None, at: float = math.inf) -> None:
        """Hand the message to one receiver when `delay` seconds have passed, or the wall clock shows `at`.

        What is due first is handed out first; a negative delay says that it has long been.
        """
        with self.lock:
            if delay is None:
                self._immediate.append((self._monotonic(), message))
                self._wake_one()
            else:
                item = (self._monotonic() + delay, next(self._order), message, at)
                heapq.heappush(self._delayed, item)
                if self._delayed[0] is item:
                    self._timing = None  # The receiver that times the next message would wake too late.
                    self._wake_one()

    def receive(self, own: deque[T]) -> T | Message:
        """Wait for the first of a receiver's `own` messages or, behind them, for one from the channel."""
        with self.lock:
            taken = own.popleft() if own else self.take()
            while taken is None:
                self._wait_for_next()
                taken = own.popleft() if own else self.take()
            # The notify that woke us may have been meant for what we leave behind.
            if self._immediate or (self._delayed and self._timing is None):
                self._wake_one()
        return taken

    def wait(self, own: deque[T], seconds: float) -> bool:
        """Wait until `own` has a message, for at most `seconds`; return whether it has."""
        with self.lock:
            if not own:
                self._wait(seconds)
            return bool(own)

    def _wake_one(self) -> None:
        if self.waiting:  # Notifying costs more than looking whether it is needed.
            self.changed.notify()

    def _wait_for_next(self) -> None:
        """Wait for a change, or until the next message is due if no other receiver is timing that."""
        seconds = self.seconds_to_next()
        if seconds is None or self._timing is not None:
            self._wait(None)
            return
        me = self._timing = object()
        try:
            self._wait(min(seconds, LOOK))
        finally:
            if self._timing is me:
                self._timing = None

    def _wait(self, seconds: float | None) -> None:
        self.waiting += 1
        try:
            self.changed.wait(seconds)
        finally:
            self.waiting -= 1

    def _look_at_wall(self) -> None:
        """Bring forward what the wall clock says is due, if it was set forward or the machine slept."""
        ahead = self._wall() - self._monotonic()
        if ahead > self._ahead + JUMP:
            self._delayed = [
                (min(due, at - ahead), order, message, at) for due, order, message, at in self._delayed
            ]
            heapq.heapify(self._delayed)
            self._timing = None  # The receiver that times the next message would wake too late.
        if abs(ahead - self._ahead) > JUMP:
            self._ahead = ahead

    def close(self) -> None:
        """Hand out nothing from now on; what is queued can still be withdrawn."""
        with self.lock:
            self._is_open = False

    def holds(self, is_wanted: Callable[[Message], bool]) -> bool:
        """Tell whether such a message is still queued, without a delay."""
        with self.lock:
            return any(is_wanted(message) for _, message in self._immediate)

    def withdraw(self, is_wanted: Callable[[Message], bool]) -> list[Message]:
        """Take these messages back, as far as nobody has taken them, and return them."""
        with self.lock:
            withdrawn = [message for _, message in self._immediate if is_wanted(message)]
            withdrawn += [item[2] for item in self._delayed if is_wanted(item[2])]
            if withdrawn:
                self._immediate = deque(item for item in self._immediate if not is_wanted(item[1]))
                self._delayed = [item for item in self._delayed if not is_wanted(item[2])]
                heapq.heapify(self._delayed)
            return withdrawn

    def take(self) -> Message | None:
        """Take the message that has been due for longest, if any is. The caller holds the lock."""
        if not self._is_open:
            return None
        if self._delayed:
            self._look_at_wall()
        limit = self._immediate[0][0] if self._immediate else self._monotonic()
        if self._delayed and self._delayed[0][0] <= limit:
            return heapq.heappop(self._delayed)[2]
        return self._immediate.popleft()[1] if self._immediate else None

    def seconds_to_next(self) -> float | None:
        """Return how long until a message can be taken, None if none is queued. The lock is held."""
        if not self._is_open or not (self._immediate or self._delayed):
            return None
        if self._immediate:
            return 0.0
        return min(max(0.0, self._delayed[0][0] - self._monotonic()), threading.TIMEOUT_MAX)
