"""What Gofer's actors have in common: the mailbox and the reply."""

import threading
from collections.abc import Callable
from typing import Any

import pykka

from actors.errors import UnknownMessage
from actors.messages import Ping
from actors.messaging.channel import Channel
from actors.messaging.mailbox import Mailbox
from actors.messaging.reply import Held, Reply


class Actor(pykka.ThreadingActor):
    """A pykka actor with Gofer's mailbox and replies, which receives from `channel` if one is given."""

    actor_inbox: Mailbox

    # What pykka makes an actor's inbox and its askers' futures with.
    _create_actor_inbox = staticmethod(Mailbox)
    _create_future: Callable[[], Reply[Any]] = staticmethod(Reply)

    def __init__(self, channel: Channel | None = None) -> None:
        super().__init__()
        self.actor_inbox.open(self.actor_stopped, channel)

    def on_start(self) -> None:
        """Note the thread, so that the code that stops the actor can wait for its end."""
        self.actor_inbox.thread = threading.current_thread()

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
