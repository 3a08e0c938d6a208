"""The mailbox of an actor, and the channel of jobs that the mailboxes of all Workers share.

Pykka's own inbox is a plain queue. It puts a stop behind everything that is queued (pykka issue 46), cannot
be shared, and leaves an ask that comes after the end unanswered; this one does none of that.
"""

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import pykka

from actors import log
from actors.messages import Message


class Envelope(Protocol):
    """What pykka puts into an inbox and takes out of it."""

    message: Any
    reply_to: pykka.Future[Any] | None


class Delivery:
    """An envelope around a message from the channel, to which nobody expects an answer."""

    __slots__ = ("message", "reply_to")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.reply_to: pykka.Future[Any] | None = None


class Channel:
    """The buffered channel: each message in it goes to exactly one of the mailboxes that receive.

    It has no bound of its own: the JobStore admits no more jobs than the capacity, so `send` never blocks.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        #: Guards the channel and the mailboxes on it. Used by itself, as a Condition's `with` is Python code.
        self.lock = threading.Lock()
        #: Notified when there may be something to take.
        self.changed = threading.Condition(self.lock)
        self._clock = clock
        #: Each with the time from which it is due, in this order.
        self._prompt: deque[tuple[float, Message]] = deque()
        self._delayed: list[tuple[float, int, Message]] = []
        self._order = itertools.count()
        self._is_open = True

    @property
    def is_open(self) -> bool:
        """Whether messages are still handed out."""
        return self._is_open

    @property
    def prompt(self) -> int:
        """How many messages without a delay are queued; without the lock, so only a hint."""
        return len(self._prompt)

    @property
    def delayed(self) -> int:
        """How many messages with a delay are queued, due or not; a hint, too."""
        return len(self._delayed)

    def send(self, message: Message, delay: float | None = None) -> None:
        """Hand the message to one receiver, not before `delay` seconds have passed.

        What is due first is handed out first; a negative delay says that it has long been.
        """
        with self.lock:
            if not self._is_open:
                return
            if delay is None:
                self._prompt.append((self._clock(), message))
            else:
                heapq.heappush(self._delayed, (self._clock() + delay, next(self._order), message))
            self.changed.notify()

    def close(self) -> None:
        """Hand out nothing any more, and forget what is queued."""
        with self.lock:
            self._is_open = False
        self.clear()

    def clear(self) -> None:
        """Forget what is queued; the JobStore has it as pending."""
        with self.lock:
            self._prompt.clear()
            self._delayed.clear()

    def take(self) -> Message | None:
        """Take the message that has been due for longest, if any is. The caller holds the lock."""
        limit = self._prompt[0][0] if self._prompt else self._clock()
        if self._delayed and self._delayed[0][0] <= limit:
            return heapq.heappop(self._delayed)[2]
        return self._prompt.popleft()[1] if self._prompt else None

    def seconds_to_next(self) -> float | None:
        """Return how long until a message can be taken, None if none is queued. The lock is held."""
        if self._prompt:
            return 0.0
        if not self._delayed:
            return None
        return min(max(0.0, self._delayed[0][0] - self._clock()), threading.TIMEOUT_MAX)


class Mailbox:
    """One actor's inbox: its own messages, and behind them those of the channel it receives from.

    Its own come first, so a stop overtakes every queued job; and since teardown sees only its own,
    a stopping Worker takes nothing from its siblings.
    """

    def __init__(self) -> None:
        self._channel = Channel()
        self._own: deque[Envelope] = deque()
        self._reader: int | None = None
        self._stopped = threading.Event()

    def open(self, stopped: threading.Event, channel: Channel | None = None) -> None:
        """Say, before the actor starts, what tells its end and which channel it receives from."""
        self._stopped = stopped
        self._channel = channel or self._channel

    def put(self, envelope: Envelope, /) -> None:
        """Queue a message for this actor alone, or answer it at once if the actor has stopped.

        Who asks itself, as a handler does that stops its own Worker, would wait for ever; it is told.
        """
        asks_itself = envelope.reply_to is not None and threading.get_ident() == self._reader
        with self._channel.lock:
            is_queued = not self._stopped.is_set()
            if is_queued:
                self._own.append(Delivery(envelope.message) if asks_itself else envelope)
                self._channel.changed.notify_all()
        if envelope.reply_to is not None and (asks_itself or not is_queued):
            reason = (
                "an actor cannot wait for itself" if is_queued else "the actor stopped before handling it"
            )
            dead = pykka.ActorDeadError(reason)
            envelope.reply_to.set_exception((pykka.ActorDeadError, dead, None))

    def get(self) -> Any:
        """Wait for the next envelope. Never raises: pykka calls it outside its `try`."""
        while True:
            try:
                return self._next()
            except BaseException:  # noqa: BLE001 - one sent to this thread, such as a time limit of a handler's own
                log.logger("Mailbox").exception("an exception came too late for the handler it was meant for")

    def _next(self) -> Envelope:
        self._reader = threading.get_ident()
        changed = self._channel.changed
        with self._channel.lock:
            envelope = self._take()
            while envelope is None:
                changed.wait(self._channel.seconds_to_next())
                envelope = self._take()
            # The notify that woke us may have been meant for what we leave behind, and no other waiter
            # may know when that is due: whoever leaves wakes the next.
            if self._channel.seconds_to_next() is not None:
                changed.notify()
        return envelope

    def remind(self, message: Message, delay: float) -> None:
        """Hand the message to this actor (or a sibling on its channel) after so many seconds."""
        self._channel.send(message, delay)

    def empty(self) -> bool:
        """Tell whether no message for this actor alone is waiting, nor being put."""
        with self._channel.lock:
            return not self._own

    def has_more(self) -> bool:
        """Tell whether one is there at this moment, without the lock: cheap, and only a hint."""
        return bool(self._own)

    def wait(self, seconds: float) -> bool:
        """Wait until a message for this actor alone is there, for so many seconds at the most."""
        with self._channel.lock:
            return self._channel.changed.wait_for(lambda: bool(self._own), seconds)

    def _take(self) -> Envelope | None:
        if self._own:
            return self._own.popleft()
        message = self._channel.take()
        return None if message is None else Delivery(message)
