"""How actors talk: their mailboxes, the channel that Workers share, and replies that can be held back."""

from actors.messaging.actor import Actor, thread_of
from actors.messaging.channel import Channel
from actors.messaging.mailbox import Mailbox
from actors.messaging.reply import Held, OutcomeUnknown, Reply, Unanswered, wake

__all__ = [
    "Actor",
    "Channel",
    "Held",
    "Mailbox",
    "OutcomeUnknown",
    "Reply",
    "Unanswered",
    "thread_of",
    "wake",
]
