"""What Gofer's actors have in common: the mailbox and the reply."""

import threading
from collections.abc import Callable
from typing import Any, Final

import pykka

from actors.errors import StartFailed, UnknownMessage
from actors.messages import Ping
from actors.messaging.channel import Channel
from actors.messaging.mailbox import Mailbox
from actors.messaging.reply import Held, Reply

NO_THREAD: Final = "allow this user or container more processes and threads, or set fewer GOFER_WORKERS"


class Actor(pykka.ThreadingActor):
    """A pykka actor with Gofer's mailbox and replies, which receives from `channel` if one is given."""

    actor_inbox: Mailbox
    # What pykka makes an actor's inbox and its askers' futures with.
    _create_actor_inbox = staticmethod(Mailbox)
    _create_future: Callable[[], Reply[Any]] = staticmethod(Reply)

    def __init__(self, channel: Channel | None = None) -> None:
        super().__init__()
        self.actor_inbox.open(self.actor_stopped, channel)

    def _start_actor_loop(self) -> None:
        """Start the actor's thread, a daemon: no actor keeps a process whose main thread has ended.

        Raises StartFailed, and then nothing is left; pykka would leave an actor without a thread.
        """
        thread = threading.Thread(target=self._actor_loop, daemon=True)
        thread.name = thread.name.partition(" ")[0].replace("Thread", type(self).__name__)
        self.actor_inbox.thread = thread
        try:
            thread.start()
        except BaseException as error:
            pykka.ActorRegistry.unregister(self.actor_ref)
            self.actor_stopped.set()
            if isinstance(error, RuntimeError):
                raise StartFailed(f"cannot start a {type(self).__name__}: {error}; {NO_THREAD}") from None
            raise

    def on_receive(self, message: Any) -> Any:
        """Answer a message that the subclass does not handle.

        A refusal is an answer, not an exception: pykka lets an actor die of one in a message told.
        """
        try:
            return self.answer(message)
        except UnknownMessage as unknown:
            refusal = Held()
            refusal.settle(None, unknown)
            return refusal

    def answer(self, message: Any) -> Any:
        """Answer a Ping. Raises UnknownMessage for anything else."""
        if isinstance(message, Ping):
            return threading.current_thread()
        raise UnknownMessage(f"{type(self).__name__} does not understand a {type(message).__name__} message")


def thread_of(ref: pykka.ActorRef[Any]) -> threading.Thread:
    """Return the thread of a Gofer actor."""
    inbox = ref.actor_inbox
    assert isinstance(inbox, Mailbox)
    assert inbox.thread is not None
    return inbox.thread
