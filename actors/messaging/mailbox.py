"""The mailbox of an actor: its own messages first, then those of the channel it receives from.

Pykka's own inbox is a plain queue. It puts a stop behind everything that is queued (pykka issue 46), cannot
be shared, and leaves an ask that comes after the end unanswered; this one does none of that.

Why every ask is answered: pykka sets `actor_stopped` before it empties the inbox for the last time. `put`
tests that event and queues the message under the lock with which `empty` and `get` look, so a message is
either queued before the last look, and answered by pykka's teardown, or sees the event and is answered
here.

Why a stop overtakes the jobs: it is put into the mailbox, jobs lie in the channel, and `get` looks into the
mailbox first. A put wakes all receivers (`notify_all`), because only one of them owns the message.
"""

import threading
from collections import deque
from typing import Any, Final, Protocol

import pykka

from actors import log
from actors.errors import CapacityReached
from actors.messages import Message
from actors.messaging.channel import Channel
from actors.messaging.reply import Reply

#: Bytes of submits that may wait in one mailbox, about, before the next one is refused.
MOST_BYTES: Final = 64 * 1024 * 1024


class Envelope(Protocol):
    """What pykka puts into an inbox and takes out of it."""

    message: Any
    reply_to: pykka.Future[Any] | None


class Delivery:
    """An envelope around a message from the channel, which needs no answer."""

    __slots__ = ("message", "reply_to")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.reply_to: pykka.Future[Any] | None = None


class Mailbox:
    """One actor's inbox: its own messages, and behind them those of the channel it receives from.

    Its own come first, so a stop overtakes every queued job; and since teardown sees only its own,
    a stopping Worker takes nothing from its siblings.
    """

    def __init__(self) -> None:
        self._channel = Channel()
        #: Messages for this actor alone; without the channel's lock, no more than a hint.
        self.own: deque[Envelope] = deque()
        self._reader: int | None = None
        #: That of the actor, so that the code that stops it can wait for its end.
        self.thread: threading.Thread | None = None
        self._stopped = threading.Event()
        #: Bytes of the messages of its own that are queued, about.
        self._bytes = 0
        #: Whether the reader waits for an ask, and is not to be woken for what is only told.
        self._is_patient = False

    def open(self, stopped: threading.Event, channel: Channel | None = None) -> None:
        """Say, before the actor starts, what tells its end and which channel it receives from."""
        self._stopped = stopped
        self._channel = channel or self._channel

    def put(self, envelope: Envelope, /) -> None:
        """Queue a message for this actor alone, or answer it immediately if the actor has stopped.

        An actor that asks itself (a handler that stops its own Worker) would wait forever, so it gets an
        error.
        """
        asks_itself = envelope.reply_to is not None and threading.get_ident() == self._reader
        with self._channel.lock:
            is_queued = not self._stopped.is_set()
            if is_queued:
                self._bytes = self._admitted(envelope.message)
                self.own.append(Delivery(envelope.message) if asks_itself else envelope)
                is_wanted = envelope.reply_to is not None or not self._is_patient
                if self._channel.waiting and is_wanted:  # All, as only one of them owns the message.
                    self._channel.changed.notify_all()
        if envelope.reply_to is not None and (asks_itself or not is_queued):
            reason = (
                "an actor cannot wait for itself" if is_queued else "the actor stopped before handling it"
            )
            dead = pykka.ActorDeadError(reason)
            envelope.reply_to.set_exception((pykka.ActorDeadError, dead, None))

    def get(self) -> Any:
        """Wait for the next envelope. Never raises: pykka calls it outside its `try`."""
        self._reader = threading.get_ident()
        while True:
            try:
                taken = self._channel.receive(self.own)
                if isinstance(taken, Message):
                    return Delivery(taken)
                # After the end pykka empties the mailbox and answers all that is in it.
                if self._is_wanted(taken) or self._stopped.is_set():
                    return taken
            except BaseException:  # noqa: BLE001 - one sent to this thread, such as a time limit of a handler's own
                log.logger("Mailbox").exception(
                    "an exception arrived after its handler had ended and was ignored"
                )

    def _admitted(self, message: Any) -> int:
        """Return the bytes queued with this message. Raises CapacityReached if a submit would be too much."""
        size = message.size if isinstance(message, Message) else 0
        if size and self._bytes + size > MOST_BYTES:
            raise CapacityReached(
                f"{self._bytes} bytes of jobs wait to be stored, as the storage is slow; try again later"
            )
        return self._bytes + size

    def _is_wanted(self, envelope: Envelope) -> bool:
        """Tell whether the message is still to be handled; from now on its asker cannot take it back."""
        message, reply = envelope.message, envelope.reply_to
        if isinstance(message, Message) and message.size:
            with self._channel.lock:
                self._bytes -= message.size
        return not isinstance(reply, Reply) or reply.begin()

    def remind(self, message: Message, delay: float) -> None:
        """Hand the message to this actor (or a sibling on its channel) after `delay` seconds."""
        self._channel.send(message, delay)

    def empty(self) -> bool:
        """Tell whether no message for this actor alone is waiting, nor being put."""
        with self._channel.lock:
            return not self.own

    def collect(self) -> None:
        """Queue behind its own what is due of its reminders, which its own messages would hold up else."""
        with self._channel.lock:
            while (message := self._channel.take()) is not None:
                self.own.append(Delivery(message))

    def wait_for_ask(self, seconds: float) -> bool:
        """Wait until somebody asks, for at most `seconds`; return whether there is any message."""
        self._is_patient = True
        try:
            return self._channel.wait(self.own, seconds)
        finally:
            self._is_patient = False
